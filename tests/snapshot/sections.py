"""What is recorded: a function per section, from a workplace to values of JSON; names are those of the first record."""

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from tests.environment import REPOSITORY
from tests.snapshot import adapters
from tests.snapshot.adapters import TINY, Workplace
from tests.snapshot.compare import REMOVED
from tests.snapshot.renames import RENAMES, Settings, section

PRESETS = (
    *("vivit_kinetics", "vivit_ssv2", "vivit_epic_kitchens", "videomae_kinetics", "videomae_ssv2", "tsn"),
    *("t2t_vit_imagenet", "mini_vit_cifar10"),
)
PROTOCOLS = (
    *("center", "vivit_4x3", "slowfast_10x3", "slowfast_10x3_offset", "mmaction2_10x3", "videomae_5x3"),
    *("charades_10x3_max", "videomae_ssv2_2x3", "slowfast_ssv2_1x3", "pytorchvideo_10x3"),
)
SAMPLINGS = ("random_span", "segments", "pytorchvideo_random")
CROPS = ("jitter", "random_resized", "multi_scale", "centre")
TOOLS = (
    *("benchmark", "convert_weights", "eval", "export", "make_toy", "predict", "prepare", "profile_model"),
    *("report", "study", "train", "visualize"),
)


class SkippedError(Exception):
    """A section whose data is absent; says which."""


def digest(values: Any) -> str:
    """Hash an array with its type and shape, or anything that JSON can say."""
    is_array = isinstance(values, np.ndarray)
    head = f"{values.dtype}{values.shape}" if is_array else ""
    content = np.ascontiguousarray(values).tobytes() if is_array else json.dumps(values).encode()
    return hashlib.sha256(head.encode() + content).hexdigest()[:16]


def moments(tensor: torch.Tensor) -> list[float]:
    """Compute mean and standard deviation."""
    return [float(tensor.double().mean()), float(tensor.double().std())]


def fingerprint(values_N: torch.Tensor) -> list[float]:
    """Compute moments and a random projection, for numbers whose last bits depend on the instructions of the CPU."""
    direction_N = np.random.default_rng(0).random(len(values_N), np.float32) - 0.5
    return [*moments(values_N), float((values_N.numpy() * direction_N).sum(dtype=np.float64) / len(values_N) ** 0.5)]


def of_cases(cases: dict[str, Settings], value: Callable[[Settings], Any]) -> dict[str, Any]:
    """Compute a value for each case, but for those that ask for what was removed."""
    return {name: REMOVED if RENAMES.removed(case) else value(case) for name, case in cases.items()}


def each_value(key: str, names: tuple[str, ...]) -> dict[str, Settings]:
    """Make a case of each value of a setting."""
    return {name: {key: name} for name in names}


def configs(place: Workplace) -> dict[str, Any]:
    """Record every setting of each configuration file and preset."""
    files = sorted(str(file.relative_to(REPOSITORY)) for file in REPOSITORY.glob("configs/*.yaml"))
    presets = of_cases(each_value("augmentation.preset", PRESETS), adapters.resolved)
    named = {f"preset {name}": value for name, value in presets.items()}
    return {"defaults": adapters.resolved({})} | {file: adapters.resolved({}, file) for file in files} | named


def records(place: Workplace) -> dict[str, Any]:
    """Record what is read from small annotation files of every format."""
    found = {}
    cases = yaml.safe_load(Path(__file__).with_name("annotations.yaml").read_text(encoding="utf-8"))
    for name, case in cases.items():
        root = place.folder / "annotations" / name
        files = {**case.get("files", {}), **dict.fromkeys(case.get("videos", []), "")}
        is_named = "{" not in case["dataset"]
        for path, text in {**files, **({} if is_named else {"dataset.yaml": case["dataset"]})}.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8")
        dataset = case["dataset"] if is_named else str(root)
        found[name] = {split: adapters.record_rows(dataset, split, root) for split in case["splits"]}
    for form in ("python", "binary", "archive", "jpeg_archive"):
        root = place.folder / "annotations" / f"cifar10_{form}"
        root.mkdir()
        adapters.write_cifar10(root, form)
        splits = ("train", "val", "train_part")
        found[root.name] = {split: adapters.record_rows("cifar10", split, root) for split in splits}
    return found


