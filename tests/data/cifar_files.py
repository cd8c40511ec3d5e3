"""Small CIFAR-10 sets in every supported form: random images, labels 0 to 9 in turn."""

import pickle
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FORMS = ("python", "binary", "archive", "jpeg_archive")


def images_and_labels(part: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Make uint8 [N, 32, 32, 3] and labels; each class has another color and can be learned."""
    rng = np.random.default_rng(len(part))
    labels = np.arange(count) % 10
    colors = np.random.default_rng(0).integers(0, 256, (10, 1, 1, 3))
    noise = rng.integers(-20, 21, (count, 32, 32, 3))
    return (colors[labels] + noise).clip(0, 255).astype(np.uint8), labels


def write_cifar10(root: Path, form: str) -> None:
    """Write five training batches and a test batch of 20 images each."""
    train, test = images_and_labels("train", 100), images_and_labels("test", 20)
    if form in ("archive", "jpeg_archive"):
        arrays = {"classes": np.array(CLASSES)}
        for part, (images, labels) in (("train", train), ("test", test)):
            arrays[f"{part}_labels"] = labels.astype(np.uint8)
            arrays |= _jpeg(part, images) if form == "jpeg_archive" else {f"{part}_images": images}
        np.savez_compressed(root / "cifar10.npz", **arrays)
        return
    folder = root / ("cifar-10-batches-py" if form == "python" else "cifar-10-batches-bin")
    folder.mkdir(parents=True)
    batches = {f"data_batch_{i + 1}": tuple(part[20 * i : 20 * (i + 1)] for part in train) for i in range(5)}
    for name, (images, labels) in {**batches, "test_batch": test}.items():
        rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        if form == "binary":
            (folder / f"{name}.bin").write_bytes(np.column_stack([labels.astype(np.uint8), rows]).tobytes())
        else:
            names = [f"{name}_{i}.png" for i in range(len(images))]
            content = {"batch_label": name, "labels": labels.tolist(), "data": rows, "filenames": names}
            (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    if form == "binary":
        (folder / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n\n")
    else:
        meta = {"num_cases_per_batch": 20, "label_names": list(CLASSES), "num_vis": 3072}
        (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))


def _jpeg(part: str, images: np.ndarray) -> dict[str, np.ndarray]:
    file, offsets = BytesIO(), [0]
    for image in images:
        Image.fromarray(image).save(file, "JPEG", quality=95)
        offsets.append(file.tell())
    return {f"{part}_jpeg": np.frombuffer(file.getvalue(), np.uint8), f"{part}_offsets": np.array(offsets)}
