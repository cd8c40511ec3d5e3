"""Models to compare, ours and those of other libraries: `[B, T, C, H, W]` clips, the same sizes, random weights."""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from einops import rearrange, reduce
from torch import Tensor, nn

from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.config.checks import require
from vidtl.config.model import ARCHITECTURES
from vidtl.models import build_model
from vidtl.models.complexity import count_multiply_adds

PATCH = 16
TUBELET_FRAMES = 2
NUM_CLASSES = 400

SIZES = ARCHITECTURES["vivit"].sizes
"""Width and heads by letter."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of clips and of X/16x2, with `depth` spatial blocks and a third as many temporal ones, as in 12 + 4."""

    size: str = "B"
    depth: int = 12
    batch: int = 1
    num_frames: int = 32
    frame_size: int = 224

    def __post_init__(self) -> None:
        for name, step, least in (
            ("depth", 1, 1),
            ("batch", 1, 1),
            ("num_frames", TUBELET_FRAMES, TUBELET_FRAMES),
            ("frame_size", PATCH, 4 * PATCH),  # so that 16 tokens can be learned from a timestep
        ):
            value = getattr(self, name)
            require(value >= least and value % step == 0, f"--{name}", value, f"multiples of {step} from {least} on")

    @property
    def clip(self) -> ClipConfig:
        side = (self.frame_size, self.frame_size)
        return ClipConfig(num_frames=self.num_frames, frame_size=side, short_side=max(256, self.frame_size))

    @property
    def temporal_depth(self) -> int:
        return max(1, self.depth // 3)

    @property
    def width(self) -> int:
        return int(SIZES[self.size]["width"])

    @property
    def num_heads(self) -> int:
        return int(SIZES[self.size]["num_heads"])


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A model with its multiply-adds of one clip; training takes three passes without the gradient of the pixels."""

    key: str
    title: str
    model: nn.Module
    multiply_adds: int
    train_multiply_adds: int


def our_contenders(sizes: Sizes, quarters: Sequence[int] = range(4)) -> Iterator[Contender]:
    """Yield the factorized encoder (the reference), with TokenLearner after these quarters, and the joint form."""
    yield _ours("fe", "factorized encoder", sizes)
    for after_block in sorted({sizes.depth * number // 4 for number in quarters}):
        for tokens in (8, 16):
            title = f"  {tokens} tokens after block {after_block}"
            yield _ours(f"fe_tl{tokens}at{after_block}", title, sizes, num_tokens=tokens, after_block=after_block)
    yield _ours("joint", "joint form", sizes, form="joint")


def _ours(
    key: str, title: str, sizes: Sizes, *, form: str = "factorised_encoder", num_tokens: int = 0, after_block: int = 0
) -> Contender:
    config = ModelConfig(
        form=form,  # type: ignore[arg-type]
        size=sizes.size,
        depth=sizes.depth,
        temporal_depth=sizes.temporal_depth,
        tubelet=(TUBELET_FRAMES, PATCH, PATCH),
        token_learner=TokenLearnerConfig(num_tokens=num_tokens, after_block=after_block),
    )
    model = build_model(config, sizes.clip, NUM_CLASSES)
    nn.init.normal_(model.classifier()[1].weight, std=0.02)  # initially 0, and products with zeros are faster on GPUs
    return _counted(key, title, model, sizes, sizes.num_frames)


def _counted(key: str, title: str, model: nn.Module, sizes: Sizes, frames_without_gradient: int) -> Contender:
    """Count a model whose first projection has so many frames as input, which need no gradient."""
    forward = count_multiply_adds(model, sizes.clip)
    train = 3 * forward - frames_without_gradient * 3 * sizes.frame_size**2 * sizes.width
    return Contender(key=key, title=title, model=model, multiply_adds=forward, train_multiply_adds=train)


class _Adapted(nn.Module):
    """A model of another library as `input_BTCHW -> logits_BK`."""

    def __init__(self, model: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.call = call

    def forward(self, input_BTCHW: Tensor) -> Tensor:
        return self.call(self.model, input_BTCHW)


def _huggingface(sizes: Sizes) -> Iterator[Contender]:
    """Yield Hugging Face's ViViT: the joint form with fused attention, and the exact GELU as in all others."""
    transformers: Any = importlib.import_module("transformers")
    config = transformers.VivitConfig(
        image_size=sizes.frame_size,
        num_frames=sizes.num_frames,
        tubelet_size=[TUBELET_FRAMES, PATCH, PATCH],
        hidden_size=sizes.width,
        num_hidden_layers=sizes.depth,
        num_attention_heads=sizes.num_heads,
        intermediate_size=4 * sizes.width,
        hidden_act="gelu",
        num_labels=NUM_CLASSES,
        attn_implementation="sdpa",
    )
    model = _Adapted(transformers.VivitForVideoClassification(config), lambda model, clips: model(clips).logits)
    yield _counted("huggingface", "Hugging Face ViViT (joint, sdpa)", model, sizes, sizes.num_frames)


def _vit_pytorch(sizes: Sizes) -> Iterator[Contender]:
    """Yield vit-pytorch's ViViT, a factorized encoder, with each of its two attentions."""
    vivit: Any = importlib.import_module("vit_pytorch.vivit")
    for key, attention in (("vit_pytorch", "sdpa"), ("vit_pytorch_eager", "eager")):
        net = vivit.ViViT(
            image_size=sizes.frame_size,
            image_patch_size=PATCH,
            frames=sizes.num_frames,
            frame_patch_size=TUBELET_FRAMES,
            num_classes=NUM_CLASSES,
            dim=sizes.width,
            spatial_depth=sizes.depth,
            temporal_depth=sizes.temporal_depth,
            heads=sizes.num_heads,
            mlp_dim=4 * sizes.width,
            pool="mean",
            dim_head=sizes.width // sizes.num_heads,
            use_flash_attn=attention == "sdpa",
        )
        model = _Adapted(net, lambda model, clips: model(rearrange(clips, "B T C H W -> B C T H W")))
        title = f"vit-pytorch ViViT (FE, {attention})"
        yield _counted(key, title, model, sizes, 0)  # patches pass through a norm before the projection


def _timm(sizes: Sizes) -> Iterator[Contender]:
    """Yield timm's ViT on every second frame with averaged scores: as many tokens as ours in each block."""
    timm: Any = importlib.import_module("timm")
    net = timm.create_model(
        "vit_base_patch16_224",
        pretrained=False,
        img_size=sizes.frame_size,
        embed_dim=sizes.width,
        depth=sizes.depth,
        num_heads=sizes.num_heads,
        num_classes=NUM_CLASSES,
    )
    frames = sizes.num_frames // TUBELET_FRAMES
    yield _counted("timm", f"timm ViT on {frames} frames", _Adapted(net, _mean_over_frames), sizes, frames)


def _mean_over_frames(model: nn.Module, input_BTCHW: Tensor) -> Tensor:
    frames_BTCHW = input_BTCHW[:, ::TUBELET_FRAMES]
    logits = model(rearrange(frames_BTCHW, "B T C H W -> (B T) C H W"))
    return reduce(logits, "(B T) K -> B K", "mean", B=len(input_BTCHW))  # type: ignore[no-any-return]


PEERS: dict[str, tuple[str, Callable[[Sizes], Iterator[Contender]]]] = {
    "huggingface": ("transformers", _huggingface),
    "vit_pytorch": ("vit_pytorch", _vit_pytorch),
    "timm": ("timm", _timm),
}
"""Package and models of each library."""


def peer_contenders(sizes: Sizes, peers: Sequence[str]) -> tuple[list[Contender], list[str]]:
    """Build the models of other libraries; also return the names of those that are not installed."""
    missing = [peer for peer in peers if importlib.util.find_spec(PEERS[peer][0]) is None]
    return [model for peer in peers if peer not in missing for model in PEERS[peer][1](sizes)], missing
