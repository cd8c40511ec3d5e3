"""`tools/convert_weights.py`: outputs and pixels of the authors' T2T-ViT, and one line for files without weights."""

from collections.abc import Callable
from pathlib import Path

import convert_weights
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.environment import RunMain
from tests.models.test_t2t import golden_clip, golden_config
from tests.refusals import assert_refusal
from vidtl.models import load_model_directory

Refused = Callable[..., None]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n"


@pytest.mark.parametrize(
    ("module", "wrapped", "side"),
    [("performer", True, None), ("transformer", False, None), ("performer", False, 224)],
)
def test_t2t_gives_the_authors_logits_and_pixels(
    golden: Path, tmp_path: Path, run_main: RunMain, module: str, wrapped: bool, side: int | None
) -> None:
    folder = golden / f"t2t_vit_{module}"
    source = folder / "model.safetensors"
    if wrapped:
        state = {f"module.{name}": tensor for name, tensor in load_file(source).items()}
        other = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
        source = tmp_path / "81.5_T2T_ViT_14.pth.tar"
        torch.save({"state_dict": other, "state_dict_ema": state, "epoch": 310}, source)
    options = ["--num_heads", golden_config(folder).num_heads, *(["--frame_size", side, side] if side else [])]
    output, _ = run_main(convert_weights.main, source, tmp_path / "model", *options)
    assert ("resized (1):" in output) is bool(side)
    model = load_model_directory(tmp_path / "model").eval()
    clip, size = model.clip_config, side or golden_clip(folder).frame_size[0]
    assert (clip.num_frames, clip.frame_size) == (1, (size, size))
    assert clip.short_side == pytest.approx(size / 0.9, abs=2)  # the crop is 0.9 of it, and sides are even
    assert (clip.mean, clip.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    if not side:
        with np.load(folder / "io.npz") as io, torch.inference_mode():
            reference = torch.from_numpy(io["logits"])
            error = (model(torch.from_numpy(io["images"])[:, None]) - reference).abs().max()
        assert error <= 1e-5 * max(1, reference.abs().max())


@pytest.fixture
def refused(run_main: RunMain, tmp_path: Path) -> Refused:
    """Convert a file and expect one line that names the file and all parts."""

    def convert(source: Path, *parts: object, options: tuple[object, ...] = (), output: str = "model") -> None:
        _, errors = run_main(convert_weights.main, source, tmp_path / output, *options, code=2)
        assert_refusal(errors, *parts)
        assert "torch.load" not in errors  # advice of torch to unpickle
        assert "weights_only" not in errors
        assert not (tmp_path / output).is_dir()

    return convert


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.npz", b"", "empty"),
        ("empty.pth", b"", "empty"),
        ("text.pth", b"hello world\n" * 100, "no torch file"),
        ("damaged.pth", b"\x80\x02hello", "no torch file of tensors alone"),
        ("text.npz", b"hello world\n" * 100, "no whole .npz file"),
        *((f"pointer{suffix}", POINTER, "Git LFS") for suffix in (".pth", ".npz", ".safetensors")),
    ],
)
def test_files_without_weights(refused: Refused, tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, tmp_path / name, reason)


def test_torch_files_of_objects_and_damaged_archives(refused: Refused, tmp_path: Path) -> None:
    torch.save({"path": Path("somewhere")}, tmp_path / "objects.pth")
    refused(tmp_path / "objects.pth", "objects.pth", "nothing else is unpickled", "Unsupported global")
    np.save(tmp_path / "array.npy", np.zeros(3))
    refused((tmp_path / "array.npy").rename(tmp_path / "array.npz"), "array.npz", "no whole .npz file")
    np.savez(tmp_path / "whole.npz", weight=np.arange(1000))
    content = bytearray((tmp_path / "whole.npz").read_bytes())
    content[500:540] = bytes(40)
    (tmp_path / "whole.npz").write_bytes(content)
    refused(tmp_path / "whole.npz", "whole.npz", "no readable .npz file")


def test_weights_without_a_classifier(refused: Refused, golden: Path, tmp_path: Path) -> None:
    def save_without(source: str, classifier: str, target: str) -> None:
        state = load_file(golden / source / "model.safetensors")
        save_file({name: tensor for name, tensor in state.items() if classifier not in name}, tmp_path / target)

    (tmp_path / "base").mkdir()
    config = golden / "hf_vivit_transformers_v4" / "config.json"
    (tmp_path / "base" / "config.json").write_bytes(config.read_bytes())
    save_without("hf_vivit_transformers_v4", "classifier", "base/model.safetensors")
    save_without("t2t_vit_performer", "head.", "t2t.safetensors")
    with np.load(golden / "vivit_joint_token.npz") as params:
        np.savez(tmp_path / "flax.npz", **{name: params[name] for name in params.files if "projection" not in name})
    for name in ("base", "flax.npz", "t2t.safetensors"):
        refused(tmp_path / name, tmp_path / name, "no classifier")


def test_invalid_options(refused: Refused, golden: Path, tmp_path: Path) -> None:
    source = golden / "hf_vivit_transformers_v4"
    for option in ("--num_frames", "--num_heads", "--num_classes"):
        refused(source, option, "'0'", "1 or more", options=(option, 0))
    file = tmp_path / "names.txt"
    file.write_bytes(b"\xff\xfe\x00")
    refused(source, file, "no empty directory", output="names.txt")
    refused(source, file, "UTF-8", options=("--class_names", file))
