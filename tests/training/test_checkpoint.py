"""Checkpoints that are complete or absent after kills, full disks and damage, and that later versions load."""

import json
import resource
import shutil
import signal
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import make_experiment, settings_of_file
from safetensors.torch import load_file, save_file

from tests.refusals import refused
from tests.stress.outcome import KillInSave, ending_of, in_child
from vidtl.models import load_model_directory
from vidtl.runtime.files import remove
from vidtl.training import checkpoint_directory as checkpoints
from vidtl.training.checkpoint import Checkpoint, find_checkpoint
from vidtl.training.checkpoint_directory import CONFIG, EMA, EXPERIMENT, MANIFEST, MODEL, OPTIMIZER, STATE
from vidtl.training.optimizer import build_optimizer
from vidtl.training.state import RunFacts, load_snapshot, read_state

STEP = "checkpoints/step-00000020"


def save(folder, step, averaged=False):
    """All tensors hold the step, so that a mix of two checkpoints would show."""
    with checkpoints.new_checkpoint(folder, step, 1000) as directory:
        for name in (MODEL, OPTIMIZER):
            save_file({"x": torch.full((40,), float(step))}, directory / name)
        (directory / CONFIG).write_text("{}")
        if averaged:
            (directory / EMA).mkdir()
            save_file({"x": torch.full((40,), step + 0.5)}, directory / EMA / MODEL)
            (directory / EMA / CONFIG).write_text("{}")
        (directory / STATE).write_text(json.dumps({"step": step}))
        (directory / EXPERIMENT).write_text(f"step: {step}\n")


def flipped(data, place, bit=0):
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def content(directory):
    """The one step that all files of a checkpoint hold."""
    steps = {float(v) for name in (MODEL, OPTIMIZER) for v in load_file(directory / name)["x"]}
    steps.add(json.loads((directory / STATE).read_text())["step"])
    steps.add(int((directory / EXPERIMENT).read_text().split()[1]))
    assert len(steps) == 1
    return steps.pop()


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "checkpoints"
    save(folder, 20, averaged=True)
    save(folder, 10)  # the newest is the highest step, not the last written
    return folder


@pytest.mark.parametrize("name", [MODEL, OPTIMIZER, STATE, EXPERIMENT, MANIFEST])
def test_a_missing_cut_or_changed_file_is_named_and_the_checkpoint_before_is_used(folder, name, caplog):
    path = folder / "step-00000020" / name
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    lengths = rng.choice(len(good), size=min(10, len(good)), replace=False)
    versions = [None, "folder", *(good[:length] for length in lengths)]
    places = [place for place, byte in enumerate(good) if name != MANIFEST or not chr(byte).isspace()]
    for place in rng.choice(places, size=min(20, len(places)), replace=False):
        versions.append(flipped(good, place, rng.integers(8)))
    for version in versions:
        remove(path)
        path.mkdir() if version == "folder" else path.write_bytes(version) if version else None
        caplog.clear()
        assert content(checkpoints.newest_valid(folder)) == 10
        assert "step-00000020" in caplog.text
        assert name in caplog.text
    remove(path)
    path.write_bytes(good)
    assert content(checkpoints.newest_valid(folder)) == 20


@pytest.mark.parametrize(
    "name", ["../state.json", "/dev/zero", "a\0b", "a" * 5000, "\ud800", "ema/../state.json", "a\x1b[2J", ""]
)
def test_names_of_a_manifest_lead_nowhere_else(folder, name):
    manifest = folder / "step-00000020" / MANIFEST
    listed = json.loads(manifest.read_text())
    listed["files"][name] = {"bytes": 0, "sha256": "0"}
    manifest.write_text(json.dumps(listed))
    problem = checkpoints.find_problem(folder / "step-00000020")
    assert problem.startswith(f"{MANIFEST} lists {name[:80]!r}")
    assert len(problem) < 300


@pytest.mark.parametrize("name", [MANIFEST, STATE, MODEL, f"{EMA}/{MODEL}"])
def test_files_are_links_within_a_cache_of_the_hub_only(folder, tmp_path, name):
    snapshot = tmp_path / "models--owner--name/snapshots/1234"
    shutil.copytree(folder / "step-00000020", snapshot)
    blob = snapshot.parents[1] / "blob"
    (snapshot / name).rename(blob)
    (snapshot / name).symlink_to(blob)
    assert checkpoints.find_problem(snapshot) is None
    (folder / "step-00000020" / name).unlink()
    (folder / "step-00000020" / name).symlink_to(blob)
    assert "link" in checkpoints.find_problem(folder / "step-00000020")
    for target in ("/dev/zero", "/nowhere"):
        (snapshot / name).unlink()
        (snapshot / name).symlink_to(target)
        assert "missing" in checkpoints.find_problem(snapshot)


