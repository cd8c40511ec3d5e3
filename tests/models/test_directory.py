"""Model directories: round trips of every family, and errors that name file and key."""

import json
import os
import resource
import shutil
import signal
from dataclasses import replace

import pytest
import torch

from tests.refusals import refused
from tests.stress.outcome import KillInSave, ending_of, in_child
from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.models import VideoModel, build_model, load_model_directory, save_model_directory
from vidtl.models.vivit import ViViT
from vidtl.models.weights.pretrained import load_pretrained
from vidtl.models.weights.published import read_published

CLIP = ClipConfig(num_frames=4, frame_size=(16, 24), mean=(0.4, 0.5, 0.6))
STAGE = TokenLearnerConfig(num_tokens=2, after_block=1, version="v1")
CONFIG = ModelConfig(width=24, depth=2, num_heads=2, temporal_depth=1, tubelet=(2, 8, 8), token_learner=STAGE)
NAMES = ("läuft", "steht", "fällt")
IMAGE = ClipConfig(num_frames=1, frame_size=(48, 48))
MVIT_CLIP = ClipConfig(num_frames=16, frame_size=(32, 32))
FAMILIES = {
    "vivit": (CONFIG, CLIP),
    "vivit_background": (CONFIG, replace(CLIP, background=True, short_side=0, std=(1.0, 1.0, 1.0))),
    "t2t_vit": (ModelConfig(architecture="t2t_vit", width=24, depth=1, num_heads=2, token_width=8), IMAGE),
    "mini_vit": (ModelConfig(architecture="mini_vit", width=16, head_width=8), IMAGE),
    "mini_vit_t2t": (ModelConfig(architecture="mini_vit", tokenizer="t2t_performer", width=16), IMAGE),
    "x3d_xs": (ModelConfig(architecture="pytorchvideo", size="x3d_xs"), replace(IMAGE, num_frames=4)),
    "mvit": (ModelConfig(architecture="pytorchvideo", size="mvit_b_16x4"), MVIT_CLIP),
}


@pytest.fixture
def model():
    model = build_model(CONFIG, CLIP, 3)
    torch.nn.init.normal_(model.head.weight)
    model.class_names = NAMES
    return model.eval()


def assert_same_model(loaded, model):
    clips = torch.randn(1, *model.clip_shape)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(clips), model.eval()(clips))
    assert (loaded.model_config, loaded.clip_config) == (model.model_config, model.clip_config)
    assert (loaded.class_names, loaded.multi_label) == (model.class_names, model.multi_label)
    grads = [{name: p.requires_grad for name, p in each.named_parameters()} for each in (loaded, model)]
    assert grads[0] == grads[1]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_directory_gives_the_same_model_and_takes_a_new_classifier(name, tmp_path):
    config, clip = FAMILIES[name]
    model = build_model(config, clip, 3)
    torch.nn.init.normal_(model.classifier()[1].weight)
    model.class_names, model.multi_label = NAMES, True
    folder = tmp_path / "deep" / "model"
    save_model_directory(model, folder)
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert_same_model(load_model_directory(folder), model)
    target = build_model(config, clip, 7)
    head, layer = target.classifier()
    torch.nn.init.ones_(layer.weight)
    report = load_pretrained(target, folder, new_head=True)
    assert set(report.missing) == set(report.unused) == {f"{head}.weight", f"{head}.bias"}
    assert (layer.weight == 1).all()
    saved = model.state_dict()
    assert all(torch.equal(tensor, saved[k]) for k, tensor in target.state_dict().items() if head not in k)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_reset_classifier_starts_at_0_and_is_saved_with_its_classes(name, tmp_path):
    model = build_model(*FAMILIES[name], num_classes=3).eval()
    model.class_names, model.multi_label, widths = NAMES, True, []
    model.classifier()[1].register_forward_pre_hook(lambda _, inputs: widths.append(inputs[0].shape[-1]))
    clips = torch.randn(1, *model.clip_shape)
    model(clips)
    assert widths == [model.num_features]
    for count, names in ((0, ()), (2, NAMES)):
        with refused("num_classes", count, len(names)):
            model.reset_classifier(count, names)
    model.reset_classifier(2, ["neu", "alt"])
    assert torch.equal(model(clips), torch.zeros(1, 2))
    torch.nn.init.normal_(model.classifier()[1].weight)
    model.save_pretrained(tmp_path)
    loaded = VideoModel.from_pretrained(tmp_path)
    assert_same_model(loaded, model)
    assert (loaded.num_classes, loaded.class_names, loaded.multi_label) == (2, ("neu", "alt"), None)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("own", [("fällt", "läuft", "steht"), ("neu", "fällt", "alt", "läuft")])
