"""What the launcher's DeepSpeed configuration may ask for, and what it is told otherwise, in one line each."""

import importlib.util

import pytest

from vidtl.errors import UserError
from vidtl.runtime.zero import check_deepspeed


@pytest.fixture
def asked_for(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    return monkeypatch


def test_without_deepspeed_the_line_says_how_to_install_it(asked_for):
    asked_for.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[deepspeed\]'"):
        check_deepspeed("bf16")


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("DEEPSPEED_ZERO_STAGE", "3", "zero_stage is 3; .* FSDP2"),
        ("DEEPSPEED_ZERO_STAGE", "0", "zero_stage is 0; allowed: 1 or 2"),
        ("DEEPSPEED_CONFIG_FILE", "zero.json", "deepspeed_config_file is zero.json"),
        ("DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "cpu", "offload_optimizer_device is cpu"),
        ("GRADIENT_CLIPPING", "1.0", r"gradient_clipping is 1.0 .* optimizer\.clip_norm"),
    ],
)
def test_what_would_be_ignored_is_refused(asked_for, variable, value, told):
    asked_for.setenv(f"ACCELERATE_{variable}", value)
    with pytest.raises(UserError, match=told):
        check_deepspeed("no")


def test_fp16_is_refused(asked_for):
    with pytest.raises(UserError, match=r"training\.precision is 'fp16'"):
        check_deepspeed("fp16")


def test_settings_that_ask_for_nothing_are_fine(asked_for):
    for name, value in {"OFFLOAD_OPTIMIZER_DEVICE": "none", "ZERO3_INIT": "false", "ZERO_STAGE": "1"}.items():
        asked_for.setenv(f"ACCELERATE_DEEPSPEED_{name}", value)
    check_deepspeed("bf16")


def test_without_deepspeed_in_the_configuration_nothing_is_checked(monkeypatch):
    monkeypatch.delenv("ACCELERATE_USE_DEEPSPEED", raising=False)
    monkeypatch.setenv("ACCELERATE_GRADIENT_CLIPPING", "1.0")
    check_deepspeed("fp16")
