"""Mutated files of a stranger: model directories, data sets and manifests, each read in a forked process.

    make fuzz                                                2,000 mutations of each kind
    python -m tests.stress.fuzz --kinds model --only 17      one case again; its files stay in the printed folder

A fault is a traceback, an exit code other than 0, 2 and 4, no end within 20 s, or more than 2 GB. Mutated videos are an
experiment of `make stress` (`tests.stress.decoding`).
"""

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import sqlite3
import struct
import sys
import tempfile
from collections import Counter
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from tests.environment import REPOSITORY
from tests.stress.decoding import mutated
from tests.stress.outcome import in_fork
from vidtl.annotations.description import load_description, read_splits
from vidtl.config import ClipConfig, ExperimentConfig, ModelConfig, TokenLearnerConfig
from vidtl.data.manifest import FILE_NAME, FOLDER, Entry, find_manifest
from vidtl.models import build_model, save_model_directory
from vidtl.prepare.manifest import ManifestFolder, Results
from vidtl.prepare.scan import ScanJob, scan_file
from vidtl.runtime.logging import configure_logging
from vidtl.runtime.progress import Progress
from vidtl.training.checkpoint_directory import EXPERIMENT, OPTIMIZER, STATE, new_checkpoint
from vidtl.training.run_directory import dump_config
from vidtl.video import Box, UnreadableVideo, View, open_video

sys.path.append(str(REPOSITORY / "tools"))
import predict
from toy_set import ToySettings, make_toy

LIMIT_S = 20

EXTREMES = (
    *("0", "-1", "3", "1e308", "-1e-308", "NaN", ".inf", "null", "true", "[]", "{}", "''", "[1, [2]]", "2001-99-99"),
    *("9" * 12, "9" * 30, "9" * 5000, "0x" + "f" * 5000, "1:" * 3000 + "1", "[" * 3000, '{"a":' * 3000, '{"a": 1}'),
    *("*a", "!!int ''", '"../../../../etc/passwd"', "/", "/dev/zero", '"\\u0000"', '"\\ud800"', '"\\u001b[2J"'),
    *('"' + "x" * 5000 + '"', "{name:0999999999d}", "{0.__class__}", "*" * 40, "**/**/**", "a;" * 5000),
)  # fmt: skip


def edit_text(content: bytes, rng: random.Random) -> bytes:
    """Replace one value of JSON or YAML, or one cell of a CSV, by an extreme."""
    places = list(re.finditer(rb"""(?<=[:,\[ ])[^\s:,\[\]{}]+|(?<=\n)[^,\n]+""", content))
    start, end = rng.choice(places).span()
    return content[:start] + rng.choice(EXTREMES).encode() + content[end:]


def edit_tensors(content: bytes, rng: random.Random) -> bytes:
    """Replace one value in the header of a safetensors file by an extreme, mostly with its length."""
    size = struct.unpack("<Q", content[:8])[0]
    header = edit_text(content[8 : 8 + size], rng)
    length = len(header) if rng.random() < 0.8 else rng.choice([0, 2**31, 2**63])
    return struct.pack("<Q", length) + header + content[8 + size :]


def edit_rows(file: Path, rng: random.Random) -> None:
    """Replace one field of a row, with the right checksum or without."""
    with sqlite3.connect(file) as database:
        row = rng.choice(database.execute("SELECT * FROM files").fetchall())
        entry, name = Entry.from_row(row, file), rng.choice(fields(Entry)).name
        kind = type(getattr(entry, name))
        numbers = [0, -1, 2**62, 2**31, rng.randrange(100)]
        texts = ["", "ok", "1/0", "0/1", "-1/3", "9" * 400, "../../etc/passwd", "\x1b[2J\x00", "x" * 100_000]
        choices = {str: texts, bytes: [b"", os.urandom(40), b"x" * 100_000], float: [1e308, -1.0]}
        value = rng.choice(choices.get(kind, numbers))
        column = f"{name} = ?, checksum = ?" if rng.random() < 0.8 else f"{name} = ?, reason = ?"
        values = value, replace(entry, **{name: value}).to_row()[-1]
        database.execute(f"UPDATE files SET {column} WHERE path = ?", (*values, entry.path))
    database.close()


