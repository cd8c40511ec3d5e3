"""Parts of a split: random, by groups that stay together, folds, and the warning for clips of one recording."""

from contextlib import suppress

import numpy as np
import pytest

from tests.annotations.sets import make, names, read, write
from tests.refusals import refused
from vidtl.errors import UserError

HEAD = "format: labelled_table\nlabels: single\n"
FOLDS = {f"val{k}": f"[{k / 5}, {k / 5 + 0.2:.1f}]" for k in range(5)} | {"rest1": "[0.4, 1.2]"}


def describe(root, rows, more, splits=FOLDS, header="path,label"):
    """A table in `all.csv` whose splits are parts of it."""
    lines = "".join(f"  {name}: {{annotations: all.csv, part: {part}}}\n" for name, part in splits.items())
    text = f"{HEAD}splits:\n  all: {{annotations: all.csv}}\n{lines}{more}\n"
    write(root, {"dataset.yaml": text, "all.csv": f"{header}\n" + "".join(f"{row}\n" for row in rows)})
    return {name: read(root, name, root) for name in ("all", *splits)}


def subjects(num_groups, seed=0):
    """Rows of groups with 1 to 30 clips of 3 unbalanced classes, whose mixture differs between groups."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet([3, 1, 0.5], num_groups)
    sizes = rng.integers(1, 31, num_groups)
    return [f"s{g:03d}/{i}.mp4,{rng.choice(3, p=shares[g])}" for g, size in enumerate(sizes) for i in range(size)]


@pytest.mark.parametrize("group", ["{group}/{other}", "column"])
def test_folds_keep_groups_together_and_are_alike(tmp_path, group):
    rows = subjects(200)
    if group == "column":
        rows = [f"{row.replace('/', '_')},{row[:4]}" for row in rows]
        parts = describe(tmp_path, rows, "group: person", header="path,label,person")
    else:
        parts = describe(tmp_path, rows, f"group: '{group}'")
    folds = [{path[:4] for path in parts[f"val{k}"].paths} for k in range(5)]
    assert sum(map(len, folds)) == len(set().union(*folds)) == 200
    assert sorted(path for k in range(5) for path in parts[f"val{k}"].paths) == sorted(parts["all"].paths)
    assert sorted([*parts["rest1"].paths, *parts["val1"].paths]) == sorted(parts["all"].paths)
    whole = np.bincount(parts["all"].label_classes) / len(rows)
    for k in range(5):
        counts = np.bincount(parts[f"val{k}"].label_classes, minlength=3)
        assert counts.sum() == pytest.approx(len(rows) / 5, rel=0.05)
        assert counts / counts.sum() == pytest.approx(whole, abs=0.03)


@pytest.mark.parametrize("group", ["", "group: '{group}/{other}'"])
@pytest.mark.parametrize(("count", "folds"), [(5, 4), (13, 3), (23, 8), (50, 100)])
def test_each_fold_and_its_rest_are_the_whole(tmp_path, group, count, folds):
    edges = [f"{k / folds:.3f}" for k in range(folds)]
    splits = {f"{k}": f"[{edge}, {[*edges, '1'][k + 1]}]" for k, edge in enumerate(edges)}
    rests = {f"rest{k}": f"[{edge}, 1{edges[k - 1][1:]}]" for k, edge in enumerate(edges) if k > 0}
    rows = [f"{number}/a.mp4,x" for number in range(count)] + ["0/b.mp4,x"] * bool(group)
    write(tmp_path, {"all.csv": "path,label\n" + "\n".join(rows), "names.txt": "x\n"})
    lines = "".join(f"  {name}: {{annotations: all.csv, part: {part}}}\n" for name, part in (splits | rests).items())
    write(tmp_path, {"dataset.yaml": f"{HEAD}classes: names.txt\nsplits:\n{lines}{group}\n"})
    for k in range(1, folds):
        parts = []
        for name in (f"{k - 1}", f"rest{k}"):
            with suppress(UserError):  # an empty part
                parts += read(tmp_path, name, tmp_path).paths
        assert sorted(parts) == sorted(row[:-2] for row in rows)


def test_groups_do_not_depend_on_other_parts_or_the_order_of_files(tmp_path):
    rows = subjects(20)
    first = describe(tmp_path / "a", rows, "group: '{group}/{other}'", {"most": "[0, 0.75]", "few": "[0.75, 1]"})
    again = describe(tmp_path / "b", rows, "group: '{group}/{other}'", {"few": "[0.75, 1]"})
    assert list(first["few"].paths) == list(again["few"].paths)
    assert {path[:4] for path in first["few"].paths}.isdisjoint(path[:4] for path in first["most"].paths)
    assert list(first["most"].paths) == [path for path in first["all"].paths if path in set(first["most"].paths)]


def test_file_names_have_groups(tmp_path):
    splits = "{train: {videos: kth, part: [0, 0.75]}, val: {videos: kth, part: [0.75, 1]}}"
    text = f"format: file_names\nlabels: single\nsplits: {splits}\nfiles: 'person{{group}}_{{label}}_d{{other}}.avi'\n"
    write(tmp_path, {"dataset.yaml": text})
    clips = [f"{label}_d{number}" for label in ("run", "walk") for number in (1, 2)]
    make(tmp_path, *(f"kth/person{p:02d}_{clip}_uncomp.avi" for p in range(1, 9) for clip in clips))
    train, val = read(tmp_path, "train", tmp_path), read(tmp_path, "val", tmp_path)
    assert {path[10:12] for path in train.paths}.isdisjoint(path[10:12] for path in val.paths)
    assert (len(train), len(val), names(val).count("run")) == (24, 8, 4)


@pytest.mark.parametrize(
    ("rows", "more", "parts"),
    [
        (["a/1.mp4,x", "b.mp4,y"], "group: 's{group}/{other}'", ("all.csv:2", "'a/1.mp4'", "'s{group}/{other}'")),
        (["a/a/1.mp4,x", "a/b/2.mp4,y"], "group: '{group}/{group}/{other}'", ("all.csv:3", "'a/b/2.mp4'")),
        (["a.mp4,x"], "group: persn", ("all.csv:1", "'persn'", "'person'")),
        (["a.mp4,x,", "b.mp4,y,p"], "group: person", ("all.csv:2", "'a.mp4'", "'person'")),
        (["a/1.mp4,x", "a/2.mp4,y"], "group: '{group}/{other}'", ("all.csv", "[0.0, 0.2]", "1 groups")),
    ],
)
def test_mistakes(tmp_path, rows, more, parts):
    with refused(*parts):
        describe(tmp_path, rows, more, header="path,label,person" if "pers" in more else "path,label")


@pytest.mark.parametrize(
    ("rows", "pair"),
    [
        (["v_Bow_g08_c01.avi,x", "b.avi,y", "v_Bow_g08_c02.avi,x", "v_Bow_g08_c03.avi,x"], ("g08_c01", "g08_c02")),
        (["x/-abc_000010_000020.mp4,x", "y/-abc_000040_000050.mp4,y", "c.mp4,y"], ("abc_000010_", "abc_000040_")),
        (["cam 1.mp4,x", "cam 2.mp4,y", "d.mp4,x"], ("cam 1.mp4", "cam 2.mp4")),
        (["a.mp4,x,0,2", "b.mp4,y,0,2", "a.mp4,y,2,4"], ("a.mp4#t=0,2", "a.mp4#t=2,4")),
        (["video_1.mp4,x", "video_2.mp4,y", "video_3.mp4,x"], ()),
        (["01.mp4,x", "02.mp4,y", "a.mp4,x"], ()),
        (["anna.mp4,x", "bert.mp4,y"], ()),
    ],
)
def test_a_random_part_of_clips_of_one_recording_gives_one_warning(tmp_path, caplog, rows, pair):
    timed = rows[0].count(",") == 3
    header, columns = ("path,label,from,to", "columns: {start: from, end: to}") if timed else ("path,label", "")
    describe(tmp_path, rows, columns, {"half": "[0, 0.5]"}, header)
    warnings = [message for message in caplog.messages if "`group`" in message]
    assert len(warnings) == bool(pair)
    assert all(name in warnings[0] for name in pair)
