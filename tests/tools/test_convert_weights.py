"""`tools/convert_weights.py`: outputs and pixels of the authors, names, and one line for files without weights."""

import json
import re
from pathlib import Path

import convert_weights
import numpy as np
import profile_model
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from tests.models.published import assert_close
from tests.models.test_hub import put
from tests.models.test_t2t import golden_clip, golden_config
from tests.refusals import assert_refusal
from vidtl.models import load_model_directory
from vidtl.models.weights.published import load_published

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n"


@pytest.mark.parametrize("side", [None, 224])
def test_t2t_gives_the_authors_logits(golden, tmp_path, run_main, side):
    folder, source = golden / "t2t_vit_performer", tmp_path / "81.5_T2T_ViT_14.pth.tar"
    state = {f"module.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    other = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    torch.save({"state_dict": other, "state_dict_ema": state, "epoch": 310}, source)
    size = ["--clip.frame_size", f"[{side},{side}]"] if side else []
    options = ["--output", tmp_path / "model", "--model.num_heads", golden_config(folder).num_heads, *size]
    output, _ = run_main(convert_weights.main, source, *options)
    assert re.search(r"^resized +(\d+)$", output, re.MULTILINE)[1] == str(int(bool(side)))
    model = load_model_directory(tmp_path / "model").eval()
    clip, size = model.clip_config, side or golden_clip(folder).frame_size[0]
    assert (clip.num_frames, clip.frame_size) == (1, (size, size))
    assert clip.short_side == pytest.approx(size / 0.9, abs=5)  # the crop is about 0.9 of it, and sides are even
    assert (clip.mean, clip.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    if not side:
        with np.load(folder / "io.npz") as io, torch.inference_mode():
            assert_close(model(torch.from_numpy(io["images"])[:, None]), torch.from_numpy(io["logits"]))


@torch.no_grad()
def test_a_flax_vivit_gives_the_reference_output(golden, tmp_path, run_main):
    source = golden / "vivit_token_learner_v11.npz"
    with np.load(source) as archive:
        video, output = torch.from_numpy(archive["input:0"]), torch.from_numpy(archive["output"])
        after_block = json.loads(archive["meta"].tobytes())["token_learner_at"]
    names = [f"class {index}" for index in range(output.shape[1])]
    (tmp_path / "names.txt").write_text("\n".join(names))
    options = ["--output", tmp_path / "out", "--class_names", tmp_path / "names.txt"]
    options += ["--clip.num_frames", len(video[0]), "--clip.frame_size", list(video.shape[2:4])]
    run_main(convert_weights.main, source, *options, "--model.token_learner.after_block", after_block)
    model = load_model_directory(tmp_path / "out").eval()
    assert model.class_names == tuple(names)
    assert_close(model(video.permute(0, 1, 4, 2, 3)), output)


def test_a_name_of_the_hub(golden, tmp_path, run_main, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    folder = golden / "foundation/videomae_pretraining"
    files = {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}
    put(tmp_path, "owner/name", {**files, "README.md": b"---\nlicense: cc-by-nc-4.0\n---\n"})
    stage = ("--model.token_learner.num_tokens", 2, "--model.token_learner.after_block", 1)
    options = ("--output", tmp_path / "out", "--num_classes", 5, *stage)
    output, _ = run_main(convert_weights.main, "owner/name", *options)
    assert re.search(r"^source +owner/name .*\nlicense +cc-by-nc-4.0\n", output, re.MULTILINE)
    loaded, fresh, unused = re.findall(r"^(?:loaded|fresh|unused) .*\n((?: .*\n)*)", output, re.MULTILINE)
    assert "encoder.blocks.*.attn.q.weight" in loaded
    assert {name.partition("s.*")[0] for name in fresh.split()} == {"encoder.token_learner", "head.weight", "head.bias"}
    assert "decoder.head.weight" in unused
    model = load_model_directory(tmp_path / "out")
    assert model.num_classes == 5
    weight = load_file(folder / "model.safetensors")["videomae.encoder.layer.0.output.dense.weight"]
    assert torch.equal(model.encoder.blocks[0].mlp.fc2.weight, weight)
    shown, _ = run_main(profile_model.main, "--pretrained", "owner/name", "--num_classes", 5, *stage)
    assert f"{sum(parameter.numel() for parameter in model.parameters()):,}" in shown


@pytest.fixture
def refused(run_main, tmp_path):
    """Convert a file and expect one line that names the file and all parts."""

    def convert(source, *parts, options=(), output="model"):
        options = ("--output", tmp_path / output, *options)
        _, errors = run_main(convert_weights.main, source, *options, code=2)
        assert_refusal(errors, *parts)
        assert "torch.load" not in errors  # advice of torch to unpickle
        assert "weights_only" not in errors
        assert not (tmp_path / output).is_dir()

    return convert


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.pth", b"", "empty"),
        ("text.pth", b"hello world\n" * 100, "no torch file"),
        ("damaged.pth", b"\x80\x02hello", "no torch file of tensors alone"),
        ("text.npz", b"hello world\n" * 100, "no whole .npz file"),
        *((f"pointer{suffix}", POINTER, "Git LFS") for suffix in (".pth", ".npz", ".safetensors")),
    ],
)
def test_files_without_weights(refused, tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, tmp_path / name, reason)


def test_torch_files_of_objects_and_damaged_archives(refused, tmp_path):
    torch.save({"path": Path("somewhere")}, tmp_path / "objects.pth")
    refused(tmp_path / "objects.pth", "objects.pth", "nothing else is unpickled", "Unsupported global")
    np.savez(tmp_path / "whole.npz", weight=np.arange(1000))
    content = bytearray((tmp_path / "whole.npz").read_bytes())
    content[500:540] = bytes(40)
    (tmp_path / "whole.npz").write_bytes(content)
    refused(tmp_path / "whole.npz", "whole.npz", "no readable .npz file")


def test_weights_without_a_classifier(refused, golden, tmp_path):
    def save_without(source, classifier, target):
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
    assert load_published(str(tmp_path / "base"), num_classes=5).class_names == ()  # config.json has 7 of them


def test_invalid_options(refused, golden, tmp_path):
    source = golden / "hf_vivit_transformers_v4"
    refused(source, "--num_classes", "'0'", "1 or more", options=("--num_classes", 0))
    refused(source, "clip.num_frames", "0", "1 or more", options=("--clip.num_frames", 0))
    flax = golden / "vivit_token_learner_v11.npz"
    refused(flax, flax, "model.token_learner.after_block")
    file = tmp_path / "names.txt"
    file.write_bytes(b"\xff\xfe\x00")
    refused(source, file, "no empty directory", output="names.txt")
    refused(source, file, "UTF-8", options=("--class_names", file))
