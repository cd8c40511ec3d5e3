"""Models of the papers: counts beside printed figures, and a step that would tell if something were wrong."""

import json
from dataclasses import replace

import pytest
import torch

from tests.environment import REPOSITORY
from vidtl.benchmark import published
from vidtl.benchmark.published import compare, take_step
from vidtl.config import ClipConfig, ModelConfig
from vidtl.models import VideoModel
from vidtl.models.published import TABLES, PublishedModel, published_models

CPU = torch.device("cpu")
RESULTS = REPOSITORY / "docs/results/t2t/models.json"
ROWS = {row.name: row for row in published_models("t2t_vit")}


def small(name: str) -> PublishedModel:
    row = ROWS[name]
    model = replace(row.model, width=16, depth=2, num_heads=2, mlp_width=16, token_width=16)
    clip = ClipConfig(num_frames=1, frame_size=(32, 32), short_side=32)
    return replace(row, model=model, clip=clip, num_classes=7)


@pytest.mark.parametrize("name", ["T2T-ViT-14", "T2T-ViT_t-14"])
def test_a_step_gives_every_trained_tensor_a_gradient(name: str) -> None:
    step = take_step(small(name), CPU)
    # norm and linear layers of the two token layers, projection, class token, blocks, norm, head
    biases = {"T2T-ViT-14": 2, "T2T-ViT_t-14": 0}[name]
    assert step.tensors == 2 * 11 + biases + 2 + 1 + 2 * 13 + 2 + 2
    assert step.tensors_with_gradient == step.tensors
    assert step.finite
    assert 1 < step.loss < 4  # about the logarithm of 7 classes
    assert step.gradient_norm > 0


def test_what_is_not_finite_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    build_model = published.build_model

    def broken(*arguments: object) -> VideoModel:
        model = build_model(*arguments)  # type: ignore[arg-type]
        model.blocks[0].norm1.weight.data[0] = float("inf")  # type: ignore[union-attr, index, operator]
        return model

    monkeypatch.setattr(published, "build_model", broken)
    step = take_step(small("T2T-ViT-14"), CPU)
    assert not step.finite
    assert step.tensors_with_gradient < step.tensors


def test_a_comparison_without_device_only_counts() -> None:
    comparison = compare(replace(ROWS["T2T-ViT-7"], model=small("T2T-ViT-7").model))
    assert comparison.step is None
    assert comparison.as_dict()["step"] is None
    assert comparison.parameters > comparison.trainable_parameters > 0


def test_tables_together_are_all_rows() -> None:
    assert [row for table in TABLES for row in published_models(table)] == published_models()
    sizes = {ModelConfig(architecture="t2t_vit", size=n) for n in (14, 19, 24)}
    assert {row.model for row in published_models("t2t_vit")} >= sizes


@pytest.mark.parametrize("name", ["T2T-ViT-14", "T2T-ViT-19", "T2T-ViT-24"])
def test_the_committed_figures_are_todays(name: str) -> None:
    rows = {row["name"]: row for row in json.loads(RESULTS.read_text())["rows"]}
    now = json.loads(json.dumps(compare(ROWS[name]).as_dict()))
    step = rows[name].pop("step")
    del now["step"]
    assert rows[name] == now
    assert step["finite"]
    assert step["tensors_with_gradient"] == step["tensors"]


ALL_ROWS = {row.name: row for row in published_models()}


@pytest.mark.parametrize(
    "name", ["B/16x2 model 1, joint", "B/16x2 model 3", "8at18 + L/16", "T2T-ViT-19", "T2T-ViT_t-14"]
)
def test_published_figures_lie_where_elementwise_work_puts_them(name: str) -> None:
    row = ALL_ROWS[name]
    assert row.gmacs is not None
    ours = compare(row).multiply_adds / 1e9
    half_a_digit = 0.5 * 10.0 ** -len(f"{row.gmacs:g}".partition(".")[2])
    assert 0.998 * ours - half_a_digit <= row.gmacs <= 1.015 * ours + half_a_digit


@pytest.mark.parametrize("name", ["B/16x2 model 3", "16at18 + L/14", "T2T-ViT_t-24", "x3d_s, 182 pixels"])
def test_published_parameters_are_ours(name: str) -> None:
    row = ALL_ROWS[name]
    assert compare(row).parameters / 1e6 == pytest.approx(row.parameters_m, rel=2e-3)


def test_names_of_rows_are_unique_within_a_source() -> None:
    rows = [(row.source, row.name) for row in published_models()]
    assert len(set(rows)) == len(rows)
