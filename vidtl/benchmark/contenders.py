"""The models that are compared: ours in several forms, and the same network from other people's libraries.

All see the same clips `[B, T, C, H, W]` and have the same width, depth and heads. Weights are fresh, nothing is
downloaded.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from einops import rearrange, reduce
from torch import Tensor, nn

from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.config.architectures import ARCHITECTURES
from vidtl.errors import UserError
from vidtl.models import build_model
from vidtl.models.complexity import count_multiply_adds

REFERENCE = "fe"
"""Key of the model that all others are compared with: the factorised encoder without TokenLearner."""

PATCH = 16
TUBELET_FRAMES = 2
NUM_CLASSES = 400


class Size(NamedTuple):
    """Numbers behind a letter."""

    width: int
    depth: int
    num_heads: int


SIZES = {name: Size(row["width"], row["depth"], row["num_heads"]) for name, row in ARCHITECTURES["vivit"].sizes.items()}


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings:
    """Sizes of clips and models: X/16x2 with the width of `size` and `depth` blocks."""

    size: str = "B"
    """One of `SIZES`."""
    depth: int = 12
    """Spatial blocks; the temporal encoder has a third as many, so that their proportion is that of 12 + 4."""
    batch: int = 1
    num_frames: int = 32
    frame_size: int = 224
    """Height and width in pixels."""

    def __post_init__(self) -> None:
        for name, step, least in (
            ("depth", 1, 1),
            ("batch", 1, 1),
            ("num_frames", TUBELET_FRAMES, TUBELET_FRAMES),
            ("frame_size", PATCH, 4 * PATCH),  # so that 16 tokens can be learned from a timestep
        ):
            value = getattr(self, name)
            if value < least or value % step:
                raise UserError(f"--{name} is {value}; allowed: multiples of {step} from {least} on")

    @property
    def clip(self) -> ClipConfig:
        side = (self.frame_size, self.frame_size)
        return ClipConfig(num_frames=self.num_frames, frame_size=side, short_side=max(256, self.frame_size))

    @property
    def shape(self) -> Size:
        """Width, heads and the published depth of the size."""
        return SIZES[self.size]

    @property
    def temporal_depth(self) -> int:
        return max(1, self.depth // 3)

    @property
    def num_tokens(self) -> int:
        """Tokens of a whole batch before any TokenLearner: the rows of its matrix products."""
        return self.batch * self.num_frames // TUBELET_FRAMES * (self.frame_size // PATCH) ** 2


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A model that takes part."""

    key: str
    title: str
    model: nn.Module
    multiply_adds: int
    """Of one clip's forward pass."""
    train_multiply_adds: int
    """Of one clip's forward and backward pass: three times as many, less the pixels' gradient, which nobody needs.

    What a fused attention kernel computes a second time does not count.
    """
    num_learned_tokens: int = 0


