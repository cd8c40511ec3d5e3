"""The model before its first step: a fresh classifier starts at the frequencies of the classes."""

import pytest
import torch
from initial_model import initial_model

from tests.evaluation.tiny_evaluation import NUM_CLASSES, make_records
from tests.models.test_weights import CLIP, SMALL, build, save_timm
from vidtl.config import ExperimentConfig, TrainingConfig
from vidtl.models import save_model_directory
from vidtl.models.weights.published import read_published


@pytest.mark.parametrize(
    ("source", "new_head", "shared"),
    [
        *(("none", False, 0), ("image", False, 0), ("image", True, 0)),
        *(("video", True, 0), ("video", False, 2), ("video", False, NUM_CLASSES)),
    ],
)
def test_only_a_fresh_classifier_starts_at_the_frequencies(tmp_path, source, new_head, shared):
    init_from = ""
    if source == "image":
        init_from = str(save_timm(tmp_path)[0])
    if source == "video":
        init_from = str(tmp_path)
        model = build(num_classes=NUM_CLASSES)
        model.class_names = tuple(f"class {k}" if k < shared or new_head else f"other {k}" for k in range(NUM_CLASSES))
        save_model_directory(model, tmp_path)
    training = TrainingConfig(init_from=init_from, init_new_head=new_head)
    config = ExperimentConfig(clip=CLIP, model=SMALL, training=training)
    records = make_records(20, multi_label=True)
    rates = torch.from_numpy(records.video_targets().mean(axis=0)).float()
    published = read_published(init_from) if init_from else None
    bias = initial_model(config, records, published)[0].classifier()[1].bias.detach()
    prior = torch.logit(rates)
    prior[:shared] = 0
    torch.testing.assert_close(bias, prior)
