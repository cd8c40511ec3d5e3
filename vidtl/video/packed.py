"""Files that hold many images: CIFAR-10's batches, as pickles or binary, and `.npz` archives.

Image i of such a file has the path of the file with its number behind it, as if the file were a folder:
`cifar-10-batches-py/data_batch_1/17`, `cifar-10-batches-bin/data_batch_1.bin/17`, `cifar10.npz/train/17`.
A file is opened once per process and shared with the workers that are forked later; it must not change meanwhile.
"""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np

from vidtl.video.images import ImageReader, decode_image
from vidtl.video.plain_pickle import read_plain_pickle, whole_numbers
from vidtl.video.reader import UnreadableVideo
from vidtl.video.safety import checked_path
from vidtl.video.source import unreadable

_CIFAR_PIXELS = 3 * 32 * 32

# An archive of a few kilobytes can promise arrays of any size.
_MAX_ARCHIVE_BYTES = 8 << 30


@dataclass(frozen=True)
class PackedImages:
    """N images with their labels."""

    labels: np.ndarray
    """int64 [N]; class numbers."""
    image: Callable[[int], np.ndarray]
    """uint8 RGB [H, W, 3] by number."""
    classes: tuple[str, ...] = ()
    """Names of the classes, where the file has them."""


def open_packed_image(path: Path, root: Path | None) -> ImageReader:
    """One image as a video of one frame.

    Raises:
        UnreadableVideo: the file or the image is missing, damaged, or lies outside `root`.
    """
    images = _images_in(path.parent, root)
    if not (path.name.isascii() and path.name.isdecimal() and int(path.name) < len(images.labels)):
        raise UnreadableVideo(path, f"no image of that number; the last one is {len(images.labels) - 1}")
    with unreadable(path):
        return ImageReader(path, images.image(int(path.name)))


@lru_cache(maxsize=16)
def _images_in(place: Path, root: Path | None) -> PackedImages:
    """Of a file, or of a part of one; looked for and checked once per process, which takes longer than an image."""
    file = next((path for path in (place, *place.parents) if path.is_file()), None)
    if file is None:
        raise UnreadableVideo(place, "no part of this path is a file")
    part = "" if file == place else place.relative_to(file).as_posix()
    return open_packed(checked_path(file, root), part)


def open_packed(file: Path, part: str = "") -> PackedImages:
    """The images of a file; `part` is `train` or `test` for an archive and nothing else has any.

    Raises:
        UnreadableVideo: not such a file, or damaged.
    """
    try:
        status = file.stat()
        return _open(file, part, status.st_mtime_ns, status.st_size)
    except UnreadableVideo:
        raise
    except Exception as error:  # zipfile, zlib and NumPy each have several of their own
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
    content = read_plain_pickle(file)
    if not isinstance(content["data"], np.ndarray) or not whole_numbers(content["labels"]):
        raise UnreadableVideo(file, "its entries 'data' and 'labels' are no array and no list of numbers")
    return _cifar(file, content["data"], np.array(content["labels"]))


def _cifar(file: Path, rows: np.ndarray, labels: np.ndarray) -> PackedImages:
    """Rows of 1024 red, 1024 green and 1024 blue values."""
    if rows.dtype != np.uint8 or rows.shape != (len(labels), _CIFAR_PIXELS):
        raise UnreadableVideo(file, f"{rows.shape} values of {rows.dtype} for {len(labels)} labels")
    return PackedImages(
        labels=labels.astype(np.int64),
        image=lambda number: np.ascontiguousarray(rows[number].reshape(3, 32, 32).transpose(1, 2, 0)),
    )


def _open_archive(file: Path, part: str) -> PackedImages:
    """Arrays `<part>_labels` and `<part>_images` [N, H, W, 3], or `<part>_jpeg` with `<part>_offsets` [N + 1]."""
    with zipfile.ZipFile(file) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > _MAX_ARCHIVE_BYTES:
        raise UnreadableVideo(file, f"{size} bytes once unpacked; at most {_MAX_ARCHIVE_BYTES} are read")
    with np.load(file, allow_pickle=False) as arrays:
        labels = arrays[f"{part}_labels"].astype(np.int64)
        classes = tuple(map(str, arrays["classes"])) if "classes" in arrays else ()
        if f"{part}_images" in arrays:
            images = arrays[f"{part}_images"]
            if images.dtype != np.uint8 or images.shape[::3] != (len(labels), 3) or images.ndim != 4 or not images.size:
                raise UnreadableVideo(
                    file, f"{part}_images is {images.dtype} {images.shape}; uint8 [N, H, W, 3] is needed"
                )
            return PackedImages(labels, lambda number: np.asarray(images[number]), classes)
        jpeg, offsets = arrays[f"{part}_jpeg"], arrays[f"{part}_offsets"]
    if jpeg.dtype != np.uint8 or offsets.shape != (len(labels) + 1,):
        raise UnreadableVideo(file, f"{part}_offsets has {len(offsets)} entries for {len(labels)} labels")

    def decode(number: int) -> np.ndarray:
        data = jpeg[offsets[number] : offsets[number + 1]].tobytes()
        return decode_image(BytesIO(data), file / part / str(number))

    return PackedImages(labels, decode, classes)