def records_of_real_files(place: Workplace) -> dict[str, Any]:
    """Record number and hash of what is read from real annotation files."""
    data = Path(os.environ.get("VIDTL_DATA", REPOSITORY.parent / "shared/data")).resolve()
    if not data.is_dir():
        raise SkippedError(f"needs the folder {data} (set VIDTL_DATA to another place)")
    found = {}
    copied = {"kinetics400": "kinetics/kinetics-400_val.csv", "kinetics600": "kinetics/kinetics-600_val.csv"}
    for name, file in copied.items():
        (place.folder / name / "annotations").mkdir(parents=True)
        shutil.copy(data / "annotations" / file, place.folder / name / "annotations/val.csv")
        found[name, "val"] = adapters.record_rows(name, "val", place.folder / name)
    (place.folder / "avid").mkdir()
    for split in ("train", "val"):
        shutil.copy(data / "annotations/avid/avid_val.json", place.folder / f"avid/avid_{split}.json")
    found["avid", "val"] = adapters.record_rows("avid", "val", place.folder / "avid")
    for folder, name in (("fight_surv", "fight_surv"), ("gmdcsa24", "gmdcsa24_sample"), ("cifar10", "cifar10")):
        for split in ("train", "val"):
            found[name, split] = adapters.record_rows(name, split, data / folder)
    for split in ("train", "val"):
        own = data / "overhead_activities"
        found["overhead_activities", split] = adapters.record_rows(str(own), split, own)
    return {f"{name} {split}": {"count": len(rows), "sha256": digest(rows)} for (name, split), rows in found.items()}


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
        **{f"crop {name}": case for name, case in each_value("augmentation.crop", CROPS).items()},
        **{f"sampling {name}": case for name, case in each_value("clip.sampling", SAMPLINGS).items()},
        **{f"preset {name}": case for name, case in each_value("augmentation.preset", PRESETS).items()},
    }

    def training(case: Settings) -> dict[str, Any]:
        found = {}
        for seed, epoch, sample in ((0, 0, 0), (0, 1, 5), (7, 3, 23)):
            pixels, targets, augmented = adapters.training_clips({**base, **case, "training.seed": seed}, epoch, sample)
            values = [digest(pixels), np.flatnonzero(targets[0]).tolist(), *moments(augmented)]
            found[f"seed {seed}, epoch {epoch}, sample {sample}"] = values
        return found

    def mixed(case: Settings) -> list[list[float]]:
        batch, targets = adapters.first_batch({**base, "training.batch_size": 8, **case})
        return [moments(batch), *targets.tolist()]

    def evaluation(case: Settings) -> str:
        ((_, protocol),) = RENAMES.settings(case).items()
        return digest(adapters.evaluation_clips(base, protocol, 2))

    files = sorted((place.toy / "videos").rglob("*.mp4"))
    return {
        "files": digest([hashlib.sha256(file.read_bytes()).hexdigest() for file in files]),
        "training": of_cases(changes, training),
        "first batch": of_cases(each_value("augmentation.preset", PRESETS), mixed),
        "evaluation": of_cases(each_value("evaluation.protocol", PROTOCOLS), evaluation),
    }


def protocols(place: Workplace) -> dict[str, Any]:
    """Record frames, boxes and fused scores of every protocol; frames and boxes of training clips."""
    lengths, sizes = (1, 9, 40, 300), ((240, 320), (360, 202))
    logits_VK = np.random.default_rng(0).standard_normal((4, 3)) * 3

    def evaluation(case: Settings) -> dict[str, Any]:
        ((_, protocol),) = RENAMES.settings(case).items()
        tables = {}
        for frames in lengths:
            for fps, settings in ((25.0, {}), (15.0, {"clip.num_frames": 7, "clip.stride": 3})):
                table, _ = adapters.protocol_tables(protocol, frames, fps, sizes[0], TINY | settings)
                tables[f"{frames} frames, {fps:g} fps"] = [*table.shape, digest(table.tolist())]
        boxes = [adapters.protocol_tables(protocol, 9, 25.0, size, TINY)[1] for size in sizes]
        scores = [adapters.fused(protocol, logits_VK, multi_label) for multi_label in (False, True)]
        return {"frames": tables, "boxes": boxes, "scores": scores}

    def training(case: Settings) -> dict[str, Any]:
        settings = TINY | case
        keys = {f"{key}": key for key in ((0, 0, 0), (5, 2, 17))}
        places = {
            f"{frames} frames, {name}": adapters.training_place(settings, frames, sizes[frames % 2], key)
            for frames in lengths
            for name, key in keys.items()
        }
        return {name: [frames, box] for name, (frames, box) in places.items()}

    return {
        "evaluation": of_cases(each_value("evaluation.protocol", PROTOCOLS), evaluation),
        "sampling": of_cases(each_value("clip.sampling", SAMPLINGS), training),
        "crop": of_cases(each_value("augmentation.crop", CROPS), training),
    }


FORMS = ("joint", "factorised_encoder", "factorised_self_attention", "factorised_dot_product")


