"""One model for any number of tokens: equal to a plain one, blocks before the choice run once; baselines and errors."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from tests.refusals import refused
from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.models import build_model
from vidtl.models.base import VideoModel, with_num_tokens
from vidtl.models.blocks import make_blocks
from vidtl.models.token_learner import TokenLearner, run_blocks

FORMS = ["joint", "factorised_encoder", "mini_vit", "factorised_self_attention", "factorised_dot_product"]
CASES = [(form, version) for form in FORMS for version in ("v1", "v1.1")]


def build(form, version="v1.1", **stage):
    stage = {"num_tokens": 6, "after_block": 1, "version": version, "elastic": True, "pooling": "sum", **stage}
    sizes = {"width": 24, "depth": 3, "num_heads": 4, "mlp_width": 48, "token_learner": TokenLearnerConfig(**stage)}
    image = form == "mini_vit"
    family = {"architecture": form} if image else {"form": form, "temporal_depth": 1}
    clip = ClipConfig(num_frames=1 if image else 4, frame_size=(24, 32))
    model = build_model(ModelConfig(**sizes, **family, tubelet=(1 if image else 2, 8, 8)), clip, 5).eval()
    nn.init.normal_(model.head.weight)
    return model, torch.randn(2, *model.clip_shape)


@torch.no_grad()
@pytest.mark.parametrize(("form", "version"), CASES)
def test_an_elastic_model_is_one_of_each_number_of_tokens(form, version, tmp_path):
    model, clips = build(form, version)
    model.save_pretrained(tmp_path)
    scores = model(clips, token_counts=(6, 4, 1))
    assert torch.equal(scores[0], model(clips))
    assert not torch.allclose(scores[0], scores[2], rtol=1e-4)
    state, cache = model.learn_tokens(clips), {}
    for count, expected in zip((1, 4, 6), scores.flip(0), strict=True):
        logits = model.classify_tokens(state, count)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model.classify_tokens(state, count, cache), logits, rtol=1e-4, atol=1e-5)
        cut = VideoModel.from_pretrained(tmp_path, num_tokens=count)
        assert cut.model_config.token_learner.num_tokens == cut.token_maps(clips).shape[2] == count
        cut.save_pretrained(tmp_path / "cut")
        assert torch.equal(cut(clips), logits)
        assert torch.equal(VideoModel.from_pretrained(tmp_path / "cut")(clips), logits)
        if version != "v1":  # whose convolutions would be narrower
            own, _ = build(form, version, num_tokens=count)
            pairs = zip(own.state_dict().items(), model.state_dict().values(), strict=True)
            own.load_state_dict({name: every[: len(part)] for (name, part), every in pairs})
            torch.testing.assert_close(own(clips), logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(
    ("form", "version"), [(form, "average") for form in FORMS] + [(form, "merge") for form in FORMS[:3]]
)
def test_a_baseline_of_all_tokens_is_a_model_without_token_learner(form, version, tmp_path):
    plain, clips = build(form, num_tokens=0, elastic=False)
    for count, same in ((12, True), (4, False)):
        baseline, _ = build(form, version, num_tokens=count, elastic=False)
        baseline.load_state_dict(plain.state_dict())
        assert torch.allclose(baseline(clips), plain(clips), rtol=1e-4, atol=1e-5) == same
        baseline.save_pretrained(tmp_path / str(count))
        assert torch.equal(VideoModel.from_pretrained(tmp_path / str(count))(clips), baseline(clips))


@torch.no_grad()
@pytest.mark.parametrize("form", ["factorised_encoder", "mini_vit"])
def test_what_all_numbers_share_is_computed_once(form):
    model, clips = build(form)
    encoder, calls = getattr(model, "encoder", model), []
    for name in ("blocks.0", "token_learner" if form == "mini_vit" else "token_learners.0", "blocks.2"):
        encoder.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.append(name[:8]))
    scores = model(clips, token_counts=(6, 2, 1))
    assert calls == ["blocks.0", "token_le", "blocks.2"]
    if form != "mini_vit":  # clips of distinct timesteps, each encoded once
        shared = model(clips.view(4, 2, 3, 24, 32), torch.tensor([[0, 1], [2, 3]]), (6, 2, 1))
        torch.testing.assert_close(shared, scores, rtol=1e-4, atol=1e-5)


def test_merging_is_that_of_a_loop_over_tokens():
    tokens = torch.randn(2, 21, 8)
    merged, sizes = TokenLearner(8, 4, "merge").select(tokens, 4, (3, 7))
    for clip in range(2):
        groups = [[place] for place in range(21)]
        while (length := len(groups)) > 4:
            means = [tokens[clip, group].mean(dim=0) for group in groups]
            alike = {(float(F.cosine_similarity(means[a], means[b], dim=0)), a, b)
                     for a in range(0, length, 2) for b in range(1, length, 2)}  # fmt: skip
            pairs = sorted((max(pair for pair in alike if pair[1] == a) for a in range(0, length, 2)), reverse=True)
            number = min(length - 4, length // 2)
            for _, a, b in pairs[:number]:
                groups[b] = groups[b] + groups[a]
            groups = [groups[a] for _, a, _ in pairs[number:]] + groups[1::2]
        torch.testing.assert_close(sizes[clip], torch.tensor(list(map(len, groups))).float())
        torch.testing.assert_close(merged[clip], torch.stack([tokens[clip, group].mean(dim=0) for group in groups]))


@pytest.mark.parametrize(("axes", "softcap"), [("joint", 0.0), ("space", 5.0)])
def test_a_merged_token_counts_as_often_as_the_tokens_in_it(axes, softcap):
    blocks, norm = make_blocks(2, (axes,), 16, 2, 32, softcap=softcap), nn.LayerNorm(16)
    tokens, sizes = torch.randn(1, 2, 3, 16), torch.tensor([[[1, 4, 2], [2, 2, 3]]])
    copies = torch.stack([tokens[0, t].repeat_interleave(sizes[0, t], dim=0) for t in range(2)])[None]
    expected = run_blocks(blocks, norm, copies, None).mean(dim=2)
    torch.testing.assert_close(run_blocks(blocks, norm, tokens, sizes.float()).mean(dim=2), expected)


def test_average_tokens_are_means_of_regions():
    tokens = torch.randn(2, 14 * 14, 8)
    for a, c in ((1, 1), (1, 2), (2, 3), (2, 4), (4, 4)):
        pooled, _ = TokenLearner(8, 16, "average").select(tokens, a * c, (14, 14))
        expected = F.adaptive_avg_pool2d(tokens.mT.unflatten(-1, (14, 14)), (a, c)).flatten(-2).mT
        torch.testing.assert_close(pooled, expected)


def test_numbers_of_tokens_that_a_model_lacks_are_refused():
    for form in ("joint", "mini_vit"):
        (model, clips), (plain, _) = build(form), build(form, elastic=False)
        for each, count, *parts in ((model, 0, 0, "1 to 6"), (model, 7, 7, "1 to 6"), (plain, 2, "elastic")):
            with refused(*parts):
                with_num_tokens(each, count)
            with refused(*parts):
                each(clips, token_counts=(count,))