def test_rows_of_the_classifier_follow_the_class_names(name, own, tmp_path, caplog):
    model, target = (build_model(*FAMILIES[name], num_classes=count) for count in (3, len(own)))
    source, layer = (each.classifier()[1] for each in (model, target))
    model.class_names, target.class_names = NAMES, own
    for number, each in enumerate((source, layer)):
        torch.nn.init.normal_(each.weight)
        torch.nn.init.constant_(each.bias, float(number))
    fresh = {key: tensor.clone() for key, tensor in layer.state_dict().items()}
    save_model_directory(model, tmp_path)
    load_pretrained(target, tmp_path)
    for key, tensor in layer.state_dict().items():
        for row, each in enumerate(own):
            known = source.state_dict()[key][NAMES.index(each)] if each in NAMES else fresh[key][row]
            assert torch.equal(tensor[row], known), (key, each)
    new = [each for each in own if each not in NAMES]
    assert [record.args[-1] for record in caplog.records if record.levelname == "WARNING"] == (
        [", ".join(map(repr, new))] if new else []
    )


def test_other_spellings_are_new_classes_with_a_hint(model, tmp_path, caplog):
    save_model_directory(model, tmp_path)
    target = build_model(CONFIG, CLIP, 3)
    target.class_names = (NAMES[0], f" {NAMES[1].upper()}_", "neu")
    load_pretrained(target, tmp_path)
    (warning,) = (record.args[-1] for record in caplog.records if record.levelname == "WARNING")
    assert warning == f"{target.class_names[1]!r} (it has {NAMES[1]!r}), 'neu'"


@pytest.mark.parametrize("names", [("a", "b", "c"), ()])
def test_rows_are_never_taken_by_number(model, tmp_path, names):
    """Not even where the counts agree: other names, and a source without names."""
    model.class_names = names
    save_model_directory(model, tmp_path)
    target = build_model(CONFIG, CLIP, 3)
    target.class_names = NAMES
    with refused(tmp_path / "model.safetensors", "training.init_new_head", *(["'läuft'"] if names else [])):
        load_pretrained(target, tmp_path)
    assert load_pretrained(target, tmp_path, new_head=True).missing == ("head.weight", "head.bias")


@pytest.mark.parametrize("name", FAMILIES)
def test_input_of_another_shape_is_refused(name):
    config, clip = FAMILIES[name]
    with torch.device("meta"):
        model = build_model(config, clip, 3)
        frames, _, height, width = model.clip_shape
        for shape in ((1, frames + 1, 3, height, width), (1, frames, 3, height, width + 16)):
            with refused("input", list(shape), list(model.clip_shape)):
                model(torch.empty(shape))


@pytest.mark.parametrize("name", ["vivit", "mini_vit"])
def test_a_fresh_model_predicts_the_class_prior(name):
    rates = torch.tensor([0.5, 0.1, 0.0])
    model = build_model(*FAMILIES[name], num_classes=3).eval()
    model.set_class_prior(rates)
    torch.nn.init.zeros_(model.head.weight)
    logits = model(torch.randn(2, *model.clip_shape))
    torch.testing.assert_close(torch.sigmoid(logits), rates.clamp(min=0.001).expand(2, 3))


