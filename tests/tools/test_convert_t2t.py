"""The authors' T2T-ViT files through the command line: the model directory gives the authors' logits."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.models.t2t_golden import golden_clip, golden_config
from vidtl.models import load_model_directory


@pytest.mark.parametrize("wrapped", [False, True], ids=["safetensors", "pth.tar"])
@pytest.mark.parametrize("module", ["performer", "transformer"])
def test_converted_t2t_gives_the_authors_logits(
    golden: Path, tmp_path: Path, run_main: Callable[..., tuple[int, str, str]], module: str, wrapped: bool
) -> None:
    import convert_weights

    folder = golden / f"t2t_vit_{module}"
    source = folder / "model.safetensors"
    if wrapped:
        state = {f"module.{name}": tensor for name, tensor in load_file(source).items()}
        other = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
        source = tmp_path / "81.5_T2T_ViT_14.pth.tar"
        torch.save({"state_dict": other, "state_dict_ema": state, "epoch": 310}, source)
    with np.load(folder / "io.npz") as io:
        images_BCHW, reference = torch.from_numpy(io["images"]), torch.from_numpy(io["logits"])
    num_heads = json.loads((folder / "config.json").read_text())["num_heads"]
    options = ["--frame_size", *images_BCHW.shape[-2:], "--num_heads", num_heads]
    code, _, errors = run_main(convert_weights.main, source, tmp_path / "model", *options)
    assert code == 0, errors
    model = load_model_directory(tmp_path / "model")
    with torch.inference_mode():
        logits = model.eval()(images_BCHW[:, None])
    assert (logits - reference).abs().max() <= 1e-5 * max(1, reference.abs().max())


@pytest.mark.parametrize("side", [None, 224])
def test_a_converted_t2t_gets_the_authors_pixels(
    golden: Path, tmp_path: Path, run_main: Callable[..., tuple[int, str, str]], side: int | None
) -> None:
    import convert_weights

    folder = golden / "t2t_vit_performer"
    config = golden_config(folder)
    asked = ("--frame_size", side, side) if side else ()
    size = side or golden_clip(folder).frame_size[0]
    source = folder / "model.safetensors"
    options = ("--num_heads", config.num_heads, *asked)
    code, output, errors = run_main(convert_weights.main, source, tmp_path / "model", *options)
    assert code == 0, errors
    assert ("resized (1):" in output) is bool(asked)
    clip = load_model_directory(tmp_path / "model").clip_config
    assert (clip.num_frames, clip.frame_size) == (1, (size, size))
    assert clip.short_side == pytest.approx(size / 0.9, abs=2)  # the crop is 0.9 of it, and sides are even
    assert (clip.mean, clip.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
