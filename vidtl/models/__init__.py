"""Models: `build_model` from a configuration, `create_model` from a name."""

from vidtl.config import ClipConfig, ModelConfig
from vidtl.models.baselines import PytorchVideoModel
from vidtl.models.hub import VideoModel
from vidtl.models.mini_vit import MiniViT
from vidtl.models.t2t_vit import T2TViT
from vidtl.models.variants import list_models, parse_variant
from vidtl.models.vivit import ViViT

__all__ = ["ARCHITECTURES", "VideoModel", "build_model", "create_model", "list_models"]

ARCHITECTURES: dict[str, type[VideoModel]] = {
    "vivit": ViViT,
    "t2t_vit": T2TViT,
    "mini_vit": MiniViT,
    "pytorchvideo": PytorchVideoModel,
}
"""Every `model.architecture`; each is made from the model's settings, the clip's shape and the number of classes."""


def build_model(config: ModelConfig, clip: ClipConfig, num_classes: int) -> VideoModel:
    """The model of a configuration, with fresh weights from torch's global generator.

    Raises:
        UserError: settings that contradict each other or the clip.
    """
    return ARCHITECTURES[config.architecture](config, clip, num_classes)


def create_model(
    name: str, num_classes: int = 400, num_frames: int = 32, frame_size: tuple[int, int] = (224, 224)
) -> VideoModel:
    """The model of a name such as `vivit_b16x2_fe_tl8at3` or `B/16x2` (see `list_models`), with fresh weights.

    Raises:
        UserError: an unknown name, or a clip that is not a whole number of tubelets.
    """
    clip = ClipConfig(num_frames=num_frames, frame_size=frame_size, short_side=max(256, *frame_size))
    return build_model(ModelConfig(vivit=parse_variant(name)), clip, num_classes)
