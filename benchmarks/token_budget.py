"""Choose the numbers of tokens and the confidence of a budget per clip on one split, and judge them on another.

    python tools/eval.py --checkpoint runs/x --tokens 1,2,4,8,16 --data.eval_split train      (the same for val)
    python -m benchmarks.token_budget --choose FOLDER --test FOLDER --output budget.json      (those with tokens.json)
    ... --checkpoint runs/x --max_videos 500      (also the time of each policy without decoding, in turns in one run)

A random half of the first split fits temperatures and chooses: of cascades that end with all tokens, that of the fewest
multiply-adds at the accuracy of all tokens less the tolerance; the other half confirms. Multiply-adds are those behind
TokenLearner; going on to more tokens costs the new ones and another answer. A random choice has the shares of the
cascade; the oracle takes the smallest number that is right, or all tokens. Axes: C numbers of tokens, N readable clips
of one label, K classes.
"""

import argparse
import csv
import json
import statistics
import time
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.differences import scored_rows
from vidtl.annotations.description import load_description, read_records
from vidtl.config import ExperimentConfig
from vidtl.config.documents import read_json
from vidtl.config.load import load
from vidtl.data.dataset import first_records
from vidtl.data.loader import EvalLoader
from vidtl.data.protocols import PROTOCOLS
from vidtl.evaluation.calibration import fit_temperature, tempered
from vidtl.evaluation.predictions import FILE_NAME, SCORE
from vidtl.evaluation.scoring import Scorer, probabilities
from vidtl.evaluation.token_budget import TokenScores
from vidtl.models import load_model_directory
from vidtl.runtime.files import say
from vidtl.runtime.launch import make_accelerator
from vidtl.runtime.seeding import generator
from vidtl.runtime.signals import run_tool
from vidtl.runtime.timing import describe_measurement
from vidtl.training.checkpoint import find_checkpoint
from vidtl.visualize.curves import draw_token_curves


class Clips(NamedTuple):
    """Right answers and confidences [C, N], multiply-adds behind TokenLearner [C], and those of one more answer."""

    right: NDArray[np.bool_]
    sure: NDArray[np.float64]
    costs: NDArray[np.int64]
    answer: int

    def policy(self, last_N: NDArray[np.int64], costs_N: NDArray[np.int64]) -> dict[str, Any]:
        """Describe the answers with the number of tokens at place `last_N` of each clip, which cost `costs_N`."""
        right_N, ended_CN = self.right[last_N, np.arange(len(last_N))], np.arange(len(self.costs))[:, None] == last_N
        ends = [(each.mean(), right_N[each].mean() if each.any() else None) for each in ended_CN]
        return {"accuracy": right_N.mean(), "multiply_adds": costs_N.mean(), "share_and_accuracy_of_exits": ends}

    def cascade(self, places: tuple[int, ...], confidence: float) -> dict[str, Any]:
        """Take the numbers of tokens at `places` in turn until the confidence is reached."""
        unsure_N, (last_N, costs_N) = np.isfinite(self.sure[0]), np.zeros((2, self.sure.shape[1]), np.int64)
        for tried, i in enumerate(places):
            last_N[unsure_N], costs_N[unsure_N] = i, self.costs[i] + tried * self.answer
            unsure_N &= self.sure[i] < confidence
        return self.policy(last_N, costs_N)

    def choose(self, tolerance: float) -> tuple[tuple[int, ...], float]:
        """Choose places and confidence with the fewest multiply-adds."""
        least, last = self.right[-1].mean() - tolerance, len(self.costs) - 1
        cascades = [(*first, last) for size in range(last + 1) for first in combinations(range(last), size)]
        plans = product(cascades, np.unique(np.quantile(self.sure, np.linspace(0, 1, 101))).tolist())
        found = ((self.cascade(*plan), plan) for plan in plans)
        return min((each["multiply_adds"], plan) for each, plan in found if each["accuracy"] >= least)[1]


def read_scores(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.bool_], list[dict[str, Any]]]:
    """Read probabilities [C, N, K], labels [N, K] and the rows of tokens.json."""
    rows, chances = read_json(folder / "tokens.json")["rows"], []
    for row in rows:
        part = folder / f"tokens-{row['tokens']}"
        lines = scored_rows(part / FILE_NAME)
        names = [name for name in lines[0] if name.startswith(SCORE)]
        scores = np.array([[float(line[name]) for name in names] for line in lines])
        chances.append(probabilities(scores, read_json(part / "metrics.json")["fusion"], multi_label=False))
    true = (SCORE + next(csv.reader([line["true_labels"]], delimiter="|"))[0] for line in lines)
    return np.array(chances), np.array([[name == label for name in names] for label in true]), rows


