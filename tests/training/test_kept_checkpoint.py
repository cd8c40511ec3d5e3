"""A checkpoint of the day that format 2 was fixed: later versions must load it."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from command_line import make_experiment, settings_of_file

from vidtl.models import load_model_directory
from vidtl.training.checkpoint import find_checkpoint
from vidtl.training.optimizer import build_optimizer
from vidtl.training.state import RunFacts, load_snapshot, read_state

KEPT = Path(__file__).with_name("checkpoint_of_version_2") / "step-00000002"
LOGITS = {
    False: [-0.0045047, 0.0009538, 0.0042215, 0.0042215, 0.0011101, 0.0042215, 0.0041042, -0.0042341],
    True: [-0.0043005, 0.0008462, 0.0028794, 0.0028794, 0.000995, 0.0028794, 0.003062, -0.0028688],
}
"""Scores of the weights and of their average."""


@pytest.mark.parametrize("averaged", [False, True])
def test_a_kept_checkpoint_gives_the_same_scores(averaged):
    checkpoint = find_checkpoint(KEPT / "ema" if averaged else KEPT)
    checkpoint.verify()
    assert (checkpoint.step, checkpoint.averaged) == (2, averaged)
    model = load_model_directory(checkpoint.model_directory).eval()
    with torch.inference_mode():
        logits_BK = model(torch.linspace(-1, 1, 8 * 3 * 16 * 16).reshape(1, 8, 3, 16, 16))
    assert model.class_names[0] == "moving left"
    torch.testing.assert_close(logits_BK[0].double(), torch.tensor(LOGITS[averaged]).double(), atol=1e-5, rtol=1e-4)


def test_a_run_can_resume_from_it():
    config = make_experiment(settings_of_file(KEPT / "experiment.yaml"))
    model = load_model_directory(KEPT)
    optimizer = build_optimizer(model, config.optimizer, torch.device("cpu"))
    load_snapshot(KEPT, model, None, optimizer)
    recorded = json.loads((KEPT / "state.json").read_text())["facts"]
    facts = RunFacts(**{each.name: recorded[each.name] for each in fields(RunFacts)})
    assert read_state(KEPT, facts).step == 2
    assert all(state["step"] == 2 for state in optimizer.state.values())