def model_cases() -> Iterator[tuple[str, Settings]]:
    """List small models of every architecture and form, by what sets them apart."""
    choices: dict[str, tuple[Any, ...]] = {"form": FORMS, "pooling": ("cls", "max", "sum"), "temporal_depth": (0,)}
    choices |= {
        "tubelet_sampling": ("uniform",),
        "temporal_input": ("tokens",),
        "positions": ("sincos_1d", "sincos_3d"),
    }
    for key, value in ((key, value) for key, values in choices.items() for value in values):
        yield f"vivit {key} {value}", {f"model.vivit.{key}": value}
    for tokeniser in ("t2t_performer", "t2t_transformer"):
        yield f"vivit {tokeniser}", section("model.vivit", tokeniser=tokeniser, tubelet=[1, 16, 16])
    yield "vivit space_time", section("model.vivit", form="factorised_self_attention", attention_order="space_time")
    yield "vivit joint cls", section("model.vivit", form="joint", pooling="cls")
    yield "vivit image", {"clip.num_frames": 1, **section("model.vivit", form="joint", tubelet=[1, 8, 8])}
    stages = (("v1", "sum", False), ("v1", "mean", True), ("v1.1", "sum", False), ("v1.1", "sum", True))
    for form, (version, pooling, fuser) in product(FORMS, stages):
        stage = {"num_tokens": 3, "after_block": 1, "version": version, "pooling": pooling, "fuser": fuser}
        name = f"vivit {form} {version} {pooling}{' fuser' if fuser else ''}"
        yield name, {"model.vivit.form": form, **section("model.vivit.token_learner", **stage)}
    for module in ("performer", "transformer"):
        yield f"t2t_vit {module}", {"model.architecture": "t2t_vit", "model.t2t_vit.token_module": module}
    mini = ({"tokeniser": "patch"}, {"tokeniser": "t2t_performer"}, {"tokeniser": "t2t_transformer"})
    for settings in (*mini, {"positions": "frozen"}, {"token_learner.num_tokens": 0}):
        name = f"mini_vit {' '.join(map(str, settings.values()))}"
        yield name, {"model.architecture": "mini_vit", **section("model.mini_vit", **settings)}
    for name, frames in (("x3d_xs", 4), ("mvit_b_16x4", 16)):
        network = {"model.architecture": "pytorchvideo", "model.pytorchvideo.name": name}
        yield f"pytorchvideo {name}", {**network, "clip.num_frames": frames}


VIVIT = section("model.vivit", width=24, depth=2, num_heads=2, mlp_width=40, temporal_depth=1, tubelet=[2, 8, 8])
VIVIT |= TINY | {"clip.num_frames": 4, "model.vivit.pooling": "mean", "model.vivit.token_learner.num_tokens": 0}
IMAGE = TINY | section("clip", num_frames=1, frame_size=[48, 48], short_side=48) | {"model.t2t_vit.depth": 2}
IMAGE |= {"model.t2t_vit.size": 7} | section("model.mini_vit", width=24, head_width=8, mlp_width=40)


def weights(place: Workplace) -> dict[str, Any]:
    """Record parameters, first weights and scores of small models of every kind, and sizes of those with a name."""

    def model(case: Settings) -> dict[str, Any]:
        base = IMAGE if case.get("model.architecture") in ("t2t_vit", "mini_vit") else VIVIT
        settings = {**base, **case}
        torch.manual_seed(0)
        model = adapters.build(settings)
        state = sorted((adapters.recorded_name(name), tensor) for name, tensor in model.state_dict().items())
        return {
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "trainable": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
            "names": digest([name for name, _ in state]),
            "shapes": digest([list(tensor.shape) for _, tensor in state]),
            "weights": fingerprint(torch.cat([tensor.flatten().float() for _, tensor in state])),
            **scores(model, (1, settings["clip.num_frames"], 3, *settings["clip.frame_size"])),
        }

    @torch.no_grad()
    def scores(model: Any, shape: tuple[int, ...]) -> dict[str, Any]:
        rng = np.random.default_rng(0)
        by_name = {adapters.recorded_name(name): parameter for name, parameter in model.named_parameters()}
        for _, parameter in sorted(by_name.items()):  # a fresh head is zero, and so would all scores be
            parameter += torch.from_numpy(0.05 * rng.standard_normal(parameter.shape)).float()
        input_BTCHW = torch.from_numpy(rng.standard_normal(shape)).float()
        maps = adapters.token_maps(model, input_BTCHW)
        return {"logits": model(input_BTCHW)[0].tolist(), "maps": None if maps is None else moments(maps)}

    return {"listed": adapters.listed_parameters(), "models": of_cases(dict(model_cases()), model)}