def make_bases(folder: Path) -> dict[str, list[Path]]:
    """Make the folders that are mutated, by kind."""
    data = folder / "data"
    make_toy(data, ToySettings(videos_per_class_train=1, videos_per_class_val=1), Progress(False), num_processes=1)
    shutil.copytree(REPOSITORY / "datasets/toy", data, dirs_exist_ok=True)
    paths = sorted(path.relative_to(data).as_posix() for path in data.glob("videos/val/*"))
    (folder / "manifest").mkdir()
    for path in paths[:3]:
        shutil.copy2(data / path, folder / "manifest")
    with Results(ManifestFolder(folder / "manifest" / FOLDER), None) as results:
        for path in sorted(folder.glob("manifest/*.mp4")):
            results.add(scan_file(ScanJob(path.parent, path.name, "frames")))
        results.finish()
    clip = ClipConfig(num_frames=4, frame_size=(32, 32), short_side=32)
    stage = TokenLearnerConfig(num_tokens=4, after_block=1)
    config = ModelConfig(width=24, depth=2, num_heads=2, temporal_depth=1, tubelet=(2, 8, 8), token_learner=stage)
    model = build_model(config, clip, 2)
    model.class_names, model.multi_label = ("one", "two"), False
    save_model_directory(model, folder / "model")
    with new_checkpoint(folder / "run/checkpoints", 1, 0) as checkpoint:
        save_model_directory(model, checkpoint)
        save_file({"a": torch.zeros(2)}, checkpoint / OPTIMIZER)
        (checkpoint / STATE).write_text(json.dumps({"step": 1}))
        (checkpoint / EXPERIMENT).write_text(dump_config(ExperimentConfig(clip=clip, model=config)))
    shutil.copy(data / paths[0], folder / "clip.mp4")
    models = [folder / "model", folder / "run/checkpoints/step-00000001"]
    return {"model": models, "data": [data], "manifest": [folder / "manifest"]}


def mutate(case: Path, kind: str, rng: random.Random) -> None:
    files = [each for each in case.rglob("*") if each.is_file() and each.suffix != ".mp4"]
    file = rng.choice(sorted(files)) if kind != "manifest" else case / FOLDER / FILE_NAME
    if rng.random() < 0.3:
        file.write_bytes(mutated(file.read_bytes(), rng))
    elif kind == "manifest":
        edit_rows(file, rng)
    else:
        edit = edit_tensors if file.suffix == ".safetensors" else edit_text
        file.write_bytes(edit(file.read_bytes(), rng))
    manifest = case / "manifest.json"
    if manifest.exists() and file != manifest:  # a stranger can seal what they write
        content = json.loads(manifest.read_text())
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        content["files"][file.relative_to(case).as_posix()] = {"bytes": file.stat().st_size, "sha256": sha256}
        manifest.write_text(json.dumps(content))


def read_model(case: Path) -> None:
    sys.argv = ["predict.py", "--checkpoint", str(case), str(case.parent / "clip.mp4")]
    predict.main()


def read_data(case: Path) -> None:
    configure_logging(is_main_process=True)
    description = load_description("", case)
    read_splits(description, [*description.splits], case)


def read_manifest(case: Path) -> None:
    """Read the videos of the manifest by their scans."""
    configure_logging(is_main_process=True)
    manifest = find_manifest(case, "auto")
    assert manifest is not None
    for path in sorted(case.glob("*.mp4")):
        try:
            with open_video(path, scanned=manifest.consult(case, path.name)) as video:
                frames = np.linspace(0, len(video.times_s) - 1, 4).astype(int)
                video.read([View(frames, Box(0, 0, video.height, video.width))], (32, 32), "planar")
        except UnreadableVideo as error:
            print(error)
    print(sum(1 for _ in manifest))


ACTIONS = {"model": read_model, "data": read_data, "manifest": read_manifest}


def main() -> None:
    """Fuzz, and print counts, peaks and faults with the numbers that repeat them; exit code 1 after a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=[*ACTIONS], default=[*ACTIONS])
    parser.add_argument("--only", type=int, help="number of a case, to run it alone and keep its files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder, all_faults = Path(tempfile.mkdtemp(prefix="vidtl-fuzz-")), 0
    bases, case, log = make_bases(folder), folder / "case", folder / "log"
    for kind in options.kinds:
        faults, codes, most = list[str](), Counter[int](), 0
        for number in range(options.count) if options.only is None else [options.only]:
            shutil.rmtree(case, ignore_errors=True)
            shutil.copytree(bases[kind][number % len(bases[kind])], case)
            mutate(case, kind, random.Random(f"{kind} {options.seed} {number}"))
            code, fault, peak = in_fork(partial(ACTIONS[kind], case), log, LIMIT_S)
            faults += [f"  {number}: {fault}\n"] * bool(fault)
            codes[code] += 1
            most = max(most, peak)
        ends = ", ".join(f"{count} end with {code}" for code, count in sorted(codes.items()))
        print(f"{kind}: {ends}, peak {most >> 20} MB, {len(faults)} faults\n{''.join(faults)}", end="", flush=True)
        all_faults += len(faults)
    if options.only is None:
        shutil.rmtree(folder)
    else:
        print(case, log.read_text(errors="replace"), sep="\n")
    sys.exit(all_faults > 0)


if __name__ == "__main__":
    main()
