"""Files that hold many images: CIFAR-10's batches, as pickles or binary, and `.npz` archives.

The path of an image is that of its file followed by its number: `cifar-10-batches-py/data_batch_1/17`,
`cifar10.npz/train/17`. A file is opened once per process and shared with workers that are forked later.
"""

import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from vidtl.video.images import StillReader, decode_image
from vidtl.video.reader import UnreadableVideo
from vidtl.video.safety import checked_path
from vidtl.video.source import unreadable

_CIFAR_PIXELS = 3 * 32 * 32
_MAX_ARCHIVE_BYTES = 8 << 30  # and no more than 4 times the file, beyond 1 GiB: kilobytes can unpack to any size
_MAX_PICKLE_BYTES = 1 << 28  # the largest batch of CIFAR-10 and CIFAR-100 has 155 MB
_MAX_TUPLES = 100  # an array needs six
_MAX_OPCODES = 2_000_000  # a batch of CIFAR-100 has half a million; an empty dictionary has one
_SHAREABLE = re.compile("STRING|UNICODE|BYTES|GLOBAL|REDUCE")  # opcodes of objects whose hash takes no longer


class PackedImages(NamedTuple):
    """N images with their labels, int64 [N], and the class names if the file has them."""

    labels: np.ndarray
    image: Callable[[int], np.ndarray]
    """number -> uint8 RGB [H, W, 3]."""
    classes: tuple[str, ...] = ()


def open_packed_image(path: Path, root: Path | None) -> StillReader:
    """Open one image as a video of one frame; UnreadableVideo if it is missing, damaged, or outside `root`."""
    images = _images_in(path.parent, root)
    if not (path.name.isascii() and path.name.isdecimal() and int(path.name) < len(images.labels)):
        raise UnreadableVideo(path, f"no image of that number; the last one is {len(images.labels) - 1}")
    with unreadable(path):
        pixels = images.image(int(path.name))
    return StillReader(path, lambda number: pixels, pixels.shape)


@lru_cache(maxsize=16)  # finding and checking the file takes longer than an image
def _images_in(place: Path, root: Path | None) -> PackedImages:
    file = next((path for path in (place, *place.parents) if path.is_file()), None)
    if file is None:
        raise UnreadableVideo(place, "no part of this path is a file")
    part = "" if file == place else place.relative_to(file).as_posix()
    checked_path(file, root)  # the path that it returns has no suffix in a snapshot of a hub repository
    return open_packed(file, part)


def open_packed(file: Path, part: str = "") -> PackedImages:
    """Open the images of a file; `part` is `train` or `test` for an archive, else empty. UnreadableVideo if damaged."""
    try:
        status = file.stat()
        return _open(file, part, status.st_mtime_ns, status.st_size)
    except UnreadableVideo:
        raise
    except Exception as error:  # zipfile, zlib and NumPy have several kinds each
        raise UnreadableVideo(file, f"not a file of images ({error})") from error


@lru_cache(maxsize=16)
def _open(file: Path, part: str, changed_ns: int, size: int) -> PackedImages:
    if file.suffix == ".npz":
        return _open_archive(file, part)
    if part:
        raise UnreadableVideo(file, f"has no part {part!r}")
    if file.suffix == ".bin":
        if size == 0 or size % (1 + _CIFAR_PIXELS):
            raise UnreadableVideo(file, f"{size} bytes, not a multiple of {1 + _CIFAR_PIXELS}")
        rows = np.memmap(file, np.uint8, mode="r").reshape(-1, 1 + _CIFAR_PIXELS)
        return _cifar(file, rows[:, 1:], rows[:, 0])
    content = read_pickle(file)
    data, labels = content.get("data"), content.get("labels")
    if not isinstance(data, _Array) or not isinstance(labels, list) or not all(type(each) is int for each in labels):
        raise UnreadableVideo(file, "its entries 'data' and 'labels' are no array and no list of numbers")
    with unreadable(file):
        return _cifar(file, data.to_numpy(), np.array(labels))


def _cifar(file: Path, rows: np.ndarray, labels: np.ndarray) -> PackedImages:
    """Split rows of 1024 red, 1024 green and 1024 blue values into images."""
    if rows.dtype != np.uint8 or rows.shape != (len(labels), _CIFAR_PIXELS):
        raise UnreadableVideo(file, f"{rows.shape} values of {rows.dtype} for {len(labels)} labels")
    pixels = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return PackedImages(labels.astype(np.int64), lambda number: np.ascontiguousarray(pixels[number]))


