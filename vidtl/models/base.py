"""The base class of all video models."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.config.checks import require
from vidtl.errors import UserError
from vidtl.models.attention import make_causal

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


class VideoModel(  # type: ignore[misc]
    nn.Module,
    PyTorchModelHubMixin,
    library_name="vidtl",
    tags=["video-classification"],
    pipeline_tag="video-classification",
):
    """A classifier of clips: `input_BTCHW -> logits_BK`.

    `num_frames` is T, `frame_size` H and W in pixels, `num_classes` K. `save_pretrained`, `from_pretrained` and
    `push_to_hub` are huggingface_hub's and use model directories.
    """

    model_config: ModelConfig
    """Settings with every number filled in; set by `build_model`, needed for saving and exporting."""
    clip_config: ClipConfig
    """Settings of the clips, set together with `model_config`."""
    class_names: tuple[str, ...] = ()
    """Names of the K classes, or empty."""
    multi_label: bool | None = None
    """Any number of classes per clip; None where unknown."""
    elastic_tokens: int = 0
    """S of an elastic TokenLearner, 0 for other models; set by `build_model`."""

    save_directory: ClassVar[Callable[["VideoModel", Path], None]]
    load_published: ClassVar[Callable[[str, ClipConfig | None, int], "VideoModel"]]
    """Functions of modules that build models of all families and therefore import this one."""

    def __init__(self, num_frames: int, frame_size: tuple[int, int], num_classes: int) -> None:
        super().__init__()
        require(num_classes >= 1, "num_classes", num_classes, "1 or more")
        self.clip_shape = (num_frames, 3, *frame_size)
        self.num_classes = num_classes

    def check_input(self, input_BTCHW: Tensor) -> None:
        """Raise a `UserError` for clips of another shape than that of the model."""
        if tuple(input_BTCHW.shape[1:]) != self.clip_shape:
            raise UserError(
                f"input has shape {list(input_BTCHW.shape)}; allowed: [B, T, C, H, W] with T, C, H, W = "
                f"{list(self.clip_shape)}, the clip of the model"
            )

    def no_weight_decay(self) -> set[str]:
        """Return the names of the parameters without weight decay: position embeddings, class tokens, registers."""
        return {name for name, _ in self.named_parameters() if name.endswith(("positions.weight", "cls", "registers"))}

    def layers(self) -> list[list[str]]:
        """Return the layers from input to classifier, each as names (or their beginnings) of its parameters.

        Every parameter belongs to exactly one layer; names that the model lacks are ignored.
        """
        raise NotImplementedError

    def repeated_blocks(self) -> list[nn.Module]:
        """Return the parts with most of the work, to compile and checkpoint one by one."""
        raise NotImplementedError

    def classifier(self) -> tuple[str, nn.Linear]:
        """Return name and module of the last layer."""
        layers = [(name, m) for name, m in self.named_modules() if isinstance(m, nn.Linear)]
        return [(name, layer) for name, layer in layers if layer.out_features == self.num_classes][-1]

    @property
    def num_features(self) -> int:
        """Width of the classifier's input."""
        return self.classifier()[1].in_features

    def forward_features(self, input_BTCHW: Tensor) -> Tensor:
        """Compute the input of the classifier, one vector per clip: `[B, D]`."""
        inputs: list[Tensor] = []
        with self.classifier()[1].register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0])):
            self(input_BTCHW)
        return inputs[0].flatten(1)

    def reset_classifier(self, num_classes: int, class_names: Sequence[str] = ()) -> None:
        """Replace the last layer by one for K other classes, which starts at 0; `multi_label` becomes None.

        UserError where `num_classes` is below 1, or `class_names` has neither as many names nor none.
        """
        fits = num_classes >= 1 and len(class_names) in (0, num_classes)
        require(fits, f"num_classes with {len(class_names)} names", num_classes, "1 or more, each with a name, or none")
        name, old = self.classifier()
        layer = nn.Linear(old.in_features, num_classes, device=old.weight.device, dtype=old.weight.dtype)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        self.set_submodule(name, layer)
        self.num_classes, self.class_names, self.multi_label = num_classes, tuple(class_names), None

    def set_class_prior(self, positive_rates_K: Tensor) -> None:
        """Start an untrained multi-label model at the frequencies of the classes: sigmoid(bias) is the rate.

        `positive_rates_K` are shares of videos, clamped to 0.001 and 0.999. See Lin et al., "Focal loss for dense
        object detection", 2017, section 4.1.
        """
        with torch.no_grad():
            self.classifier()[1].bias.copy_(torch.logit(positive_rates_K.clamp(0.001, 0.999)))

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | Path, *, repo_id: str = "", push_to_hub: bool = False, **options: Any
    ) -> str | None:
        """Write a model directory with a model card; the options are huggingface_hub's.

        Its own method removes the settings of an earlier model before the new ones are written.
        """
        folder = Path(save_directory)
        VideoModel.save_directory(self, folder)
        if not (folder / "README.md").exists():
            self.generate_model_card(**options.get("model_card_kwargs") or {}).save(folder / "README.md")
        return self.push_to_hub(repo_id or folder.name, **options) if push_to_hub else None

    def choose_tokens(self, stage: TokenLearnerConfig) -> None:
        """Use the first `num_tokens` of the TokenLearner's maps; with `elastic`, any part, in causal blocks."""
        if stage.num_tokens:
            encoder: Any = getattr(self, "encoder", self)
            encoder.num_tokens = stage.num_tokens
            if stage.elastic:
                self.elastic_tokens = stage.num_tokens
                make_causal(encoder.blocks[encoder.after_block :])

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        name: str | Path,
        *,
        clip: ClipConfig | None = None,
        num_classes: int = 400,
        revision: str = "",
        num_tokens: int | None = None,
    ) -> Self:
        """Load published weights as the model that they are, in evaluation mode.

        Args:
            name: a model directory, weights of another project, or `owner/name` on the hub of Hugging Face, whose cache
                and environment variables (HF_HOME, HF_TOKEN, HF_HUB_OFFLINE) apply.
            clip: another number of frames or frame size; image models take single frames by default.
            num_classes: of a fresh classifier, where the weights have none.
            revision: branch, tag or commit of the repository.
            num_tokens: of those of an elastic TokenLearner, see `with_num_tokens`.

        UserError: as `read_published`, or the weights are of another model than `cls`.
        """
        model = VideoModel.load_published(f"{name}@{revision}" if revision else str(name), clip, num_classes)
        model = model if num_tokens is None else with_num_tokens(model, num_tokens)
        if not isinstance(model, cls):
            raise UserError(f"{name} holds a {type(model).__name__}; allowed: {cls.__name__} (or use VideoModel)")
        return model.eval()


def token_choices(most: int) -> tuple[int, ...]:
    """List the numbers of tokens that training averages and `--tokens auto` tries: 1, 2, 4, ... and `most`."""
    return (*(2**i for i in range((most - 1).bit_length())), most)


def with_num_tokens(model: VideoModel, num_tokens: int) -> VideoModel:
    """Copy an elastic model as one of its first `num_tokens` tokens, with the same scores bit by bit.

    It computes all maps: kernels round differently for fewer. UserError for a model not elastic, or of fewer tokens.
    """
    count = model.elastic_tokens
    allowed = f"1 to {count}, model.token_learner.num_tokens" if count else "none without model.token_learner.elastic"
    require(1 <= num_tokens <= count, "num_tokens", num_tokens, allowed)
    smaller, stage = copy.deepcopy(model), model.model_config.token_learner
    stage = replace(stage, num_tokens=num_tokens, hidden=stage.hidden or count)
    smaller.choose_tokens(stage)
    smaller.model_config = replace(model.model_config, token_learner=stage)
    return smaller


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode; each module's training flag is restored at the end."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