def calibrated(scores: tuple[Any, Any, Any], temperatures: list[float], clips: Any = slice(None)) -> Clips:
    """Return some clips with the confidences of logits / temperature."""
    chances, labels_NK, rows = scores
    right, pairs = chances.argmax(axis=2) == labels_NK.argmax(axis=1), zip(chances, temperatures, strict=True)
    sure = np.array([tempered(chances_NK, divisor, multi_label=False).max(axis=1) for chances_NK, divisor in pairs])
    costs = np.array([row["behind_learner"] for row in rows])
    return Clips(right[:, clips], sure[:, clips], costs, rows[0]["of_answer"])


def time_policies(options: argparse.Namespace, policies: dict[str, tuple[Any, ...]]) -> dict[str, float]:
    """Measure the median seconds with arguments of `TokenScores` on decoded clips, in five turns after a first."""
    found, center = find_checkpoint(options.checkpoint), PROTOCOLS["center"]
    assert found.experiment_file
    model, config = load_model_directory(found.model_directory).eval(), load(found.experiment_file, ExperimentConfig)
    evaluation = replace(config.evaluation, batch_size=options.batch)
    data, accelerator = config.data, make_accelerator("fp32")
    records = read_records(load_description(data.dataset, data.root), data.eval_split, Path(data.root))
    records = first_records(records, options.max_videos)
    videos = list(EvalLoader(records, center, config.clip, data))
    networks = {name: TokenScores(model, *policy).to(accelerator.device) for name, policy in policies.items()}
    seconds: dict[str, list[float]] = {name: [] for name in policies}
    for name in [*policies] * 6:
        scorer = Scorer(networks[name], records, config.clip, evaluation, center, accelerator)
        start = time.perf_counter()
        list(scorer.score(videos, scorer.batches(), lambda _: None))
        seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(each[1:]) for name, each in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--choose", "--test", "--output"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--tolerance", type=float, default=0.005, help="accuracy to lose (default: %(default)s)")
    parser.add_argument("--checkpoint", type=Path, help="run to measure the time of")
    parser.add_argument("--max_videos", type=int, default=500, help="of its evaluation split (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="clips in a pass (default: %(default)s)")
    options = parser.parse_args()
    scores = read_scores(options.choose)
    order = generator(0).permutation(len(scores[1]))
    temperatures = [fit_temperature(each[order[::2]], scores[1][order[::2]], multi_label=False) for each in scores[0]]
    test = calibrated(read_scores(options.test), temperatures)
    halves = [calibrated(scores, temperatures, order[i::2]) for i in range(2)]
    plan, counts = halves[0].choose(options.tolerance), [row["tokens"] for row in scores[2]]
    cascade, oracle_N = test.cascade(*plan), np.vstack([test.right[:-1], test.right[-1] | True]).argmax(axis=0)
    fixed = {f"{k} tokens": test.policy(0 * oracle_N + i, test.costs[[i]]) for i, k in enumerate(counts)}
    mix = np.array([share for share, _ in cascade["share_and_accuracy_of_exits"]])
    random = {"accuracy": mix @ test.right.mean(axis=1), "multiply_adds": mix @ test.costs}
    others = {"cascade": cascade, "random": random, "oracle": test.policy(oracle_N, test.costs[oracle_N])}
    least, policies = cascade["accuracy"] - options.tolerance, fixed | others
    equal = [each["multiply_adds"] for each in fixed.values() if each["accuracy"] >= least]
    report = policies | {
        "chosen_on": [{"all tokens": each.right[-1].mean(), "cascade": each.cascade(*plan)} for each in halves],
        "saved_of_cheapest_equal_fixed": 1 - cascade["multiply_adds"] / min(equal) if equal else None,
        "right_with_fewer_tokens_only": (test.right.any(axis=0) & ~test.right[-1]).mean(),
        "options": f"--tokens {','.join(str(counts[i]) for i in plan[0])} --confidence {plan[1]}",
        "temperatures": temperatures,
    }
    if options.checkpoint:
        places = [counts[i] for i in plan[0]]
        of_plan = places, plan[1], [temperatures[i] for i in plan[0]]
        passes = {f"{k} tokens": ((k,),) for k in counts} | {"cascade": of_plan}
        report["seconds"] = time_policies(options, passes)
        report["measured"] = describe_measurement("-m benchmarks.token_budget")
    lines = (f"{name:<12}{each['accuracy']:>8.2%}{each['multiply_adds']:>18,.0f}" for name, each in policies.items())
    say(*lines, f"{report['options']}  saved: {report['saved_of_cheapest_equal_fixed']}")
    say(*(f"{name:<12}{seconds:>8.3f} s" for name, seconds in report.get("seconds", {}).items()))
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    points = {name: (each["multiply_adds"], each["accuracy"], name) for name, each in policies.items()}
    curves = {"fixed": [points[name] for name in fixed], **{name: [points[name]] for name in others}}
    draw_token_curves(curves, "top1", options.output.with_suffix(".png"))


if __name__ == "__main__":
    run_tool(main)
