"""Sections of the snapshot: a function each, from a workplace to JSON values."""

import csv
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

import vidtl
from tests.annotations.sets import read as read_records
from tests.environment import REPOSITORY
from tests.snapshot.workplace import TINY, Settings, Workplace, experiment, section
from vidtl.config import AUGMENTATION_PRESETS as PRESETS
from vidtl.config.compare import settings_of
from vidtl.config.model import resolve_model
from vidtl.data.batch import batch_input
from vidtl.data.dataset import ClipDataset, ClipKey, ViewDataset, collate
from vidtl.data.loader import TrainLoader
from vidtl.data.protocols import PROTOCOLS, get_protocol, view_boxes, view_indices
from vidtl.data.sampling import train_box, train_indices
from vidtl.errors import UserError
from vidtl.evaluation.scoring import fuse
from vidtl.models import build_model
from vidtl.runtime.seeding import generator

SAMPLINGS = ("random_span", "segments")
CROPS = ("jitter", "random_resized", "multi_scale", "center")


def digest(values: Any) -> str:
    """Hash a tensor with its type and shape, or a JSON value."""
    array = values.numpy() if isinstance(values, torch.Tensor) else np.frombuffer(json.dumps(values).encode(), np.uint8)
    head = f"{array.dtype}{array.shape}" if isinstance(values, torch.Tensor) else ""
    return hashlib.sha256(head.encode() + array.tobytes()).hexdigest()[:16]


def moments(tensor: torch.Tensor) -> list[float]:
    return [float(tensor.double().mean()), float(tensor.double().std())]


def fingerprint(values_N: torch.Tensor) -> list[float]:
    """Compute moments and a random projection of values whose last bits depend on the CPU."""
    direction_N = np.random.default_rng(0).random(len(values_N), np.float32) - 0.5
    return [*moments(values_N), float((values_N.numpy() * direction_N).sum(dtype=np.float64) / len(values_N) ** 0.5)]


def configs(place: Workplace) -> dict[str, Any]:
    """Record all settings, and the changes by each configuration file and preset."""

    def resolved(settings: Settings, file: str = "") -> dict[str, Any]:
        config = experiment(settings, file)
        return settings_of(replace(config, model=resolve_model(config.model)))

    files = sorted(str(file.relative_to(REPOSITORY)) for file in REPOSITORY.glob("configs/*.yaml"))
    found = {file: resolved({}, file) for file in files}
    found |= {f"preset {name}": resolved({"augmentation.preset": name}) for name in PRESETS}
    defaults = resolved({})
    changes = {name: {key: v for key, v in each.items() if v != defaults[key]} for name, each in found.items()}
    return {"defaults": defaults} | changes


def clips(place: Workplace) -> dict[str, Any]:
    """Record hashes of decoded clips, mean and deviation of augmented ones."""
    base = TINY | place.data("toy")
    changes: dict[str, Settings] = {
        "default": {},
        "rgb": {"data.pixel_format": "rgb"},
        "10 fps": {"clip.target_fps": 10.0},
        "long, held": {"clip.stride": 6, "clip.short_video": "hold"},
        "long, looped": {"clip.stride": 6, "clip.short_video": "loop"},
        "repeats": {"augmentation.repeats": 2},
        "several labels": place.data("toy_multilabel"),
        **{f"crop {name}": {"augmentation.crop": name} for name in CROPS},
        **{f"sampling {name}": {"clip.sampling": name} for name in SAMPLINGS},
        **{f"preset {name}": {"augmentation.preset": name} for name in PRESETS},
    }

    def of_split(case: Settings, split: str) -> tuple[Any, Any]:
        config = experiment({**base, **case})
        return config, read_records(config.data.dataset, split, Path(config.data.root))

    def training(case: Settings) -> dict[str, Any]:
        found = {}
        for seed, epoch, sample in ((0, 0, 0), (0, 1, 5), (7, 3, 23)):
            config, records = of_split({**case, "training.seed": seed}, "train")
            dataset = ClipDataset(records, config.data, config.clip, config.augmentation, seed)
            batch = collate([dataset[ClipKey(epoch, sample, 1.0)]])
            values = [digest(batch.pixels), batch.targets[0].nonzero().flatten().tolist()]
            values += moments(batch_input(batch, config.clip)[0])
            found[f"seed {seed}, epoch {epoch}, sample {sample}"] = values
        return found

    def mixed(case: Settings) -> list[list[float]]:
        config, records = of_split({"training.batch_size": 8, **case}, "train")
        input_BTCHW, targets_BK = batch_input(next(TrainLoader(records, config, 0, 1).iterate()), config.clip)
        return [moments(input_BTCHW), *targets_BK.tolist()]

    def evaluation(protocol: str) -> str:
        config, records = of_split({}, "val")
        return digest(
            ViewDataset(records, get_protocol(protocol), config.clip, config.data).__getitems__([2])[0].pixels
        )

    files = sorted((place.toy("toy") / "videos").rglob("*.mp4"))
    return {
        "files": digest([hashlib.sha256(file.read_bytes()).hexdigest() for file in files]),
        "training": {name: training(case) for name, case in changes.items()},
        "first batch": {name: mixed({"augmentation.preset": name}) for name in PRESETS},
        "evaluation": {name: evaluation(name) for name in PROTOCOLS},
    }


