"""Measure features by k nearest neighbors and a linear probe, as DINO reports them.

python tools/probe.py features/train features/val
python tools/probe.py features/train features/val --checkpoint runs/toy --save probes/toy --output probes/toy.json

Both are folders of features.py, with labels: the first one has the neighbors and trains the probe. With --checkpoint,
the model's own classifier is measured, too, if it has the same classes; --save writes the model with the probe as its
classifier. Axes: N rows, D values of a feature, K classes.
"""

import json
from argparse import Namespace
from pathlib import Path

from command_line import PlainParser

from vidtl.config.checks import require
from vidtl.runtime.files import require_new_directory, say, whole_file
from vidtl.runtime.signals import exit_on_error, run_tool


def parse() -> Namespace:
    parser = PlainParser(prog="probe.py", description="Measure features by k nearest neighbors and a linear probe.")
    parser.add_argument("train", type=Path, help="Folder of features of the training split")
    parser.add_argument("eval", type=Path, help="Folder of features to measure")
    parser.add_argument("--checkpoint", type=Path, help="Run, checkpoint or model directory of the features")
    parser.add_argument("--save", type=Path, help="Model directory to write with the linear probe; needs --checkpoint")
    parser.add_argument("--output", type=Path, help="JSON file for all metrics and intervals")
    options = parser.parse_args()
    require(bool(options.checkpoint or not options.save), "--save", str(options.save), "with --checkpoint only")
    if options.save:
        require_new_directory(options.save)
    return options


if __name__ == "__main__":
    with exit_on_error():  # mistakes, and --help, end here and do not wait for the imports below
        parse()

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, linear, normalize

from vidtl.evaluation.features import Row, load_features
from vidtl.evaluation.report import finite, percent
from vidtl.metrics import METRICS, Outcomes, chance_levels, compute_metrics, confidence_intervals
from vidtl.models import load_model_directory, save_model_directory
from vidtl.runtime.seeding import generator
from vidtl.training.checkpoint import find_checkpoint

SHARED = ("model", "features", "class_names", "multi_label")  # by both folders
NEIGHBORS, TEMPERATURE = (10, 20, 100, 200), 0.07
PENALTIES = [10.0**exponent for exponent in range(-6, 3)]  # times the squared weights of standardized values


def main() -> None:
    options = parse()
    (train, train_rows, about), (values, rows, measured) = load_features(options.train), load_features(options.eval)
    for name in SHARED:
        allowed = f"that of {options.train}, {str(about[name])[:60]!r}"
        require(about[name] == measured[name], f"{options.eval}: {name}", str(measured[name])[:60], allowed)
    require(about["features"] == "pooled", f"{options.train}: features", about["features"], "pooled")
    multi_label, known = about["multi_label"], [not row["reason"] for row in train_rows]
    train_ND, values_ND = torch.from_numpy(train).double()[known], torch.from_numpy(values).double()
    train_NK, targets_NK = (labels_of(part, about["class_names"], multi_label) for part in (train_rows, rows))
    model, found = None, (train_ND, train_NK[known])
    if options.checkpoint:
        given = find_checkpoint(options.checkpoint)
        same = [each for each in (given.with_average(), given) if each.fingerprint() == about["model"]]
        require(bool(same), "--checkpoint", str(given), f"the model of the features, {about['model'][:12]}")
        same[0].verify()
        model = load_model_directory(same[0].model_directory)
    probe, penalty = fit_linear(*found, [row["path"] for row in train_rows if not row["reason"]], multi_label)
    layers = {"linear probe": probe}
    if model and list(model.class_names) == about["class_names"]:
        layers["own classifier"] = model.classifier()[1]
    fitting = [k for k in NEIGHBORS if k <= len(train_ND)]
    scores = {f"{k} neighbors": nearest_neighbors(*found, values_ND, k) for k in fitting}
    chances = dict(scores)
    for name, layer in layers.items():
        scores[name] = linear(values_ND, layer.weight.double(), layer.bias.double()).detach()
        chances[name] = scores[name].sigmoid() if multi_label else scores[name].softmax(dim=1)
    chance = chance_levels(targets_NK.numpy(), multi_label)
    counts = {"num_train": len(train_ND), "num_eval": len(rows)}
    record = {name: about[name] for name in SHARED} | counts | {"penalty": penalty, "chance": chance}
    shown = METRICS["mAP" if multi_label else "top1"]
    for name in scores:
        ranked = scores[name].nan_to_num(-np.inf).numpy()  # unreadable videos are wrong
        given = {"targets": targets_NK.numpy() > 0, "probabilities": chances[name].numpy(), "multi_label": multi_label}
        metrics = compute_metrics(outcomes := Outcomes(scores=ranked, **given))
        record[name] = {"metrics": metrics, "intervals": (intervals := confidence_intervals(outcomes, metrics))}
        low, high, _ = intervals[shown.name]
        say(f"{name:<16}{shown.name:>6}{percent(metrics[shown.name]):>9}  {percent(low)}..{percent(high)}")
    say(f"{shown.baseline[0]:<16}{shown.name:>6}{percent(chance[shown.baseline[0]]):>9}")
    if options.output:
        with whole_file(options.output) as file:
            file.write(json.dumps(finite(record), indent=2) + "\n")
    if options.save:
        model.reset_classifier(len(about["class_names"]), about["class_names"])
        model.classifier()[1].load_state_dict(probe.state_dict())
        model.multi_label = multi_label
        save_model_directory(model, options.save)


