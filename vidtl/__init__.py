"""Video classifiers built on ViViT and TokenLearner, from annotation file to metric.

    model = vidtl.VideoModel.from_pretrained("runs/birds/checkpoints/step-00001000")
    logits_BK = model(vidtl.load_clip("clip.mp4", model))

Public names are imported on first use: `import vidtl` takes no time. All else is done by command line tools.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_MODULES = {
    "TokenFuser": "vidtl.models.token_learner",
    "TokenLearner": "vidtl.models.token_learner",
    "ViViT": "vidtl.models.vivit",
    "VideoModel": "vidtl.models",
    "create_model": "vidtl.models",
    "list_models": "vidtl.models",
    "load_clip": "vidtl.evaluation.predict",
    "load_model_directory": "vidtl.models",
    "load_pretrained": "vidtl.models.weights.pretrained",
}

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'vidtl' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
