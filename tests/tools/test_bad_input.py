"""A user's mistake ends with code 2 and one line that names the place, and leaves nothing behind."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

RunMain = Callable[..., tuple[int, str, str]]
Launch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def refused(run_main: RunMain, toy: Path, tmp_path: Path, tiny: list[str]) -> Callable[..., str]:
    """Start a training with these options, expect a refusal, and return its line."""
    import train

    def start(*options: str | Path, root: Path = toy) -> str:
        output = tmp_path / "run"
        code, _, errors = run_main(train.main, *tiny, "--data.root", root, "--output_dir", output, *options)
        lines = [line for line in errors.splitlines() if not line.startswith("INFO")]
        assert code == 2, errors
        assert len(lines) == 1, errors
        assert not output.exists()
        return lines[0]

    return start


@pytest.fixture
def copy(toy: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy, tmp_path / "copy"))


def contents(run: Path) -> dict[Path, bytes]:
    """Every file of a run but the lock, which names its last user."""
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}


def test_missing_config(refused: Callable[..., str]) -> None:
    assert "toyy.yaml' does not exist; did you mean 'toy.yaml'?" in refused("--config", "configs/toyy.yaml")


def test_misspelt_key_on_the_command_line(refused: Callable[..., str]) -> None:
    line = refused("--model.vivit.token_lerner.num_tokens", "8")
    assert line.endswith("did you mean 'model.vivit.token_learner.num_tokens'?")


def test_misspelt_key_in_a_file(refused: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("clip:\n  num_frame: 8\n")
    line = refused("--config", file)
    assert f"{file}: unknown key 'clip.num_frame'; did you mean 'clip.num_frames'?" in line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("clip: {stride: 2}\nmodel: {}\nclip: {stride: 3}\n", ":3: the key 'clip' is there twice"),
        ("training:\n  seed: 1\n  seed: 2\n", ":3: the key 'seed' is there twice"),
        ("data:\n  root: {{ root }}\n", ": not a YAML file (while constructing a mapping"),
        ("data:\n  root: 2026-13-45\n", ": not a YAML file (month must be in 1..12"),
        ("training.ema_decay: 0.5\n", ": the key 'training.ema_decay' has a dot; allowed: a section"),
        ("augmentation.preset: tsn\n", ": the key 'augmentation.preset' has a dot; allowed: a section"),
        ("training: 5\n", ": training is 5; allowed: a section with keys"),
        ("model: {vivit: [1]}\n", ": model.vivit is [1]; allowed: a section with keys"),
        ("clip: &a {stride: 2}\ntraining: *a\n", ": YAML aliases (*name) are not allowed"),
    ],
)
def test_nothing_in_a_file_is_lost_in_silence(
    refused: Callable[..., str], tmp_path: Path, text: str, words: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    assert f"{file}{words}" in refused("--config", file)


def test_misspelt_choice_in_a_file(refused: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("model:\n  architecture: vivitt\n")
    line = refused("--config", file)
    assert f"{file}: model.architecture is 'vivitt'; did you mean 'vivit'?" in line


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--clip.num_frames", "many", "clip.num_frames"),
        ("--clip.num_frames", "0", "clip.num_frames is 0; allowed: 1 or more"),
        ("--data.decoder", "decorde", "data.decoder is 'decorde'; did you mean 'decord'?"),
        ("--schedule.name", "polynomial", "schedule.name is 'polynomial'; allowed: cosine, linear, step, constant"),
        ("--training.batch_size", "nan", "training.batch_size"),
        ("--data.dataset", "toi", "did you mean 'toy'?"),
        ("--evaluation.protocol", "vivit_4x4", "did you mean 'vivit_4x3'?"),
        ("--data.train_split", "trian", "did you mean 'train'?"),
        ("--training.accumulation_steps", "3", "training.batch_size is 8; allowed: multiples of 3"),
        ("--augmentation.repeats", "3", "training.batch_size is 8; allowed: multiples of 3"),
        ("--augmentation.preset", "tns", "augmentation.preset is 'tns'; did you mean 'tsn'?"),
        (
            "--augmentation.rand_augment_magnitude",
            "31",
            "augmentation.rand_augment_magnitude is 31.0; allowed: 0 to 30",
        ),
        ("--clip.num_frames", "9", "clip.num_frames is 9"),
        ("--clip.frame_size", "[36,30]", "clip.frame_size"),
        ("--model.vivit.token_learner.num_tokens", "17", "model.vivit.token_learner.num_tokens is 17"),
        ("--model.vivit.token_learner.after_block", "3", "model.vivit.token_learner.after_block is 3"),
        ("--model.vivit.num_heads", "5", "num_heads"),
        ("--model.vivit.pooling", "cls", "model.vivit.pooling"),
    ],
)
def test_values_that_cannot_be(refused: Callable[..., str], option: str, value: str, words: str) -> None:
    assert words in refused(option, value)


def test_missing_root(refused: Callable[..., str], toy: Path) -> None:
    line = refused(root=toy.with_name("toi"))
    assert "data.root" in line
    assert "toi" in line


def test_wrong_column(refused: Callable[..., str], copy: Path) -> None:
    file = copy / "train.csv"
    file.write_text(file.read_text().replace("youtube_id", "youtube", 1))
    line = refused(root=copy)
    assert str(file) in line
    assert "youtube_id" in line


def test_unknown_label_names_its_line(refused: Callable[..., str], copy: Path) -> None:
    file = copy / "train.csv"
    rows = file.read_text().splitlines()
    rows[3] = rows[3].replace("moving", "movin")
    file.write_text("\n".join(rows) + "\n")
    line = refused(root=copy)
    assert f"{file}:4" in line
    assert "did you mean" in line


def test_no_video_can_be_read(refused: Callable[..., str], copy: Path) -> None:
    for video in (copy / "videos/train").iterdir():
        video.write_bytes(b"<html>not found</html>")
    line = refused(root=copy)
    assert "could be read" in line
    assert "not a video container" in line


def test_checkpoint_of_other_data(run_main: RunMain, toy: Path, copy: Path, tmp_path: Path, tiny: list[str]) -> None:
    import eval as evaluation
    import train

    run = tmp_path / "run"
    code, _, errors = run_main(
        train.main, *tiny, "--data.root", toy, "--output_dir", run, "--schedule.length", "1 epoch"
    )
    assert code == 0, errors
    before = contents(run)

    head, *rows = (copy / "train.csv").read_text().splitlines()
    (copy / "train.csv").write_text("\n".join([head, *rows[1:], rows[0]]) + "\n")
    again = [*tiny, "--schedule.length", "1 epoch", "--output_dir", run]
    code, _, errors = run_main(train.main, *again, "--data.root", copy)
    assert code == 2
    assert "data_sha256" in errors

    shorter = tmp_path / "fewer"
    shorter.mkdir()
    dataset = tmp_path / "fewer_classes"
    dataset.mkdir()
    (dataset / "dataset.yaml").write_text(
        "name: fewer\ntitle: Fewer\nformat: kinetics_csv\nlabels: single\nclasses: names.txt\n"
        "splits:\n  train: {annotations: a.csv}\n  val: {annotations: a.csv}\nfiles: '{id}.mp4'\n"
    )
    (shorter / "names.txt").write_text("one\ntwo\n")
    (shorter / "a.csv").write_text("label,youtube_id,time_start,time_end,split\none,abc,0,1,val\n")
    shutil.copy(next((toy / "videos/val").iterdir()), shorter / "abc.mp4")
    for main, place in ((train.main, ("--output_dir", run)), (evaluation.main, ("--checkpoint", run))):
        options = [*tiny, "--schedule.length", "1 epoch"] if main is train.main else []
        code, _, errors = run_main(main, *options, "--data.dataset", dataset, "--data.root", shorter, *place)
        lines = [line for line in errors.splitlines() if not line.startswith("INFO")]
        assert (code, len(lines)) == (2, 1), errors
    assert "has 8 classes and the data 2" in lines[0]
    assert contents(run) == before


def test_as_a_process_of_its_own(launch: Launch, tmp_path: Path) -> None:
    done = launch("cpu", "train", "--config", tmp_path / "no.yaml", "--output_dir", tmp_path / "run")
    assert done.returncode != 0
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "no.yaml' does not exist" in done.stderr