def our_contenders(settings: BenchmarkSettings) -> Iterator[Contender]:
    """The factorised encoder without TokenLearner, with 8 and 16 tokens after 0, 1/4, 1/2, 3/4; the joint form."""
    yield _ours(REFERENCE, "factorised encoder", settings, "factorised_encoder")
    for after_block in sorted({settings.depth * quarters // 4 for quarters in range(4)}):
        for tokens in (8, 16):
            stage = TokenLearnerConfig(num_tokens=tokens, after_block=after_block)
            title = f"  {tokens} tokens after block {after_block}"
            yield _ours(f"fe_tl{tokens}at{after_block}", title, settings, "factorised_encoder", stage)
    yield _ours("joint", "joint form", settings, "joint")


def _ours(
    key: str,
    title: str,
    settings: BenchmarkSettings,
    form: Literal["factorised_encoder", "joint"],
    stage: TokenLearnerConfig | None = None,
) -> Contender:
    stage = stage or TokenLearnerConfig(num_tokens=0)
    config = ModelConfig(
        form=form,
        size=settings.size,
        depth=settings.depth,
        temporal_depth=settings.temporal_depth,
        tubelet=(TUBELET_FRAMES, PATCH, PATCH),
        token_learner=stage,
    )
    model = build_model(config, settings.clip, NUM_CLASSES)
    assert isinstance(model.head, nn.Linear)
    # The head starts at 0: gradients would be zeros, and a GPU multiplies zeros faster than numbers.
    nn.init.normal_(model.head.weight, std=0.02)
    return _contender(key, title, model, settings, settings.num_frames, stage.num_tokens or 0)


def _contender(
    key: str, title: str, model: nn.Module, settings: BenchmarkSettings, frames_seen: int, learned_tokens: int = 0
) -> Contender:
    """Counts the model; `frames_seen` is 0 where pixels go through weights before the first projection."""
    forward = count_multiply_adds(model, settings.clip)
    first_projection = frames_seen * 3 * settings.frame_size**2 * settings.shape.width
    return Contender(
        key=key,
        title=title,
        model=model,
        multiply_adds=forward,
        train_multiply_adds=3 * forward - first_projection,
        num_learned_tokens=learned_tokens,
    )


class _Adapted(nn.Module):
    """Somebody else's model behind `input_BTCHW -> logits_BK`."""

    def __init__(self, model: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.call = call

    def forward(self, input_BTCHW: Tensor) -> Tensor:
        return self.call(self.model, input_BTCHW)


def _huggingface(settings: BenchmarkSettings) -> Contender:
    """Hugging Face's ViViT, which is the joint form, with fused attention."""
    transformers = importlib.import_module("transformers")
    config = transformers.VivitConfig(
        image_size=settings.frame_size,
        num_frames=settings.num_frames,
        tubelet_size=[TUBELET_FRAMES, PATCH, PATCH],
        hidden_size=settings.shape.width,
        num_hidden_layers=settings.depth,
        num_attention_heads=settings.shape.num_heads,
        intermediate_size=4 * settings.shape.width,
        num_labels=NUM_CLASSES,
        attn_implementation="sdpa",
    )
    model = _Adapted(transformers.VivitForVideoClassification(config), lambda model, clips: model(clips).logits)
    return _contender("huggingface", "Hugging Face ViViT (joint, sdpa)", model, settings, settings.num_frames)


def _vit_pytorch(settings: BenchmarkSettings, fused: bool) -> Contender:
    """vit-pytorch's ViViT, the factorised encoder, with either of its two attentions."""
    vivit: Any = importlib.import_module("vit_pytorch.vivit")
    net = vivit.ViViT(
        image_size=settings.frame_size,
        image_patch_size=PATCH,
        frames=settings.num_frames,
        frame_patch_size=TUBELET_FRAMES,
        num_classes=NUM_CLASSES,
        dim=settings.shape.width,
        spatial_depth=settings.depth,
        temporal_depth=settings.temporal_depth,
        heads=settings.shape.num_heads,
        mlp_dim=4 * settings.shape.width,
        pool="mean",
        dim_head=settings.shape.width // settings.shape.num_heads,
        use_flash_attn=fused,
    )
    model = _Adapted(net, lambda model, clips: model(rearrange(clips, "B T C H W -> B C T H W")))
    key = "vit_pytorch" if fused else "vit_pytorch_written_out"
    title = f"vit-pytorch ViViT (FE, {'sdpa' if fused else 'written out'})"
    return _contender(key, title, model, settings, frames_seen=0)


def _timm(settings: BenchmarkSettings) -> Contender:
    """timm's ViT on every second frame, scores averaged: as many tokens as ours, and no other tokens in common."""
    timm: Any = importlib.import_module("timm")
    net = timm.create_model(
        "vit_base_patch16_224",
        pretrained=False,
        img_size=settings.frame_size,
        embed_dim=settings.shape.width,
        depth=settings.depth,
        num_heads=settings.shape.num_heads,
        num_classes=NUM_CLASSES,
    )
    frames = settings.num_frames // TUBELET_FRAMES
    title = f"timm ViT on {frames} frames"
    return _contender("timm", title, _Adapted(net, _mean_over_frames), settings, frames)


def _mean_over_frames(model: nn.Module, input_BTCHW: Tensor) -> Tensor:
    frames_BTCHW = input_BTCHW[:, ::TUBELET_FRAMES]
    logits = model(rearrange(frames_BTCHW, "B T C H W -> (B T) C H W"))
    return reduce(logits, "(B T) K -> B K", "mean", B=len(input_BTCHW))  # type: ignore[no-any-return]


Builder = Callable[[BenchmarkSettings], Contender]

PEERS: dict[str, tuple[str, tuple[Builder, ...]]] = {
    "huggingface": ("transformers", (_huggingface,)),
    "vit_pytorch": (
        "vit_pytorch",
        (lambda settings: _vit_pytorch(settings, fused=True), lambda settings: _vit_pytorch(settings, fused=False)),
    ),
    "timm": ("timm", (_timm,)),
}
"""Libraries by their names on the command line: the package, and the models that it takes part with."""


def peer_contenders(settings: BenchmarkSettings, peers: Sequence[str]) -> tuple[list[Contender], list[str]]:
    """The models of other libraries, and the names of those that are not installed."""
    contenders, left_out = [], []
    for peer in peers:
        package, builders = PEERS[peer]
        if importlib.util.find_spec(package) is None:
            left_out.append(peer)
        else:
            contenders += [build(settings) for build in builders]
    return contenders, left_out


def compiled(contender: Contender) -> nn.Module:
    """The model through `torch.compile`."""
    # Models of one class share compiled code, each with guards of its own: more than torch allows unless told.
    torch._dynamo.config.recompile_limit = 64
    model: nn.Module = torch.compile(contender.model)  # type: ignore[assignment]
    return model