def labels_of(rows: list[Row], names: list[str], multi_label: bool) -> Tensor:
    """Return multi-hot labels [N, K]; UserError without any, or for a single-label row without exactly one."""
    labels = [json.loads(row["labels"]) for row in rows]
    for row, of_row in zip(rows, labels, strict=True):
        is_labeled = any(labels) if multi_label else len(of_row) == 1
        require(is_labeled, f"{row['path']}: number of labels", len(of_row), "features of a labeled split")
    return torch.tensor([[name in of_row for name in names] for of_row in labels]).double()


def nearest_neighbors(train_ND: Tensor, train_NK: Tensor, values_ND: Tensor, k: int) -> Tensor:
    """Average labels of the k rows most alike, with weights exp(s / 0.07): [N, K] (DINO, Caron et al., 2021)."""
    train_ND, parts = normalize(train_ND), []
    for chunk_ND in normalize(values_ND).split(1024):
        similarities, neighbors = (chunk_ND @ train_ND.T).topk(k)
        parts.append(torch.einsum("Nk,NkK->NK", (similarities / TEMPERATURE).softmax(dim=1), train_NK[neighbors]))
    return torch.cat(parts)


def fit_linear(train_ND: Tensor, train_NK: Tensor, files: list[str], multi_label: bool) -> tuple[nn.Linear, float]:
    """Fit one or several logistic regressions by L-BFGS, with the penalty (returned) that suits a fifth of files."""
    mean, std = train_ND.mean(dim=0), train_ND.std(dim=0).clamp(min=1e-6)
    values_ND = (train_ND - mean) / std
    loss_of = binary_cross_entropy_with_logits if multi_label else cross_entropy

    def fit(rows: Tensor, penalty: float) -> nn.Linear:
        layer = nn.Linear(values_ND.shape[1], train_NK.shape[1], dtype=torch.float64)
        layer.load_state_dict({name: torch.zeros_like(value) for name, value in layer.state_dict().items()})
        optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=200, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(layer(values_ND[rows]), train_NK[rows]) + penalty * layer.weight.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        return layer.requires_grad_(False)

    distinct = np.unique(files)
    require(len(distinct) > 1, "number of readable videos to train on", len(distinct), "2 or more")
    held = torch.from_numpy(np.isin(files, generator(0).permutation(distinct)[: -(-len(distinct) // 5)]))
    losses = {penalty: loss_of(fit(~held, penalty)(values_ND[held]), train_NK[held]) for penalty in PENALTIES}
    best = min(PENALTIES, key=lambda penalty: losses[penalty])
    layer = fit(torch.ones_like(held), best)
    layer.weight /= std
    layer.bias -= layer.weight @ mean
    return layer, best


if __name__ == "__main__":
    run_tool(main)
