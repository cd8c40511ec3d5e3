"""Model directories: what is saved comes back, for every architecture, and mistakes in them are told."""

import json
from dataclasses import replace

import pytest
import torch
from huggingface_hub import hub_mixin

from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig, ViViTConfig
from vidtl.errors import UserError
from vidtl.models import VideoModel, build_model
from vidtl.models.hub import load_model_directory, save_model_directory
from vidtl.models.vivit import ViViT

CLIP = ClipConfig(num_frames=4, frame_size=(16, 24), mean=(0.4, 0.5, 0.6))
CONFIG = ModelConfig(
    vivit=ViViTConfig(
        width=24,
        depth=2,
        num_heads=2,
        temporal_depth=1,
        tubelet=(2, 8, 8),
        token_learner=TokenLearnerConfig(num_tokens=2, after_block=1, version="v1"),
    )
)
NAMES = ("läuft", "steht", "fällt")


@pytest.fixture
def model():
    model = build_model(CONFIG, CLIP, 3)
    torch.nn.init.normal_(model.head.weight)
    return model.eval()


def assert_same_model(loaded, model):
    clip = torch.randn(1, 4, 3, 16, 24)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(clip), model(clip))
    assert loaded.model_config == model.model_config
    assert loaded.clip_config == model.clip_config


def test_a_directory_gives_the_same_model_and_names(model, tmp_path):
    save_model_directory(model, tmp_path / "deep" / "model", NAMES)
    loaded, names = load_model_directory(tmp_path / "deep" / "model")
    assert names == NAMES == loaded.class_names
    assert_same_model(loaded, model)
    assert {path.name for path in (tmp_path / "deep" / "model").iterdir()} == {"config.json", "model.safetensors"}


def test_huggingfaces_methods_read_and_write_the_same_directories(model, tmp_path):
    model.class_names = NAMES
    model.save_pretrained(tmp_path)
    assert "vidtl" in (tmp_path / "README.md").read_text()
    for kind in (ViViT, VideoModel):
        loaded = kind.from_pretrained(tmp_path)
        assert isinstance(loaded, ViViT)
        assert not loaded.training
        assert loaded.class_names == NAMES
        assert_same_model(loaded, model)
    longer = ViViT.from_pretrained(tmp_path, clip=replace(CLIP, num_frames=8))
    assert longer(torch.zeros(1, 8, 3, 16, 24)).shape == (1, 3)
    with pytest.raises(TypeError, match="num_frames"):
        ViViT.from_pretrained(tmp_path, num_frames=8)


def test_push_to_hub_uploads_the_directory(model, monkeypatch):
    uploaded = {}

    class Api:
        def __init__(self, token=None):
            pass

        def create_repo(self, repo_id, **_):
            return type("Repo", (), {"repo_id": repo_id})

        def upload_folder(self, *, repo_id, folder_path, **_):
            uploaded[repo_id] = {path.name: path.read_bytes() for path in folder_path.iterdir()}
            return "url"

    monkeypatch.setattr(hub_mixin, "HfApi", Api)
    model.class_names = NAMES
    assert model.push_to_hub("someone/model") == "url"
    assert uploaded["someone/model"].keys() == {"config.json", "model.safetensors", "README.md"}
    assert json.loads(uploaded["someone/model"]["config.json"])["class_names"] == list(NAMES)


def test_positions_are_resized_for_another_clip(model, tmp_path, caplog):
    save_model_directory(model, tmp_path, NAMES)
    with caplog.at_level("INFO"):
        loaded, _ = load_model_directory(tmp_path, replace(CLIP, num_frames=8, frame_size=(32, 32)))
    assert "encoder.positions.weight: positions resized from a grid of 1x2x3 to 1x4x4" in caplog.text
    assert "temporal_encoder.positions.weight: positions resized from a grid of 2x1x1 to 4x1x1" in caplog.text
    assert loaded(torch.zeros(1, 8, 3, 32, 32)).shape == (1, 3)
    corners = model.encoder.positions.weight.reshape(2, 3, 24)[:, ::2]
    torch.testing.assert_close(loaded.encoder.positions.weight.reshape(4, 4, 24)[::3, ::3], corners)


