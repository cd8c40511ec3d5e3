"""Files of many images, and pickles that are read without running their code."""

import os
import pickle
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.cifar_files import CLASSES, FORMS, images_and_labels, write_cifar10
from tests.refusals import refused
from tests.video.conftest import read, unreadable
from vidtl.annotations.description import load_description, read_records
from vidtl.video import open_video
from vidtl.video.packed import open_packed


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_cifar10(tmp_path: Path, form: str) -> None:
    write_cifar10(tmp_path, form)
    description = load_description("cifar10")
    for split, part, count in (("train", "train", 100), ("val", "test", 20)):
        records = read_records(description, split, tmp_path)
        images, labels = images_and_labels(part, count)
        assert records.classes.names == CLASSES
        assert records.label_classes.tolist() == labels.tolist()
        for index in (0, 1, 7, count - 1):
            difference = np.abs(read(records.path(index), root=tmp_path)[0].astype(int) - images[index])
            assert difference.mean() < 12 if form == "jpeg_archive" else not difference.any()
        assert records.origin(3) == str(records.path(3))


def test_real_cifar10(shared_data: Path) -> None:
    root = shared_data / "cifar10"
    arrays = np.load(root / "cifar10_jpeg.npz")
    records = read_records(load_description("cifar10"), "train", root)
    assert len(records) == 50_000
    assert records.classes.names == CLASSES
    assert np.array_equal(records.label_classes, arrays["train_labels"])
    assert len(read_records(load_description("cifar10"), "val", root)) == 5_000
    data, offsets = arrays["train_jpeg"], arrays["train_offsets"]
    for index in (0, 31_415, 49_999):
        file = BytesIO(data[offsets[index] : offsets[index + 1]].tobytes())
        assert np.array_equal(read(records.path(index), root=root)[0], np.asarray(Image.open(file).convert("RGB")))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("cifar-10-batches-py/data_batch_1/20", "no image of that number; the last one is 19"),
        ("cifar-10-batches-py/data_batch_1/-1", "no image of that number"),
        ("cifar-10-batches-py/data_batch_1/../data_batch_1", "no "),
        ("cifar-10-batches-py/data_batch_1/train/1", "has no part 'train'"),
        ("cifar-10-batches-py/batches.meta/1", "data"),
        ("link/1", "outside the data root"),
        ("movie.mp4/1", "not a pickle"),
    ],
)
def test_images_that_do_not_exist(tmp_path: Path, path: str, message: str) -> None:
    root = tmp_path / "root"
    write_cifar10(root, "python")
    (tmp_path / "secret").write_bytes((root / "cifar-10-batches-py/data_batch_1").read_bytes())
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "movie.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    with unreadable(message):
        open_video(root / path, root=root)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    rows = np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072)
    (tmp_path / "p").write_bytes(pickle.dumps({"data": rows, "labels": [1, 2]}, protocol=protocol))
    images = open_packed(tmp_path / "p")
    assert images.labels.tolist() == [1, 2]
    assert np.array_equal(images.image(1), rows[1].reshape(3, 32, 32).transpose(1, 2, 0))


def test_pickles_that_python_2_wrote(tmp_path: Path) -> None:
    """The published CIFAR-10: byte strings for keys, values and the array's data."""
    pixels = bytes(range(256)) * 12
    kind = b"cnumpy\ndtype\nq\x01U\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    state = b"(K\x01K\x01M\x00\x0c\x86" + kind + b"\x89T\x00\x0c\0\0" + pixels + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87R" + state
    (tmp_path / "p").write_bytes(b"\x80\x02}(U\x04data" + array + b"U\x06labels](K\x06eu.")
    images = open_packed(tmp_path / "p")
    assert images.labels.tolist() == [6]
    assert images.image(0).transpose(2, 0, 1).tobytes() == pixels


class Evil:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.canary),)


def nested(levels: int, copies: int = 2) -> object:
    """A value of a few bytes whose hash, text or array takes copies ** levels steps."""
    return (nested(levels - 1, copies),) * copies if levels else ()