def training(place: Workplace) -> dict[str, Any]:
    """Record losses, norms of gradients and learning rates of 20 steps."""
    found = {}
    for name in ("toy", "toy_multilabel"):
        lines = [json.loads(line) for line in (place.run(name) / "metrics.jsonl").read_text().splitlines()]
        steps = [line for line in lines if "loss" in line]
        found[name] = {key: [line[key] for line in steps] for key in ("loss", "grad_norm", "learning_rate")}
    return found


def evaluation(place: Workplace) -> dict[str, Any]:
    """Record metrics and scores of evaluating the runs of `training`, and what prediction says of a video."""
    found: dict[str, Any] = {}
    for name, protocol in (("toy", "vivit_4x3"), ("toy_multilabel", "charades_10x3_max")):
        report = place.evaluation(name, protocol)
        with (report / "predictions.csv").open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        found[name] = {
            "files": {file.name: True for file in sorted(report.iterdir())},
            "metrics": json.loads((report / "metrics.json").read_text())["metrics"],
            "predictions": {row["id"]: [as_number(key, value) for key, value in row.items()] for row in rows},
        }
        video = sorted((getattr(place, name) / "videos/val").iterdir())[0]
        printed = place.done("predict", video, "--checkpoint", place.run(name), "--json", "--top_k", 0).read_text()
        told = json.loads(printed.splitlines()[-1])
        scores = {each["class"]: [each["probability"], each["score"]] for each in told["scores"]}
        found[name]["predict"] = {"frames": told["frames"], "duration_s": told["duration_s"], "scores": scores}
    return found


def as_number(column: str, value: str) -> str | float:
    """Read scores as numbers; near scores may change places, so that the best classes are not recorded."""
    return float(value) if column.startswith("score: ") else "" if column.startswith("top_") else value


def exit_codes(place: Workplace) -> dict[str, Any]:
    """Record exit codes of the tools."""
    run, absent = place.run("toy"), place.folder / "absent"
    broken = Path(shutil.copytree(place.toy, place.folder / "broken"))
    video = sorted((broken / "videos/val").iterdir())[0]
    video.write_bytes(b"")
    of_run, output = ("--checkpoint", run), ("--output_dir", place.folder / "output")
    calls: dict[str, tuple[Any, ...]] = {
        "train, missing config": ("train", "--config", absent / "no.yaml", *output),
        "train, no output": ("train",),
        "eval, missing checkpoint": ("eval", "--checkpoint", absent),
        "prepare, missing root": ("prepare", "--dataset", "toy", "--root", absent),
        "prepare, broken video": ("prepare", "--dataset", "toy", "--root", broken, "--workers", 1),
        "predict, broken video": ("predict", video, *of_run),
        "predict, no video": ("predict", absent, *of_run),
        "export, missing checkpoint": ("export", "--checkpoint", absent, *output),
        "study, missing file": ("study", absent / "no.yaml", *output),
        "visualize": ("visualize", *of_run, *output, "--num_videos", 1),
    }
    codes = {name: place.tool(*call)[0] for name, call in calls.items()}
    root = {"data.root": str(absent)}
    codes["train, missing root"] = place.tool("train", *output, settings=TINY | root)[0]
    codes["eval, missing root"] = place.tool("eval", *of_run, *output, settings=root)[0]
    settings = {"data.root": str(broken), "evaluation.protocol": "center"}
    for name, strict in {"eval, strict": ("--strict",), "eval, broken video": ()}.items():
        out = ("--output_dir", place.folder / name, "--html", "true")
        codes[name] = place.tool("eval", *of_run, *out, *strict, settings=settings)[0]
    for tool in TOOLS:
        codes[f"{tool} --help"] = place.tool(tool, "--help")[0]
        codes[f"{tool} --no_such_option"] = place.tool(tool, "--no_such_option", 1)[0]
    return codes


SECTIONS: dict[str, Callable[[Workplace], dict[str, Any]]] = {
    function.__name__: function
    for function in (
        *(training, evaluation, exit_codes, configs, records, records_of_real_files, clips, protocols, weights),
    )
}
"""Sections that start tools come first: their forks then have nothing of the others."""

TOLERANCES = {"training": 1e-4, "evaluation": 1e-4, "weights": 1e-5, "clips": 1e-4, "protocols": 1e-7, "configs": 1e-7}
"""How far floating-point numbers may be off, absolutely or in proportion, elsewhere not at all: several times what it
makes that PyTorch, NumPy and OpenCV do without AVX (`ATEN_CPU_CAPABILITY=default` and the like)."""
