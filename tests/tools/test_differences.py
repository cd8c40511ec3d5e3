"""Models compared by their predictions, with intervals by video file."""

import csv

from benchmarks import differences


def write(path, answers):
    """Write answers for four clips of one recording, of class a, and two of another, of class b."""
    clips = [(f"{i}", "one.mp4" if i < 4 else "two.mp4", "a" if i < 4 else "b") for i in range(6)]
    lines = [f"{name},{file},{label},scored,{top}\n" for (name, file, label), top in zip(clips, answers, strict=True)]
    path.write_text("id,path,true_labels,status,top_1\n" + "".join(lines))
    return path


def test_values_and_differences_have_intervals_by_file(run_main, tmp_path):
    right, half, wrong = (write(tmp_path / f"{name}.csv", name) for name in ("aaaabb", "aabbbb", "bbbbbb"))
    output, models = tmp_path / "out.csv", (f"first={half},{wrong}", f"second={right}")
    run_main(differences.main, *models, "--output", output)
    rows = {(row["model"], row["metric"]): row for row in csv.DictReader(output.open())}
    expected = {("first", "top1"): (2, 50.0, 25.0, 100.0), ("first", "mean_class_accuracy"): (2, 62.5, 25.0, 100.0),
                ("second", "top1"): (1, 100.0, 100.0, 100.0)}  # fmt: skip
    for key, figures in expected.items():
        assert tuple(float(rows[key][name]) for name in ("seeds", "value", "low", "high")) == figures
    names = "difference", "difference_low", "difference_high"
    assert [float(rows["second", "top1"][name]) for name in names] == [50.0, 0.0, 75.0]
    short = tmp_path / "short.csv"
    short.write_text("\n".join(right.read_text().splitlines()[:-1]))
    run_main(differences.main, f"first={right},{short}", "--output", output, refused=("short.csv", "predictions.csv"))