def protocols(place: Workplace) -> dict[str, Any]:
    """Record frames, boxes and fused scores of every protocol; frames and boxes of training clips."""
    lengths, sizes = (1, 9, 40, 300), ((240, 320), (360, 202))
    logits_VK = np.random.default_rng(0).standard_normal((4, 3)) * 3

    def evaluation(name: str) -> dict[str, Any]:
        protocol = get_protocol(name)
        tables = {}
        for frames in lengths:
            for fps, settings in ((25.0, {}), (15.0, {"clip.num_frames": 7, "clip.stride": 3})):
                table = view_indices(protocol, frames, experiment(TINY | settings).clip, fps)
                tables[f"{frames} frames, {fps:g} fps"] = [*table.shape, digest(table.tolist())]
        boxes = [[list(box) for box in view_boxes(protocol, *size, experiment(TINY).clip)] for size in sizes]
        scores = [fuse(logits_VK, protocol.fusion, multi_label).tolist() for multi_label in (False, True)]
        return {"frames": tables, "boxes": boxes, "scores": scores}

    def training(case: Settings) -> dict[str, Any]:
        config = experiment(TINY | case)
        found = {}
        for frames, key in product(lengths, ((0, 0, 0), (5, 2, 17))):
            rng = generator(*key)
            indices = train_indices(frames, config.clip, rng).tolist()
            box = train_box(*sizes[frames % 2], config.augmentation, config.clip, rng)
            found[f"{frames} frames, {key}"] = [indices, list(box)]
        return found

    return {
        "evaluation": {name: evaluation(name) for name in PROTOCOLS},
        "sampling": {name: training({"clip.sampling": name}) for name in SAMPLINGS},
        "crop": {name: training({"augmentation.crop": name}) for name in CROPS},
    }


FORMS = ("joint", "factorised_encoder", "factorised_self_attention", "factorised_dot_product")


def model_cases() -> Iterator[tuple[str, Settings]]:
    """List small models of every architecture and form by name."""
    choices = [*(f"form {form}" for form in FORMS), "pooling cls", "pooling max", "pooling sum", "temporal_depth 0"]
    choices += ["tubelet_sampling uniform", "temporal_input tokens", "positions sincos_1d", "positions sincos_3d"]
    for key, value in map(str.split, choices):
        yield f"vivit {key} {value}", {f"model.{key}": value}
    for tokenizer in ("t2t_performer", "t2t_transformer"):
        yield f"vivit {tokenizer}", section("model", tokenizer=tokenizer, tubelet=[1, 16, 16])
    yield "vivit space_time", section("model", form="factorised_self_attention", attention_order="space_time")
    yield "vivit joint cls", section("model", form="joint", pooling="cls")
    yield "vivit image", {"clip.num_frames": 1, **section("model", form="joint", tubelet=[1, 8, 8])}
    stages = (("v1", "sum", False), ("v1", "mean", True), ("v1.1", "sum", False), ("v1.1", "sum", True))
    for form, (version, pooling, fuser) in product(FORMS, stages):
        stage = {"num_tokens": 3, "after_block": 1, "version": version, "pooling": pooling, "fuser": fuser}
        name = f"vivit {form} {version} {pooling}{' fuser' if fuser else ''}"
        yield name, {"model.form": form, **section("model.token_learner", **stage)}
    for module in ("performer", "transformer"):
        yield f"t2t_vit {module}", {"model.tokenizer": f"t2t_{module}"}
    mini = {"tubelet": "patch", "t2t_performer": "t2t_performer", "t2t_transformer": "t2t_transformer"}
    yield from ((f"mini_vit {name}", {"model.tokenizer": tokenizer}) for tokenizer, name in mini.items())
    yield "mini_vit 0", {"model.token_learner.num_tokens": 0}
    for name, frames in (("x3d_xs", 4), ("mvit_b_16x4", 16)):
        yield f"pytorchvideo {name}", {"model.size": name, "clip.num_frames": frames}


VIVIT = section("model", width=24, depth=2, num_heads=2, mlp_width=40, temporal_depth=1, tubelet=[2, 8, 8])
VIVIT |= section("model", pooling="mean", activation="gelu_tanh") | {"model.token_learner.num_tokens": 0}
IMAGE = section("clip", num_frames=1, frame_size=[48, 48], short_side=48)
BASES = {
    "vivit": TINY | VIVIT | {"clip.num_frames": 4},
    "t2t_vit": TINY | IMAGE | section("model", size="7", depth=2),
    "mini_vit": TINY | IMAGE | section("model", width=24, head_width=8, mlp_width=40),
    "pytorchvideo": TINY,
}
"""Settings of small models by architecture."""


