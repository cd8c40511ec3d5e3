"""CIFAR-10 in every form that is read, and folders of images, through train.py and eval.py as videos of one frame."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import train
import yaml
from PIL import Image

from tests.data.cifar_files import images_and_labels, write_cifar10
from tests.environment import REPOSITORY

TINY = [
    *("--config", str(REPOSITORY / "configs/cifar10_mini_vit.yaml"), "--data.num_workers", "0"),
    *("--model.width", "16", "--model.head_width", "8", "--model.mlp_width", "32"),
    *("--training.batch_size", "20", "--optimizer.learning_rate", "3e-3", "--training.trackers", "[]"),
]
RunMain = Callable[..., tuple[int, str, str]]


def top1(output_dir: Path) -> list[float]:
    lines = map(json.loads, (output_dir / "metrics.jsonl").read_text().splitlines())
    return [line["top1"] for line in lines if line.get("split") == "val"]


@pytest.mark.parametrize("form", ["python", "jpeg_archive"])
def test_mini_vit_on_cifar10(run_main: RunMain, tmp_path: Path, form: str) -> None:
    write_cifar10(tmp_path, form)
    options = ["--data.root", tmp_path, "--output_dir", tmp_path / "run", "--schedule.length", "4 epochs"]
    code, _, error = run_main(train.main, *TINY, *options)
    assert code == 0, error
    assert top1(tmp_path / "run")[-1] > 0.3  # chance is 0.1; each class has its own color
    assert "100 videos to train on, 20 to evaluate on, 10 classes" in error


def test_mini_vit_of_t2t_tokens_learns_from_a_configuration_file(run_main: RunMain, tmp_path: Path) -> None:
    write_cifar10(tmp_path, "binary")
    config = yaml.safe_load((REPOSITORY / "configs/cifar10_mini_vit.yaml").read_text())
    config["model"] |= {"tokenizer": "t2t_performer", "width": 16, "head_width": 8, "mlp_width": 32}
    config["data"]["num_workers"] = 0
    config["training"] |= {"batch_size": 20, "trackers": []}
    config["optimizer"]["learning_rate"] = 3e-3
    (tmp_path / "t2t.yaml").write_text(yaml.safe_dump(config))
    options = ["--config", tmp_path / "t2t.yaml", "--data.root", tmp_path, "--output_dir", tmp_path / "run"]
    code, _, error = run_main(train.main, *options, "--schedule.length", "4 epochs")
    assert code == 0, error
    assert top1(tmp_path / "run")[-1] > 0.3
    code, _, error = run_main(train.main, *options, "--model.tubelet", "[1,4,4]")
    assert code == 2
    assert "model.tubelet is [1, 4, 4]; allowed: [1, 6, 6] with tokenizer t2t_performer" in error.splitlines()[-1]


def test_images_need_rgb(run_main: RunMain, tmp_path: Path) -> None:
    write_cifar10(tmp_path, "binary")
    options = ["--data.root", tmp_path, "--output_dir", tmp_path / "run", "--data.pixel_format", "planar"]
    code, _, error = run_main(train.main, *TINY, *options)
    assert code == 2
    assert error.splitlines()[-1].endswith("allowed for images and folders of frames: 'rgb'")


def test_a_folder_of_images_of_ones_own(run_main: RunMain, tmp_path: Path) -> None:
    images, labels = images_and_labels("train", 40)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = tmp_path / ("val" if number % 4 == 0 else "train") / f"class {label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "dataset.yaml").write_text(
        "format: class_folders\nlabels: single\nsplits: {train: {videos: train}, val: {videos: val}}\n"
    )
    options = ["--data.dataset", mine, "--data.root", tmp_path, "--output_dir", tmp_path / "run"]
    code, _, error = run_main(train.main, *TINY, *options, "--schedule.length", "1 epochs")
    assert code == 0, error