def test_huggingfaces_methods_read_and_write_the_same_directories(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert "vidtl" in (tmp_path / "README.md").read_text()
    for kind in (ViViT, VideoModel):
        loaded = kind.from_pretrained(tmp_path)
        assert isinstance(loaded, ViViT)
        assert not loaded.training
        assert_same_model(loaded, model)
    longer = ViViT.from_pretrained(tmp_path, clip=replace(CLIP, num_frames=8))
    assert longer(torch.zeros(1, 8, 3, 16, 24)).shape == (1, 3)
    with pytest.raises(TypeError, match="num_frames"):
        ViViT.from_pretrained(tmp_path, num_frames=8)


def test_positions_are_resized_for_another_clip(model, tmp_path, caplog):
    save_model_directory(model, tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert (saved["model"]["mlp_width"], saved["model"]["form"]) == (96, "factorised_encoder")  # rather than defaults
    assert "token_width" not in saved["model"]
    assert saved["position_grids"]["encoder.positions.weight"] == [1, 2, 3]
    with caplog.at_level("INFO"):
        loaded = load_model_directory(tmp_path, replace(CLIP, num_frames=8, frame_size=(32, 32)))
    assert "encoder.positions.weight (grid 1x2x3 to 1x4x4)" in caplog.text
    assert "temporal_encoder.positions.weight (grid 2x1x1 to 4x1x1)" in caplog.text
    assert loaded(torch.zeros(1, 8, 3, 32, 32)).shape == (1, 3)
    corners = model.encoder.positions.weight.reshape(2, 3, 24)[:, ::2]
    torch.testing.assert_close(loaded.encoder.positions.weight.reshape(4, 4, 24)[::3, ::3], corners)


def edit(folder, place, value):
    """Change one value of config.json, or remove it (...)."""
    config = json.loads((folder / "config.json").read_text())
    section, _, name = place.rpartition(".")
    values = config[section] if section else config
    values[name] = value
    if value is ...:
        del values[name]
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("place", "value", "parts"),
    [
        ("num_outputs", "3", ("num_outputs", "'3'", "int")),
        ("num_outputs", ..., ("num_outputs", "missing")),
        ("class_names", ["a", "b"], ("class_names", 2, 3)),
        ("multi_label", 0, ("multi_label", 0, "bool | null")),
        ("position_grids", {"encoder.positions.weight": [1, 2]}, ("position_grids", "tuple[int, int, int]")),
        ("position_grids", {"encoder.positions.weight": [1, 0, 2]}, ("position_grids", "(1, 0, 2)", "1 or more")),
        ("num_outputs", 0, ("num_outputs", 0, "1 or more")),
        ("num_outputs", 10**30, ("num_outputs", 10**30, "int")),
        ("clip.num_frames", 2 * 10**8, ("clip", 2 * 10**8 * 16 * 24, 2**28)),
        ("clip.frame_size", [16], ("clip.frame_size", "[16]", "tuple[int, int]")),
        ("model.dept", 3, ("'model.dept'", "'model.depth'")),
        ("model.architecture", "vivitt", ("model.architecture", "'vivitt'", "'vivit'")),
        ("model.architecture", "mini_vit", ("model.size", "'B'")),
        ("model.form", "jiont", ("model.form", "'jiont'", "'joint'")),
        ("model_type", "vivit", ("transformers", "convert_weights")),
        ("model", {"architecture": "vivit", "vivit": {"width": 24}}, ("older version",)),
    ],
)
def test_invalid_values_are_named_with_file_and_key(model, tmp_path, place, value, parts):
    save_model_directory(model, tmp_path)
    edit(tmp_path, place, value)
    with refused(tmp_path / "config.json", *parts):
        load_model_directory(tmp_path)


@pytest.mark.parametrize(
    ("place", "value", "part"),
    [
        *[(f"model.{name}", 10**7, name) for name in ("depth", "temporal_depth")],
        *[(f"model.{name}", 240_000, "of another shape") for name in ("width", "mlp_width")],
        *[("num_outputs", number, "of another shape") for number in (10**10, 2**40)],
        *[("clip.num_frames", 200_000, "of another shape"), ("model.num_registers", 10**9, "of another shape")],
        *[("num_outputs", 2**60, "cannot be built"), ("model.positions", "sincos_3d", "unexpected")],
    ],
)
def test_a_model_of_another_size_than_its_weights_takes_no_memory(model, tmp_path, place, value, part):
    model.class_names = ()
    save_model_directory(model, tmp_path)
    edit(tmp_path, place, value)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (load_model_directory, read_published):
        with refused("model.safetensors", part):
            read(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 100_000  # kB


def test_tables_that_are_not_saved_are_bounded_by_the_weights(tmp_path):
    stage = TokenLearnerConfig(num_tokens=0)
    config = replace(CONFIG, form="joint", tubelet=(2, 2, 2), positions="sincos_3d", token_learner=stage)
    save_model_directory(build_model(config, CLIP, 3), tmp_path)
    assert load_model_directory(tmp_path).num_classes == 3
    edit(tmp_path, "clip.num_frames", 600_000)
    with refused("model.safetensors", "fixed tables"):
        load_model_directory(tmp_path)


def test_a_header_that_is_no_header_is_not_read(model, tmp_path):
    save_model_directory(model, tmp_path)
    for size in (2**63, 17_000_000):
        with (tmp_path / "model.safetensors").open("r+b") as file:
            file.write(size.to_bytes(8, "little"))
            file.truncate(20_000_000)
        with refused("model.safetensors", "header", size):
            load_model_directory(tmp_path)


def test_files_that_are_missing_or_do_not_fit(model, tmp_path):
    with refused("config.json"):
        load_model_directory(tmp_path)
    save_model_directory(model, tmp_path)
    edit(tmp_path, "model.depth", 3)
    with refused("model.safetensors", "16 missing", "encoder.blocks.2"):
        load_model_directory(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with refused("config.json", "JSON"):
        load_model_directory(tmp_path)


def test_models_that_cannot_be_saved(model, tmp_path):
    model.class_names = NAMES[:2]
    with refused("class_names", 2, 3):
        save_model_directory(model, tmp_path)
    unconfigured = ViViT(width=8, depth=1, num_heads=1, num_frames=2, frame_size=(16, 16), num_classes=3)
    with refused("ViViT", "build_model"):
        save_model_directory(unconfigured, tmp_path)
    with refused("num_classes", 0):
        build_model(CONFIG, CLIP, 0)


@pytest.fixture
def two(model):
    """Two models of the same shape, whose names of classes tell which it is."""
    torch.set_num_threads(1)  # forked children would wait for other threads
    second = build_model(CONFIG, CLIP, 3)
    second.class_names = ("eins", "zwei", "drei")
    for number, each in enumerate((model, second)):
        torch.nn.init.constant_(each.head.weight, number)
    return model, second


def read_number(folder):
    loaded = load_model_directory(folder)
    number = int(loaded.class_names[0] == "eins")
    assert (loaded.head.weight == number).all()
    return number


def test_a_save_killed_at_any_file_operation_leaves_one_of_two_models(two, tmp_path):
    found, operation, ending = [], 0, -signal.SIGKILL
    while ending == -signal.SIGKILL:
        operation += 1
        shutil.rmtree(tmp_path / "model", ignore_errors=True)
        save_model_directory(two[0], tmp_path / "model")
        (tmp_path / "model/notes.txt").write_text("mine")

        def work(operation=operation):
            KillInSave(operation, {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir"})
            two[1].save_pretrained(tmp_path / "model")

        ending = ending_of(in_child(work))
        found.append(read_number(tmp_path / "model"))
        save_model_directory(two[1], tmp_path / "model")
        left = {path.name for path in (tmp_path / "model").glob("[!.]*")}
        assert left - {"README.md"} <= {"config.json", "model.safetensors", "notes.txt", *empty_folders(tmp_path)}
    assert (ending, operation > 10, found) == (0, True, sorted(found))
    assert {*found} == {0, 1}


def empty_folders(folder):
    """Those of a writer that was killed before it could lock its folder."""
    return {path.name for path in folder.rglob("*.tmp") if not any(path.iterdir())}


@pytest.mark.parametrize("limit", [100, 5000])
def test_a_save_on_a_full_disk_leaves_the_earlier_model(two, tmp_path, limit):
    save_model_directory(two[0], tmp_path)

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        with refused(tmp_path, "File too large"):
            two[1].save_pretrained(tmp_path)

    assert ending_of(in_child(work)) == 0
    assert read_number(tmp_path) == 0


def test_a_reader_never_sees_a_mix_of_two_models(two, tmp_path):
    save_model_directory(two[0], tmp_path)
    writer = in_child(lambda: [save_model_directory(two[n % 2], tmp_path) for n in range(10**9)])
    try:
        assert {read_number(tmp_path) for _ in range(100)} == {0, 1}
    finally:
        os.kill(writer, signal.SIGKILL)
        ending_of(writer)