def weights(place: Workplace) -> dict[str, Any]:
    """Record parameters, initial weights and scores of small models of every kind, and sizes of named models."""

    @torch.no_grad()
    def model(name: str, case: Settings) -> dict[str, Any]:
        architecture = name.split()[0]
        config = experiment({"model.architecture": architecture, **BASES[architecture], **case})
        torch.manual_seed(0)
        model = build_model(config.model, config.clip, 5).eval()
        state = sorted(model.state_dict().items())
        found = {
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "trainable": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
            "names": digest([name for name, _ in state]),
            "shapes": digest([list(tensor.shape) for _, tensor in state]),
            "weights": fingerprint(torch.cat([tensor.flatten().float() for _, tensor in state])),
            "maps": None,
        }
        rng = np.random.default_rng(0)
        for _, parameter in sorted(model.named_parameters()):  # a fresh head is zero, and so would all scores be
            parameter += torch.from_numpy(0.05 * rng.standard_normal(parameter.shape)).float()
        shape = (1, config.clip.num_frames, 3, *config.clip.frame_size)
        input_BTCHW = torch.from_numpy(rng.standard_normal(shape)).float()
        with suppress(UserError, AttributeError):  # models without TokenLearner
            found["maps"] = moments(model.token_maps(input_BTCHW))
        return found | {"logits": model(input_BTCHW)[0].tolist()}

    with torch.device("meta"), WithoutInitialization():
        sizes = {"16at18 L/10": (220, 220)}
        names = [name for name in vidtl.list_models() if name.startswith("vivit") or name[0].isdigit()]
        listed = {name: vidtl.create_model(name, frame_size=sizes.get(name)) for name in names}
    counts = {name: sum(parameter.numel() for parameter in model.parameters()) for name, model in listed.items()}
    return {"listed": counts, "models": {name: model(name, case) for name, case in model_cases()}}


class WithoutInitialization(TorchFunctionMode):
    """Mode that skips in-place functions, which take half of the time to build models on the meta device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        in_place = func.__name__.endswith("_") and not func.__name__.endswith(("__", "requires_grad_"))
        return next(iter([*args, *(kwargs or {}).values()])) if in_place else func(*args, **(kwargs or {}))


def training(place: Workplace) -> dict[str, Any]:
    """Record losses, norms of gradients and learning rates of 20 steps."""
    found = {}
    for name in ("toy", "toy_multilabel"):
        lines = [json.loads(line) for line in (place.run(name) / "metrics.jsonl").read_text().splitlines()]
        steps = [line for line in lines if "split" not in line]
        found[name] = {key: [line[key] for line in steps] for key in ("loss", "grad_norm", "learning_rate")}
    return found


def evaluation(place: Workplace) -> dict[str, Any]:
    """Record metrics and scores of evaluating the runs of `training`, and the prediction of a video."""
    found: dict[str, Any] = {}
    for name, protocol in (("toy", "vivit_4x3"), ("toy_multilabel", "charades_10x3_max")):
        output = place.folder / f"evaluation-{name}"
        model = ("--checkpoint", place.run(name), "--step", "last")
        arguments = (*model, "--output_dir", output, "--html", "false")
        place.tool("eval", *arguments, settings={"evaluation.protocol": protocol})
        (report,) = (file.parent for file in output.rglob("metrics.json"))
        content = json.loads((report / "metrics.json").read_text())
        with (report / "predictions.csv").open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        found[name] = {
            "files": {file.name: True for file in sorted(report.iterdir())},
            "metrics": content["metrics"],
            "predictions": {row["id"]: [as_number(key, value) for key, value in row.items()] for row in rows},
        }
        video = sorted((place.toy(name) / "videos/val").iterdir())[0]
        printed = place.tool("predict", video, *model, "--json", "--top_k", 0).read_text()
        predicted = json.loads(printed.splitlines()[-1])
        scores = {each["class"]: [each["probability"], each["score"]] for each in predicted["scores"]}
        found[name]["predict"] = {key: predicted[key] for key in ("frames", "duration_s")} | {"scores": scores}
    return found


def as_number(column: str, value: str) -> str | float:
    """Read scores as numbers; the best classes are not recorded, because near scores may change places."""
    return float(value) if column.startswith("score: ") else "" if column.startswith("top_") else value


_IN_ORDER = (training, evaluation, configs, clips, protocols, weights)
SECTIONS: dict[str, Callable[[Workplace], dict[str, Any]]] = {section.__name__: section for section in _IN_ORDER}
"""Sections by name; those that start tools come first, so that their forks are small."""

TOLERANCES = {"training": 1e-4, "evaluation": 1e-4, "weights": 1e-5, "clips": 1e-4, "protocols": 1e-7, "configs": 1e-7}
"""Absolute or relative tolerance of floats, otherwise 0: several times the difference that PyTorch, NumPy and OpenCV
show without AVX (`ATEN_CPU_CAPABILITY=default` and the like)."""
