"""What every video model shares, and how it is saved to a directory and shared through the Hugging Face hub.

A model directory holds `model.safetensors` and `config.json` (the model's settings, the clip's shape, the class names).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import torch
from huggingface_hub import PyTorchModelHubMixin, snapshot_download
from safetensors.torch import save_file
from torch import Tensor, nn

from vidtl.config import ClipConfig, ModelConfig
from vidtl.config.load import Document, from_document
from vidtl.errors import UserError
from vidtl.models.blocks import FactorisedSelfAttentionBlock, TransformerBlock
from vidtl.models.position import PositionEmbedding
from vidtl.models.t2t import PerformerTokenLayer, TransformerTokenLayer
from vidtl.models.weights.files import read_json, read_safetensors
from vidtl.models.weights.report import SourceWeights, load_weights

REPEATED = (TransformerBlock, FactorisedSelfAttentionBlock, PerformerTokenLayer, TransformerTokenLayer)
"""Blocks, and the layers inside tokens-to-token modules, which see the longest rows of tokens."""

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


class VideoModel(  # type: ignore[misc]
    nn.Module,
    PyTorchModelHubMixin,
    library_name="vidtl",
    tags=["video-classification"],
    pipeline_tag="video-classification",
):
    """A classifier of clips, `input_BTCHW -> logits_BK`, that knows its settings and its class names.

    `save_pretrained`, `from_pretrained` and `push_to_hub` are huggingface_hub's and read and write model directories.
    """

    def __init__(self, model_config: ModelConfig, clip_config: ClipConfig, num_classes: int) -> None:
        super().__init__()
        if num_classes < 1:
            raise UserError(f"num_classes is {num_classes}; allowed: 1 or more")
        self.model_config = model_config
        self.clip_config = clip_config
        self.num_classes = num_classes
        self.class_names: tuple[str, ...] = ()
        self.multi_label: bool | None = None  # whether a clip may have any number of classes; None: not known

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay leaves alone: position embeddings and class tokens."""
        return {name for name, _ in self.named_parameters() if name.endswith(("positions.weight", "cls"))}

    def layers(self) -> list[list[str]]:
        """Layers from the input to the classifier, each as the names (or their beginnings) of its parameters.

        Every parameter belongs to exactly one layer; names that this model lacks do no harm.
        """
        raise AssertionError(f"{type(self).__name__} has no order of layers")

    def repeated_blocks(self) -> list[nn.Module]:
        """The parts that most of the work is in, alike as far as possible: compiled and checkpointed one by one."""
        return [part for part in self.modules() if isinstance(part, REPEATED)]

    def classifier(self) -> tuple[str, nn.Linear]:
        """Name and module of the layer that gives the scores."""
        layers = [(name, m) for name, m in self.named_modules() if isinstance(m, nn.Linear)]
        return [(name, layer) for name, layer in layers if layer.out_features == self.num_classes][-1]

    def set_class_prior(self, positive_rates_K: Tensor) -> None:
        """Let an untrained multi-label model begin at the frequencies of the classes: sigmoid(bias) is the rate.

        From the usual zero bias, an optimizer spends its first hundreds of steps on moving all logits down together,
        and the features may not survive that (Lin et al., "Focal loss for dense object detection", 2017, section 4.1).

        Args:
            positive_rates_K: share of training videos that have each class; kept within 0.001 and 0.999.
        """
        with torch.no_grad():
            self.classifier()[1].bias.copy_(torch.logit(positive_rates_K.clamp(0.001, 0.999)))

    def _save_pretrained(self, save_directory: Path) -> None:
        save_model_directory(self, save_directory, self.class_names)

    @classmethod
    def _from_pretrained(  # type: ignore[override]  # no **kwargs: an unknown argument is an error
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        clip: ClipConfig | None = None,
    ) -> Self:
        directory = model_id
        if not Path(model_id).is_dir():
            directory = snapshot_download(
                model_id,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
                allow_patterns=[CONFIG_FILE, WEIGHTS_FILE],
            )
        model, _ = load_model_directory(Path(directory), clip)
        if not isinstance(model, cls):
            raise UserError(
                f"{model_id} holds a {type(model).__name__}; allowed here: {cls.__name__} (or use VideoModel)"
            )
        return model.eval()


def save_model_directory(model: VideoModel, directory: Path, class_names: Sequence[str]) -> None:
    """Writes `config.json` and `model.safetensors` into `directory`, which is made where it does not exist.

    Raises:
        UserError: the number of names is neither 0 nor the model's number of classes.
    """
    _check_class_names(class_names, model.num_classes)
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "model": asdict(model.model_config),
        "clip": asdict(model.clip_config),
        "num_outputs": model.num_classes,
        "class_names": list(class_names),
        "multi_label": model.multi_label,
    }
    (directory / CONFIG_FILE).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, directory / WEIGHTS_FILE, metadata={"format": "pt"})


def load_model_directory(directory: Path, clip: ClipConfig | None = None) -> tuple[VideoModel, tuple[str, ...]]:
    """The model and its class names, read from a model directory; needs no network.

    Args:
        directory: holds `config.json` and `model.safetensors`.
        clip: another number of frames or frame size than the model was saved with; learned positions are resized.

    Raises:
        UserError: a file is missing, unreadable or does not fit the other.
    """
    from vidtl.models import build_model  # it is made of models that derive from the class above

    saved = read_model_config(directory)
    model = build_model(saved.model, clip or saved.clip, saved.num_outputs)
    load_weights(model, read_model_weights(directory))
    model.class_names = saved.class_names
    model.multi_label = saved.multi_label
    return model, saved.class_names


def read_model_weights(directory: Path) -> SourceWeights:
    """The tensors of a model directory and the grids of their positions."""
    from vidtl.models import build_model

    saved = read_model_config(directory)
    with torch.device("meta"):
        twin = build_model(saved.model, saved.clip, saved.num_outputs)
    grids = {
        f"{name}.weight": module.grid for name, module in twin.named_modules() if isinstance(module, PositionEmbedding)
    }
    path = directory / WEIGHTS_FILE
    return SourceWeights(source=str(path), state=read_safetensors(path), grids=grids)


@dataclass(frozen=True, kw_only=True)
class SavedConfig:
    """`config.json` of a model directory."""

    model: ModelConfig
    clip: ClipConfig
    num_outputs: int
    """Not `num_classes`: huggingface_hub passes keys named like an argument of the model on to `_from_pretrained`."""
    class_names: tuple[str, ...]
    multi_label: bool | None = None
    """None in directories that do not say, such as converted weights."""

    def __post_init__(self) -> None:
        _check_class_names(self.class_names, self.num_outputs)


def _check_class_names(names: Sequence[str], num_classes: int) -> None:
    if names and len(names) != num_classes:
        raise UserError(f"class_names has {len(names)} names; allowed: {num_classes}, one per class of the model")


def read_model_config(directory: Path) -> SavedConfig:
    """`config.json`, with an error that names the key where it does not fit this version."""
    path = directory / CONFIG_FILE
    return from_document(SavedConfig, Document(read_json(path), str(path)))
