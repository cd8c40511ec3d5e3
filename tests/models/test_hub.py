"""Names of published weights: a cache in offline mode, and what is fetched from a Hub that this test serves."""

import json
import re
import threading
from argparse import Namespace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from tests.refusals import refused
from vidtl import VideoModel
from vidtl.models.weights.files import read_directory_state, read_state
from vidtl.models.weights.hub import find_source, license_of

SHA = {"main": "a" * 40, "v2": "b" * 40}
CARD = b"---\nlicense: cc-by-nc-4.0\n---\n# A model\n"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


def put(cache, repository, files, revision="main"):
    """Write files as huggingface_hub caches them: blobs, links in a snapshot, and the commit of the revision."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / SHA[revision]
    for number, (name, content) in enumerate(files.items()):
        blob, link = folder / "blobs" / f"{revision}{number}", snapshot / name
        for each in (blob, link, folder / "refs" / revision):
            each.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link.symlink_to(blob)
    (folder / "refs" / revision).write_text(SHA[revision])
    return snapshot


def test_names_from_the_cache_in_offline_mode(cache):
    files = {"config.json": b"{}", "README.md": CARD, "pytorch_model.bin": b"x"}
    main, other = put(cache, "owner/name", files), put(cache, "owner/name", {"model.safetensors": b""}, "v2")
    assert find_source("owner/name") == main
    assert find_source("owner/name@v2") == find_source(f"owner/name@{SHA['v2']}") == other
    flax = put(cache, "google/videoprism", {"README.md": CARD, "flax_base.npz": b"x"})
    assert find_source("google/videoprism") == flax / "flax_base.npz"
    zoo = put(cache, "owner/zoo", {"README.md": CARD, "distill/b.pth": b"", "distill/s.pth": b""})
    assert find_source("owner/zoo/distill/s.pth") == zoo / "distill/s.pth"
    found = [license_of(each) for each in (main, other, flax / "flax_base.npz", zoo / "distill/s.pth")]
    assert found == ["cc-by-nc-4.0", "not stated", "cc-by-nc-4.0", "cc-by-nc-4.0"]
    with refused("owner/zoo", "2 files", "owner/zoo/distill/b.pth", "owner/zoo/distill/s.pth"):
        find_source("owner/zoo")


@pytest.mark.parametrize("name", ["videomae_classification", "timm_clip_laion", "videoprism_flax"])
def test_a_name_gives_the_model_in_offline_mode(cache, golden, name):
    source = golden / "foundation" / name
    files = {each.name: each.read_bytes() for each in source.iterdir() if each.name != "io.npz"}
    put(cache, f"owner/{name}", files, "v2")
    model, local = VideoModel.from_pretrained(f"owner/{name}", revision="v2"), VideoModel.from_pretrained(source)
    clips = torch.randn(1, *model.clip_shape)
    with torch.no_grad():
        assert torch.equal(model.forward_tokens(clips), local.forward_tokens(clips))


@pytest.mark.parametrize(
    ("card", "stated"),
    [
        ("license: other\nlicense_name: terms", "terms"),
        ("license: other", "other"),
        ("tags: [a]", "not stated"),
        ("license: [", "not stated"),
    ],
)
def test_license_of_a_local_directory(tmp_path, card, stated):
    (tmp_path / "README.md").write_text(f"---\n{card}\n---\ntext\n")
    assert find_source(str(tmp_path)) == tmp_path
    assert license_of(tmp_path) == license_of(tmp_path / "weights.pth") == stated


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("weights/vit_base.pth", ("weights/vit_base.pth", "'vit_base_.pth'")),
        ("weights", ()),
        ("absent.npz", ("absent.npz", "owner/name")),
        ("/absent/folder", ("/absent/folder", "owner/name")),
        ("vit_base_patch16_224.augreg_in1k", ("'timm/vit_base_patch16_224.augreg_in1k'",)),
        ("owner/name", ("hf download owner/name", "--local-dir", "HF_HOME", "HF_HUB_OFFLINE", "hub")),
        ("owner/name@v2", ("hf download owner/name --revision v2",)),
        ("owner/nama", ("hf download owner/nama", "'owner/none'")),
        ("owner/none", ("hf download owner/none",)),
        ("owner/zoo/c.pth", ("hf download owner/zoo",)),
        ("owner/bad--name..", ("owner/bad--name..",)),
    ],
)
def test_names_that_are_not_there(cache, tmp_path, name, parts):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/vit_base_.pth").touch()
    put(cache, "owner/none", {"config.json": b"{}"})
    put(cache, "owner/zoo", {"a.pth": b"", "b.pth": b""})
    if not parts:
        assert find_source(name) == Path(name)
        return
    with refused(*parts):
        find_source(name)


def test_a_hub_that_gives_no_answer(cache, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    snapshot = put(cache, "owner/name", {"model.safetensors": b"x"})
    assert find_source("owner/name") == snapshot
    with refused("http://127.0.0.1:9", "hf download owner/other"):
        find_source("owner/other")


REPOSITORIES = {
    "owner/whole": ["README.md", "code.py", "config.json", "model.safetensors", "pytorch_model.bin", "tf_model.h5"],
    "owner/shards": ["config.json", "model.safetensors.index.json", *(f"model-0000{n}-of-2.safetensors" for n in "12")],
    "owner/gated": ["config.json", "model.safetensors"],
    "owner/empty": ["README.md", "training_args.bin"],
}


class Hub(BaseHTTPRequestHandler):
    """The requests of huggingface_hub that list a repository and fetch a file."""

    fetched: list[str]

    def do_GET(self):
        path = r"(?:/api/models)?/(owner/\w+)(?:/(?:revision|resolve)/(\w+))?(?:/(.+))?"
        name, revision, file = re.fullmatch(path, self.path).groups("")
        files, revision = REPOSITORIES.get(name), revision or "main"
        listing = {"id": name, "siblings": [{"rfilename": each} for each in files or ()], "tags": []}
        content = (file or json.dumps(listing)).encode()
        error = "RepoNotFound" if files is None else "RevisionNotFound" if revision not in SHA else ""
        error = "GatedRepo" if file and name == "owner/gated" else error
        self.send_response(404 if error else 200)
        headers = {"X-Error-Code": error, "X-Repo-Commit": SHA.get(revision, ""), "ETag": f'"{file}"'}
        for header, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(header, value)
        self.end_headers()
        if self.command == "GET":
            self.fetched.append(file or name)  # before the client can go on
            self.wfile.write(content)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    """Serve `REPOSITORIES` on this machine; names of the files fetched."""
    Hub.fetched = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    yield Hub.fetched
    server.shutdown()
    server.server_close()


def test_only_weights_and_settings_are_fetched_and_once(hub, monkeypatch):
    whole = find_source("owner/whole")
    assert sorted(each.name for each in whole.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    shards = find_source("owner/shards@v2")
    assert sorted(each.name for each in shards.iterdir()) == sorted(REPOSITORIES["owner/shards"])
    assert (whole.name, shards.name) == (SHA["main"], SHA["v2"])
    del hub[:]
    assert find_source("owner/whole") == whole
    assert hub == ["owner/whole"]  # the listing
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert [find_source(name) for name in ("owner/whole", "owner/shards@v2")] == [whole, shards]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("owner/absent", ("owner/absent", "hf auth login")),
        ("owner/whole@v3", ("owner/whole", "'v3'")),
        ("owner/gated", ("owner/gated", "/owner/gated", "hf auth login")),
        ("owner/empty", ("owner/empty", "model.safetensors", "pytorch_model.bin")),
        ("owner/whole/pytorch_modal.bin", ("pytorch_modal.bin", "'pytorch_model.bin'")),
    ],
)
def test_repositories_that_give_no_weights(hub, name, parts):
    with refused(*parts):
        find_source(name)
    assert set(hub) <= {"owner/" + name.split("/")[1].partition("@")[0]}  # listings


def test_weights_in_shards(tmp_path):
    with refused(tmp_path, "model.safetensors", "pytorch_model.bin"):
        read_directory_state(tmp_path)
    index, shards = tmp_path / "model.safetensors.index.json", {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    index.write_text(json.dumps({"weight_map": shards}))
    save_file({"a": torch.ones(1)}, tmp_path / shards["a"])
    with refused(index, "missing: model-2.safetensors"):
        read_directory_state(tmp_path)
    save_file({"b": torch.zeros(2)}, tmp_path / shards["b"])
    assert {name: len(tensor) for name, tensor in read_directory_state(tmp_path).items()} == {"a": 1, "b": 2}
    index.write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))
    with refused(index, "../model.safetensors"):
        read_directory_state(tmp_path)


@pytest.mark.parametrize("place", ["module", "model", "model_state"])
def test_states_beside_options(tmp_path, place):
    path = tmp_path / "checkpoint.pyth"
    torch.save({place: {"weight": torch.ones(2)}, "args": Namespace(lr=0.1), "epoch": 3}, path)
    assert torch.equal(read_state(path)["weight"], torch.ones(2))