def _open_archive(file: Path, part: str) -> PackedImages:
    """Open arrays `<part>_labels` and `<part>_images` [N, H, W, 3], or `<part>_jpeg` and `<part>_offsets` [N + 1]."""
    with zipfile.ZipFile(file) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    most = min(_MAX_ARCHIVE_BYTES, max(1 << 30, 4 * file.stat().st_size))
    if size > most:
        raise UnreadableVideo(file, f"{size} bytes once unpacked; at most {most} are read")
    with np.load(file, allow_pickle=False) as arrays:
        labels = arrays[f"{part}_labels"].astype(np.int64)
        classes = tuple(map(str, arrays["classes"])) if "classes" in arrays else ()
        if f"{part}_images" in arrays:
            images = arrays[f"{part}_images"]
            if images.dtype != np.uint8 or images.shape[::3] != (len(labels), 3) or images.ndim != 4 or not images.size:
                raise UnreadableVideo(file, f"{part}_images is {images.dtype} {images.shape}, not uint8 [N, H, W, 3]")
            return PackedImages(labels, lambda number: np.asarray(images[number]), classes)
        jpeg, offsets = arrays[f"{part}_jpeg"], arrays[f"{part}_offsets"]
    if jpeg.dtype != np.uint8 or offsets.shape != (len(labels) + 1,):
        raise UnreadableVideo(file, f"{part}_offsets has {len(offsets)} entries for {len(labels)} labels")

    def decode(number: int) -> np.ndarray:
        data = jpeg[offsets[number] : offsets[number + 1]].tobytes()
        return decode_image(BytesIO(data), file / part / str(number))

    return PackedImages(labels, decode, classes)


def read_pickle(file: Path) -> dict[Any, Any]:
    """Read a pickled dictionary of plain values and arrays, without running its code; UnreadableVideo otherwise."""
    if file.stat().st_size > _MAX_PICKLE_BYTES:
        raise UnreadableVideo(file, f"{file.stat().st_size} bytes; at most {_MAX_PICKLE_BYTES} are read")
    try:
        with file.open("rb") as stream:
            _check_sharing(stream)
            content = _PlainUnpickler(stream, encoding="latin-1").load()  # the encoding of Python 2's strings
    except Exception as error:  # a damaged pickle can raise almost anything
        raise UnreadableVideo(file, f"not a pickle of plain values and arrays: {error}") from error
    if not isinstance(content, dict):
        raise UnreadableVideo(file, f"not a pickle of a dictionary but of {type(content).__name__}")
    return content


def _check_sharing(stream: BinaryIO) -> None:
    """Refuse shared or many tuples, whose hash takes forever, many objects, and a place far down in the memo."""
    made_by: dict[Any, str] = {}
    name, num_tuples = "", 0
    for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if number > _MAX_OPCODES:
            raise pickle.UnpicklingError(f"it has more than {_MAX_OPCODES} parts")
        if "PUT" in opcode.name or opcode.name == "MEMOIZE":
            if argument is not None and argument > number:
                raise pickle.UnpicklingError(f"it numbers its object {number} as {argument}")
            made_by[len(made_by) if argument is None else argument] = name
            continue
        name = opcode.name
        num_tuples += "TUPLE" in name
        is_shared = name == "DUP" or ("GET" in name and not _SHAREABLE.search(made_by[argument]))
        if is_shared or num_tuples > _MAX_TUPLES:
            raise pickle.UnpicklingError("it nests tuples or refers twice to one object")
    stream.seek(0)


class _PlainUnpickler(pickle.Unpickler):
    """`pickle.Unpickler` with the few globals of a NumPy array, each replaced by a class of this module."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse all other globals (see "Restricting Globals" in Python's documentation)."""
        allowed = _GLOBALS.get(f"{module.replace('numpy._core', 'numpy.core')}.{name}")
        if allowed is None:
            raise pickle.UnpicklingError(f"it needs {module}.{name}, which is not allowed")
        return allowed


class _Dtype:
    def __init__(self, code: Any, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        """Ignore byte order and fields."""


class _Array:
    """Bytes, dtype, shape and order of an array, as its pickle has them; NumPy itself checks neither."""

    def __init__(self, *content: Any) -> None:
        self._content = content

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self._content = (data, dtype, shape, "F" if fortran else "C")

    def to_numpy(self) -> np.ndarray:
        """Return the array of bytes in C order; ValueError for any other."""
        data, dtype, shape, *order = self._content
        if not isinstance(dtype, _Dtype) or dtype.code != "u1" or order != ["C"]:
            raise ValueError("its array is not one of bytes in C order")
        return np.frombuffer(_encode(data), np.uint8).reshape(shape)


def _encode(data: Any, encoding: str = "latin-1") -> Any:
    """Return text as the bytes that it stands for, in pickles of Python 2 and of protocol 2."""
    if not isinstance(data, str | bytes | bytearray):
        raise pickle.UnpicklingError(f"{type(data).__name__} in place of bytes")
    return data.encode("latin-1") if isinstance(data, str) else data


_GLOBALS: dict[str, Any] = {
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy.core.numeric._frombuffer": _Array,  # protocol 5
    "numpy.ndarray": _Array,
    "numpy.dtype": _Dtype,
    "_codecs.encode": _encode,
}
