"""Elastic models with several numbers of tokens: each of some for every clip, or as few as the answer to a clip needs.

Axes: B clips, U unsure ones, N videos, C numbers of tokens, K classes.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor, nn

from vidtl.evaluation.evaluator import EvaluationResult
from vidtl.metrics import METRICS
from vidtl.models import VideoModel
from vidtl.models.attention import Cache
from vidtl.models.complexity import count_multiply_adds


class TokenScores(nn.Module):
    """Score clips with several growing numbers of tokens (`counts`), each of which adds to the work for the one before.

    Without a confidence, `input_BTCHW -> [B, C K]`: logits, one number of tokens after the other. With a confidence,
    numbers come in turn while the `doubt` of a clip's answer is above 1 - confidence: `[B, K + C]`, the logits of the
    last one over its temperature, then 1 for that one and 0 for the others. `ended_C` counts clips by their last one.
    """

    def __init__(
        self, model: VideoModel, counts: Sequence[int], confidence: float | None = None,
        temperatures: Sequence[float] = (), multi_label: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.model: Any = model
        self.counts, self.confidence, self.temperatures = tuple(counts), confidence, tuple(temperatures)
        self.layout = (1, len(counts)) if confidence else (len(counts), 0)
        self.multi_label, self.ended_C = multi_label, np.zeros(len(counts), np.int64)
        self.timestep_frames = getattr(model, "timestep_frames", None)

    def forward(self, *inputs: Tensor) -> Tensor:
        clips, state = inputs[-1], self.model.learn_tokens(*inputs)
        cache: Cache = {}
        if self.confidence is None:
            return torch.cat([self.model.classify_tokens(state, count, cache) for count in self.counts], dim=1)
        waiting_U = torch.arange(len(clips), device=clips.device)
        logits_BK = torch.zeros(len(clips), self.model.num_classes, device=clips.device)
        last_B = torch.zeros_like(waiting_U)
        for i, (count, temperature) in enumerate(zip(self.counts, self.temperatures, strict=True)):
            logits_UK = self.model.classify_tokens(state, count, cache).float() / temperature
            logits_BK[waiting_U], last_B[waiting_U] = logits_UK, i
            unsure_U = doubt(logits_UK, self.multi_label) > 1 - self.confidence
            state, waiting_U = state[unsure_U], waiting_U[unsure_U]
            cache = {module: tuple(each[unsure_U] for each in kept) for module, kept in cache.items()}
            if not len(waiting_U):
                break
        last_BC = F.one_hot(last_B, len(self.counts))
        self.ended_C += last_BC.sum(dim=0).cpu().numpy()
        return torch.cat([logits_BK, last_BC], dim=1)


def doubt(logits_BK: Tensor, multi_label: bool) -> Tensor:
    """Compute 1 - confidence, float64 [B], without the rounding of a confidence near 1.

    Confidence is the largest probability of a softmax; with several labels the mean over classes of max(p, 1 - p).
    """
    if multi_label:
        return torch.sigmoid(-logits_BK.double().abs()).mean(dim=-1)
    return logits_BK.double().softmax(dim=-1).sort(dim=-1).values[:, :-1].sum(dim=-1)


def token_rows(results: Sequence[EvaluationResult], network: TokenScores) -> list[dict[str, Any]]:
    """List multiply-adds of a clip and the first metric for each number of tokens.

    `behind_learner` are those behind TokenLearner, and `of_answer` their part that comes once for each number. With a
    confidence, `with_retries` are those after all smaller numbers, `share` is that of the readable videos' views that
    ended with this one, and the metric is that of the readable videos most of whose views did.
    """
    model, counts, clip = network.model, network.counts, network.model.clip_config
    learning = copy.copy(model)
    learning.forward = model.learn_tokens
    before, metric = count_multiply_adds(learning, clip), METRICS[next(iter(results[0].metrics))]
    passes = [*((count,) for count in counts), counts[:1] * 2]
    *once, twice = (count_multiply_adds(TokenScores(model, each), clip) for each in passes)
    rows = [
        {"tokens": count, "multiply_adds": cost, "behind_learner": cost - before, "of_answer": twice - once[0]}
        for count, cost in zip(counts, once, strict=True)
    ]
    if network.confidence is None:
        return [row | {metric.name: result.metrics[metric.name]} for row, result in zip(rows, results, strict=True)]
    readable = results[0].outcomes.readable
    outcomes, shares_NC = results[0].outcomes[readable], results[0].shares[readable]
    for i, row in enumerate(rows):
        row["with_retries"] = count_multiply_adds(TokenScores(model, counts[: i + 1]), clip)
    return [
        row | {"share": shares_NC[:, i].mean(), metric.name: metric.function(outcomes[shares_NC.argmax(axis=1) == i])}
        for i, row in enumerate(rows)
    ]
