"""CIFAR-10 in each form, and folders of images, in train.py as videos of one frame."""

import pytest
import train
from PIL import Image

from tests.data.cifar_files import images_and_labels, write_cifar10
from tests.environment import REPOSITORY
from tests.refusals import assert_refusal
from tests.tools.conftest import CLASS_FOLDERS
from tests.training.runs import log_lines

TINY = [
    *("--config", str(REPOSITORY / "configs/cifar10_mini_vit.yaml"), "--data.num_workers", "0"),
    *("--model.width", "16", "--model.head_width", "8", "--model.mlp_width", "32"),
    *("--training.batch_size", "20", "--optimizer.learning_rate", "3e-3", "--training.trackers", "[]"),
]


@pytest.mark.parametrize(
    ("form", "options"), [("python", []), ("jpeg_archive", []), ("binary", ["--model.tokenizer", "t2t_performer"])]
)
def test_mini_vit_on_cifar10(run_main, tmp_path, form, options):
    write_cifar10(tmp_path, form)
    places = ["--data.root", tmp_path, "--output_dir", tmp_path / "run"]
    _, error = run_main(train.main, *TINY, *options, *places, "--schedule.length", "4 epochs")
    assert log_lines(tmp_path / "run")[-1]["top1"] > 0.3  # chance is 0.1; each class has another color
    assert "100 videos to train on, 20 to evaluate on, 10 classes" in error


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--data.pixel_format", "planar"], ("images and folders of frames", "'rgb'")),
        (["--model.tokenizer", "t2t_performer", "--model.tubelet", "[1,4,4]"], ("model.tubelet", [1, 4, 4], [1, 6, 6])),
    ],
)
def test_unsuitable_settings(run_main, tmp_path, options, parts):
    write_cifar10(tmp_path, "binary")
    _, error = run_main(train.main, *TINY, "--data.root", tmp_path, "--output_dir", tmp_path / "run", *options, code=2)
    assert_refusal(error.splitlines()[-1], *parts)


def test_folders_of_images(run_main, tmp_path):
    images, labels = images_and_labels("train", 40)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = tmp_path / ("val" if number % 4 == 0 else "train") / f"class {label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    (tmp_path / "dataset.yaml").write_text(CLASS_FOLDERS)
    options = ["--data.dataset", tmp_path, "--data.root", tmp_path, "--output_dir", tmp_path / "run"]
    run_main(train.main, *TINY, *options, "--schedule.length", "1 epochs")