def test_hostile_pickles_run_nothing_and_end_at_once(tmp_path: Path) -> None:
    data = np.zeros((1, 3072), np.uint8)
    evil, deep = Evil(tmp_path / "canary"), nested(60)
    contents = [
        evil,
        {"data": evil, "labels": [0]},
        {"data": data, "labels": evil},
        {"data": np.array([evil], object), "labels": [0]},
        {"data": data, "labels": deep},
        {"data": deep, "labels": [0]},
        [1, 2],
        {"data": data},
        {"data": data, "labels": [0, 1]},
        {"data": data.astype(np.float64), "labels": [0]},
        {"data": data, "labels": [10**30]},
        {nested(150, copies=1): 0, "data": data, "labels": [0]},
    ]
    streams = [pickle.dumps(content, protocol=4) for content in contents]
    streams += [b"", b"\x80", b"\x80\x04.", b"hello", streams[8][:-40], b"(i__main__\nEvil\n."]
    streams += [b"cbuiltins\neval\n(S'1'\ntR.", b"})" + b"2\x86" * 60 + b"K\x00s."]
    streams.append(b"\x80\x02}" + pickle.dumps(deep, protocol=2)[2:-1] + b"K\x00s.")  # {deep: 0}
    for number, stream in enumerate(streams):
        file = tmp_path / f"batch_{number}"
        file.write_bytes(stream)
        with unreadable(f"batch_{number}: "):
            open_video(file / "0", root=tmp_path)
    assert not (tmp_path / "canary").exists()
    os.truncate(tmp_path / "batch_0", (1 << 28) + 1)  # a sparse file
    with unreadable("268435457 bytes"):
        open_packed(tmp_path / "batch_0")


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"labels": np.array(2), "images": np.zeros((1, 8, 8, 3), np.uint8)}, "not a file of images"),
        ({"labels": np.zeros(1), "images": np.zeros((1, 0, 8, 3), np.uint8)}, "train_images is uint8 (1, 0, 8, 3)"),
        ({"labels": np.zeros(1), "jpeg": np.zeros(9, np.uint8), "offsets": np.array([0.0, 9.0])}, "TypeError"),
        ({"labels": np.zeros(1), "jpeg": np.zeros(9, np.uint8), "offsets": np.array([5, 2])}, "not an image"),
    ],
)
def test_archives_of_other_shapes_and_types(tmp_path: Path, arrays: dict[str, np.ndarray], reason: str) -> None:
    np.savez(tmp_path / "a.npz", **{f"train_{name}": array for name, array in arrays.items()})
    with unreadable(reason):
        open_video(tmp_path / "a.npz/train/0", root=tmp_path)


def test_broken_archives_and_batches(tmp_path: Path) -> None:
    description = load_description("cifar10")
    with refused(tmp_path, "'cifar-10-batches-py'"):
        read_records(description, "train", tmp_path)
    np.savez(tmp_path / "a.npz", classes=np.array(CLASSES), train_labels=np.zeros(3), train_images=np.zeros((3, 8, 8)))
    with refused("a.npz", "train_images is float64"):
        read_records(description, "train", tmp_path)
    with refused("a.npz", "test_labels"):
        read_records(description, "val", tmp_path)
    np.savez(tmp_path / "a.npz", classes=np.array([Evil(tmp_path / "canary")], object), train_labels=np.zeros(3))
    with refused("a.npz"):
        read_records(description, "train", tmp_path)
    assert not (tmp_path / "canary").exists()
    (tmp_path / "b.npz").touch()
    with refused("2 .npz files"):
        read_records(description, "train", tmp_path)
    write_cifar10(tmp_path, "binary")
    batch = tmp_path / "cifar-10-batches-bin/data_batch_3.bin"
    batch.write_bytes(batch.read_bytes()[:-1])
    with refused("data_batch_3.bin", "61459 bytes", "3073"):
        read_records(description, "train", tmp_path)
    batch.write_bytes(b"\x0a" + bytes(3072))
    with refused("data_batch_3.bin", "image 0", "label 10", "0 to 9"):
        read_records(description, "train", tmp_path)
    batch.unlink()
    with refused("CIFAR-10 batch", "data_batch_3.bin", "did you mean"):
        read_records(description, "train", tmp_path)


def test_bombs_are_refused_before_they_take_memory(tmp_path: Path) -> None:
    streams = {
        "far.pkl": (b"\x80\x02}r\xff\xff\xff\x7f.", "2147483647"),  # a place in the memo, of 8 bytes each
        "farther.pkl": (b"}p2147483647\n.", "2147483647"),
        "many.pkl": (b"\x80\x02](" + b"}" * 2_000_001 + b"e.", "2000000 parts"),
    }
    for name, (stream, reason) in streams.items():
        (tmp_path / name).write_bytes(stream)
        with unreadable(name, reason):
            open_packed(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train_labels.npy", b"")
        archive.getinfo("train_labels.npy").file_size = (1 << 30) + 64
    with unreadable("a.npz", "1073741888 bytes"):
        open_packed(tmp_path / "a.npz", "train")