def edit(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def test_mistakes_in_a_directory_are_told(model, tmp_path):
    with pytest.raises(UserError, match=r"config\.json does not exist"):
        load_model_directory(tmp_path)
    with pytest.raises(UserError, match="class_names has 2 names; allowed: 3"):
        save_model_directory(model, tmp_path, NAMES[:2])
    save_model_directory(model, tmp_path, NAMES)
    edit(tmp_path, lambda config: config["model"]["vivit"].update(dept=3))
    with pytest.raises(
        UserError, match=r"config\.json: unknown key 'model\.vivit\.dept'; did you mean 'model\.vivit\.depth'\?"
    ):
        load_model_directory(tmp_path)
    save_model_directory(model, tmp_path, NAMES)
    edit(tmp_path, lambda config: config["model"]["vivit"].update(depth=3))
    with pytest.raises(UserError, match=r"model\.safetensors does not fit the model: 16 missing: encoder\.blocks\.2"):
        load_model_directory(tmp_path)
    save_model_directory(model, tmp_path, NAMES)
    edit(tmp_path, lambda config: config.pop("num_outputs"))
    with pytest.raises(UserError, match=r"config\.json: the key num_outputs is missing"):
        load_model_directory(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json is no readable JSON file"):
        load_model_directory(tmp_path)


@pytest.mark.parametrize(
    ("section", "name", "value", "words"),
    [
        ("", "num_outputs", "3", "num_outputs is '3'; allowed: int"),
        ("", "num_outputs", True, "num_outputs is True; allowed: int"),
        ("", "class_names", ["a", "b"], "class_names has 2 names; allowed: 3, one per class of the model"),
        ("", "class_names", ["a", "b", None], "class_names is ['a', 'b', None]; allowed: tuple[str, ...]"),
        ("", "multi_label", 0, "multi_label is 0; allowed: bool | None"),
        ("clip", "frame_size", 16, "clip.frame_size is 16; allowed: tuple[int, int]"),
        ("clip", "frame_size", [16], "clip.frame_size is [16]; allowed: tuple[int, int]"),
        ("clip", "mean", ["a", 0, 0], "clip.mean is ['a', 0, 0]; allowed: tuple[float, float, float]"),
        ("model", "architecture", "vivitt", "model.architecture is 'vivitt'; did you mean 'vivit'?"),
        ("model", "vivit", 3, "model.vivit is 3; allowed: a section, names with a value each"),
        ("model.vivit", "depth", "3", "model.vivit.depth is '3'; allowed: int"),
        ("model.vivit", "form", "jiont", "model.vivit.form is 'jiont'; did you mean 'joint'?"),
        ("model.vivit", "pooling", "avg", "model.vivit.pooling is 'avg'; allowed: cls, mean, max, sum"),
    ],
)
def test_a_value_that_cannot_be_is_told_with_its_file_and_key(model, tmp_path, section, name, value, words):
    save_model_directory(model, tmp_path, NAMES)

    def change(config):
        for part in filter(None, section.split(".")):
            config = config[part]
        config[name] = value

    edit(tmp_path, change)
    with pytest.raises(UserError) as error:
        load_model_directory(tmp_path)
    assert str(error.value) == f"{tmp_path / 'config.json'}: {words}"


def test_whole_numbers_and_absent_keys_are_fine(model, tmp_path):
    save_model_directory(model, tmp_path, NAMES)
    edit(tmp_path, lambda config: config["clip"].update(target_fps=0, mean=[0, 0, 0.5]))
    edit(tmp_path, lambda config: config.pop("multi_label"))
    loaded, _ = load_model_directory(tmp_path)
    assert loaded.clip_config.mean == (0, 0, 0.5)
    assert loaded.multi_label is None