def test_a_checkpoint_verifies_under_any_name_and_resumes_under_its_own(folder, caplog, monkeypatch):
    shutil.copytree(folder / "step-00000020", folder / "best_model")
    assert checkpoints.find_problem(folder / "best_model") is None
    monkeypatch.chdir(folder / "step-00000020")
    assert checkpoints.find_problem(Path()) is None
    assert [path.name for path in checkpoints.list_checkpoints(folder)] == ["step-00000020", "step-00000010"]
    (folder / "step-00000020").rename(folder / "step-00000030")
    assert content(checkpoints.newest_valid(folder)) == 10
    assert "step-00000030" in caplog.text


@pytest.mark.usefixtures("accelerator")
def test_killed_at_any_file_operation_leaves_a_whole_checkpoint(tmp_path):
    operation, newest, start = 0, set(), tmp_path / "start"
    for step in (10, 20):
        save(start, step)
    while True:
        operation += 1
        folder = shutil.copytree(start, tmp_path / str(operation))

        def work(operation=operation, folder=folder):
            KillInSave(operation, {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir"})
            save(folder, 30)
            checkpoints.prune(folder, 1, best_step=None)

        ending = ending_of(in_child(work))
        newest.add(content(checkpoints.newest_valid(folder)))
        for directory in checkpoints.list_checkpoints(folder):
            assert content(directory) in (10, 20, 30)
            assert checkpoints.find_problem(directory) is None
        checkpoints.remove_unusable(folder, checkpoints.newest_valid(folder))
        assert {p.name for p in folder.iterdir()} == {p.name for p in checkpoints.list_checkpoints(folder)}
        if ending == 0:
            break
        assert ending == -signal.SIGKILL
        shutil.rmtree(folder)
    assert operation > 20
    assert newest == {20, 30}
    assert [content(p) for p in checkpoints.list_checkpoints(folder)] == [30]


def test_a_lack_of_space_is_reported_before_anything_is_written(folder, monkeypatch):
    free = shutil._ntuple_diskusage(10**9, 10**9 - 5000, 5000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    before = sorted(folder.rglob("*"))
    with refused("step-00000030", "5000"):
        save(folder, 30)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("limit", [0, 100, 300_000])
@pytest.mark.usefixtures("accelerator")
def test_a_disk_that_fills_up_is_refused_and_leaves_the_checkpoint_before(folder, limit):
    """The operating system refuses bytes beyond a limit, to Python and to safetensors' writer alike."""
    before = sorted(folder.rglob("*"))

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        with refused("step-00000030", "File too large", "77"), checkpoints.new_checkpoint(folder, 30, 77) as directory:
            (directory / STATE).write_text("{}")
            save_file({"x": torch.ones(100_000)}, directory / MODEL)

    assert ending_of(in_child(work)) == 0
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize(
    ("at", "given"), [(".", "."), (".", "checkpoints"), (".", STEP), (STEP, "."), ("checkpoints", "step-00000020")]
)
def test_a_run_or_checkpoint_is_found_from_any_folder(folder, monkeypatch, at, given, averaged):
    monkeypatch.chdir(folder.parent / at)
    found = find_checkpoint(Path(given, EMA if averaged and "step" in given else ""))
    found = found.with_average() if averaged else found
    assert (found.step, found.run.resolve(), found.averaged) == (20, folder.parent, averaged)
    assert found.model_directory.resolve() == folder / "step-00000020" / ("ema" if averaged else "")
    assert found.output_folder == found.run
    assert found.experiment_file.read_text() == "step: 20\n"


@pytest.mark.parametrize(
    ("marked", "step", "found", "remark"),
    [
        ([10], "", 10, "best top-1 50.0"),
        ([10, 20], "", 20, "best top-1 50.0"),
        ([], "", 20, "last"),
        ([5], "", 20, "last"),  # the best one is not kept
        ([10], "last", 20, "last"),
        ([10], "20", 20, ""),
    ],
)
def test_the_best_checkpoint_of_a_run_or_another_is_chosen(folder, marked, step, found, remark):
    lines = [{"step": each, "split": "val", "best": "top1", "top1": 0.5} for each in marked]
    odd = [{"step": 10, "best": "other", "other": 1.0}, {"step": 20, "best": "top1", "top1": None}, {"step": 20}]
    (folder.parent / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines + odd))
    checkpoint = find_checkpoint(folder.parent, step)
    assert (checkpoint.step, checkpoint.remark) == (found, remark)


@pytest.mark.parametrize(
    ("given", "step", "parts"),
    [
        (".", "17", ("--step", "'17'", "'10'")),
        (".", "lst", ("--step", "'lst'", "'last'")),
        (".", "best", ("--step", "'best'", "'last'")),
        (STEP, "last", ("--step", "'last'", STEP)),
        ("nothing", "", ("'nothing'", "'nothings'")),
        ("nothings", "", ("nothings", "config.json")),
        (f"{STEP}/{MODEL}", "", (f"{STEP}/{MODEL}", "is a file", repr(STEP))),
        ("me/my-model", "", ("hf download me/my-model",)),
        ("https://a.b/c", "", ("'https://a.b/c'", "URL")),
    ],
)
def test_a_place_without_a_model_or_such_a_step_is_refused(folder, monkeypatch, given, step, parts):
    (folder.parent / "nothings").mkdir()
    monkeypatch.chdir(folder.parent)
    with refused(*parts):
        find_checkpoint(Path(given), step)


def test_any_model_directory_is_found_without_a_run(folder, tmp_path):
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in (MODEL, CONFIG):
        shutil.copy(folder / "step-00000020" / name, plain)
    found = find_checkpoint(plain)
    assert found == Checkpoint(plain)
    assert (found.output_folder, found.experiment_file, found.with_average()) == (plain, None, found)
    found.verify()
    # From the manifest or, without one, from the files: the same for the same model.
    assert found.fingerprint() == find_checkpoint(folder.parent).fingerprint()
    assert found.fingerprint() != find_checkpoint(folder.parent).with_average().fingerprint()


def test_only_the_files_of_the_model_are_verified(folder):
    checkpoint = find_checkpoint(folder / "step-00000020")
    for file in (checkpoint.path / OPTIMIZER, checkpoint.path / EMA / MODEL):
        file.write_bytes(flipped(file.read_bytes(), -2))
    find_checkpoint(folder / "step-00000020").verify()
    with refused("step-00000020", f"{EMA}/{MODEL}"):
        checkpoint.with_average().verify()
    (checkpoint.path / OPTIMIZER).write_bytes(b"cut")
    with refused("step-00000020", OPTIMIZER):  # sizes are always compared
        find_checkpoint(folder / "step-00000020")
    assert find_checkpoint(folder.parent).step == 10


def test_what_someone_else_put_there_stays(folder, tmp_path, caplog):
    """Other names, a folder and a file named like checkpoints, and checkpoints that are links to another disk."""
    others = ["step-abc/x", "step-abc.tmp/x", "step-00000020.bak/x", "step-000100/x", "step-00000005/x", "notes.txt"]
    for name in (*others, "step-00000030"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    (folder / "step-00000010").rename(tmp_path / "elsewhere")
    (folder / "step-00000010").symlink_to(tmp_path / "elsewhere")
    (folder / "step-00000040").symlink_to(tmp_path / "nothing")
    assert [path.name[-2:] for path in checkpoints.list_checkpoints(folder)] == ["20", "10", "05"]
    checkpoints.remove_unusable(folder, checkpoints.newest_valid(folder))
    for step in (30, 40):
        save(folder, step)
        assert f"{step}.damaged" in caplog.text
        checkpoints.prune(folder, 1, best_step=None)
    assert [path.name[-2:] for path in checkpoints.list_checkpoints(folder)] == ["40", "05"]
    assert content(checkpoints.newest_valid(folder)) == 40
    kept = [*others, "step-00000030.damaged"]
    assert [(folder / name).read_text() for name in kept] == ["mine"] * len(kept)
    assert content(tmp_path / "elsewhere") == 10


KEPT = Path(__file__).with_name("checkpoint_of_version_2") / "step-00000002"
LOGITS = {
    False: [-0.0045047, 0.0009538, 0.0042215, 0.0042215, 0.0011101, 0.0042215, 0.0041042, -0.0042341],
    True: [-0.0043005, 0.0008462, 0.0028794, 0.0028794, 0.000995, 0.0028794, 0.003062, -0.0028688],
}
"""Scores of the weights of a checkpoint of the day that format 2 was fixed, and of their average."""


def test_a_kept_checkpoint_gives_the_same_scores_and_resumes():
    for averaged, expected in LOGITS.items():
        checkpoint = find_checkpoint(KEPT / "ema" if averaged else KEPT)
        checkpoint.verify()
        assert (checkpoint.step, checkpoint.averaged) == (2, averaged)
        model = load_model_directory(checkpoint.model_directory).eval()
        with torch.inference_mode():
            logits_BK = model(torch.linspace(-1, 1, 8 * 3 * 16 * 16).reshape(1, 8, 3, 16, 16))
        assert model.class_names[0] == "moving left"
        torch.testing.assert_close(logits_BK[0].double(), torch.tensor(expected).double(), atol=1e-5, rtol=1e-4)
    config = make_experiment(settings_of_file(KEPT / "experiment.yaml"))
    model = load_model_directory(KEPT)
    optimizer = build_optimizer(model, config.optimizer, torch.device("cpu"))
    load_snapshot(KEPT, model, None, optimizer)
    recorded = json.loads((KEPT / "state.json").read_text())["facts"]
    facts = RunFacts(**{each.name: recorded[each.name] for each in fields(RunFacts)})
    assert read_state(KEPT, facts).step == 2
    assert all(state["step"] == 2 for state in optimizer.state.values())
