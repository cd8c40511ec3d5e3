"""A ViViT of a few hundred weights on the batches of `tiny_run`, and an engine that trains it."""

from dataclasses import replace

import torch
from accelerate import Accelerator
from torch import nn

from tests.training.tiny_run import NUM_CLASSES, tiny_config, tiny_task
from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.models import VideoModel, build_model
from vidtl.training.prefetch import DeviceBatches
from vidtl.training.step import Engine, StepReport


def tiny_vivit(**settings: object) -> VideoModel:
    """Two spatial and one temporal block, TokenLearner between the spatial ones; its head does not start at 0."""
    torch.manual_seed(3)
    sizes = {"width": 16, "depth": 2, "num_heads": 2, "temporal_depth": 1, "tubelet": (1, 1, 1)}
    token_learner = TokenLearnerConfig(num_tokens=2, after_block=1)
    vivit = ModelConfig(**{"token_learner": token_learner, **sizes, **settings})  # type: ignore[arg-type]
    model = build_model(vivit, ClipConfig(num_frames=2, frame_size=(2, 2)), NUM_CLASSES)
    nn.init.normal_(model.head.weight)
    return model


def engine_of(accelerator: Accelerator, model: nn.Module, **training: object) -> Engine:
    """With SGD: AdamW turns the rounding of gradients that should be 0 (keys' biases) into whole steps."""
    config = tiny_config(**training)
    config = replace(config, optimizer=replace(config.optimizer, name="sgd"))
    return Engine(model, config, accelerator, tiny_task(config, accelerator))


def take_steps(engine: Engine, count: int, start: int = 0) -> list[StepReport]:
    batches = DeviceBatches(engine.task.loader.iterate(start), engine.accelerator.device)
    return [engine.step(step, engine.learning_rate(step), batches) for step in range(start, start + count)]
