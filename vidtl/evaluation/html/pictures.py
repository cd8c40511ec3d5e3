"""Pictures of a few videos, kept beside the metrics: their frames and where TokenLearner looks.

Axes: T frames, H W pixels, C channels, t timesteps shown, S tokens, h w token grid.
"""

import json
import logging
from base64 import b64encode
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from vidtl.config import ExperimentConfig
from vidtl.data.batch import VideoViews
from vidtl.data.dataset import ViewDataset
from vidtl.data.pixels import normalize, to_rgb
from vidtl.data.protocols import Protocol, get_protocol
from vidtl.data.records import Records
from vidtl.errors import UserError
from vidtl.evaluation.html.names import visible
from vidtl.models.base import VideoModel
from vidtl.runtime.files import whole_file
from vidtl.visualize.token_maps import TokenMapImages, clip_token_maps, token_map_images

FOLDER = "examples"
INDEX = "examples.json"

MAX_STEPS = 8
"""Timesteps shown; of longer clips, so many spread evenly."""

MAX_TOKENS = 16
"""Rows of single tokens shown."""

CELL_HEIGHT = 144
"""Pixels; larger frames are reduced to it, smaller ones are left as they are."""

GAP = 2
"""Transparent pixels between cells."""

QUALITY = 72

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What is kept of one video."""

    frames: str
    """File name of one row of frames and, with TokenLearner, a second one under the mean of all maps."""
    tokens: str
    """File name of one row per token; empty without TokenLearner."""
    num_steps: int
    num_steps_of_clip: int
    cell_width: int
    cell_height: int
    entropy: list[float]
    """[S]; empty without TokenLearner. See `vidtl.visualize.token_maps`."""
    overlap: float | None
    """None for fewer than two tokens."""

    @property
    def num_token_rows(self) -> int:
        """Tokens that have a row of their own."""
        return min(len(self.entropy), MAX_TOKENS)

    @property
    def width(self) -> int:
        """Of either file, in pixels."""
        return _length(self.num_steps, self.cell_width)

    def height(self, num_rows: int) -> int:
        """Of a file of so many rows, in pixels."""
        return _length(num_rows, self.cell_height)


def draw_pictures(
    model: VideoModel, records: Records, config: ExperimentConfig, protocol: Protocol, indices: list[int], folder: Path
) -> None:
    """Open the videos `indices` again and draw the center clip, in the middle of the frame, into `folder/examples/`.

    Pictures of an earlier evaluation are removed first. A video that can no longer be read has no picture.
    """
    remove_pictures(folder)
    target = folder / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    dataset = ViewDataset(
        records,
        replace(get_protocol("center"), short_side=protocol.short_side),
        config.clip,
        config.data,
        config.evaluation.single_frame,
    )
    pictures: dict[int, Picture] = {}
    for index in indices:
        video = dataset[index]
        if video.pixels is None:
            log.warning("no picture of %s: it can no longer be read", visible(records.ids[index]))
            continue
        pictures[index] = _draw(model, video, target)
    text = json.dumps({str(index): asdict(picture) for index, picture in pictures.items()}, indent=1, allow_nan=False)
    with whole_file(target / INDEX) as file:
        file.write(text + "\n")


def remove_pictures(folder: Path) -> None:
    """Remove what `draw_pictures` left in an evaluation's folder."""
    (folder / FOLDER / INDEX).unlink(missing_ok=True)
    for picture in (folder / FOLDER).glob("*.webp"):
        picture.unlink()


def read_pictures(folder: Path) -> dict[int, Picture]:
    """What `draw_pictures` left in an evaluation's folder, by number of the video; empty if it never ran there, or if
    its list of them cannot be read, which is said."""
    index = folder / FOLDER / INDEX
    if not index.is_file():
        return {}
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        return {int(number): Picture(**fields) for number, fields in content.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.warning("%s cannot be read, so there are no pictures: %s", index, error)
        return {}


def data_uri(folder: Path, name: str) -> Markup:
    """One picture as the text that an `img` element takes; empty where the file is missing."""
    path = folder / FOLDER / Path(name).name
    encoded = b64encode(path.read_bytes()).decode() if name and path.is_file() else ""
    return Markup("data:image/webp;base64,{}").format(encoded) if encoded else Markup()


def _draw(model: VideoModel, video: VideoViews, target: Path) -> Picture:
    assert video.pixels is not None
    rgb_BTCHW = to_rgb(video.pixels[:1], torch.tensor([video.color]))
    frames_THWC = rearrange((rgb_BTCHW[0] * 255).round().byte(), "T C H W -> T H W C").numpy()
    maps_tShw = _maps(model, rgb_BTCHW)
    names = f"{video.index:06d}-frames.webp", f"{video.index:06d}-tokens.webp"
    if maps_tShw is None:
        steps = _spread(len(frames_THWC))
        size = _save([frames_THWC[steps]], target / names[0])
        return Picture(
            frames=names[0],
            tokens="",
            num_steps=len(steps),
            num_steps_of_clip=len(frames_THWC),
            cell_width=size[0],
            cell_height=size[1],
            entropy=[],
            overlap=None,
        )
    tubelet_length = len(frames_THWC) // len(maps_tShw)
    images = token_map_images(maps_tShw, frames_THWC, tubelet_length)
    together = token_map_images(maps_tShw.mean(axis=1, keepdims=True), frames_THWC, tubelet_length)
    return _save_token_maps(images, together, target, names)


def _save_token_maps(images: TokenMapImages, together: TokenMapImages, target: Path, names: tuple[str, str]) -> Picture:
    steps = _spread(len(images.frames))
    size = _save([images.frames[steps], together.overlays[0, steps]], target / names[0])
    _save([row[steps] for row in images.overlays[:MAX_TOKENS]], target / names[1])
    return Picture(
        frames=names[0],
        tokens=names[1],
        num_steps=len(steps),
        num_steps_of_clip=len(images.frames),
        cell_width=size[0],
        cell_height=size[1],
        entropy=[round(float(value), 4) for value in images.entropy],
        overlap=None if np.isnan(images.overlap) else round(images.overlap, 4),
    )


def _maps(model: VideoModel, rgb_BTCHW: torch.Tensor) -> NDArray[np.float32] | None:
    """Maps [t, S, h, w], or None for a model without TokenLearner."""
    device = next(model.parameters()).device
    try:
        return clip_token_maps(model, normalize(rgb_BTCHW, model.clip_config).to(device))
    except UserError:
        return None


def _spread(count: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, count - 1, min(count, MAX_STEPS)).round().astype(np.int64))


def _length(cells: int, pixels: int) -> int:
    return cells * (pixels + GAP) - GAP


def _save(rows_tHWC: list[NDArray[np.uint8]], path: Path) -> tuple[int, int]:
    """Write rows of cells as one WebP; gives the width and height of a cell."""
    height, width = rows_tHWC[0].shape[1:3]
    scale = min(1.0, CELL_HEIGHT / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    columns = len(rows_tHWC[0])
    shape = _length(columns, size[0]), _length(len(rows_tHWC), size[1])
    canvas = Image.new("RGBA", shape)
    for row, cells_tHWC in enumerate(rows_tHWC):
        for column, cell in enumerate(cells_tHWC):
            image = Image.fromarray(cell).resize(size, Image.Resampling.LANCZOS)
            canvas.paste(image, (column * (size[0] + GAP), row * (size[1] + GAP)))
    encoded = BytesIO()
    canvas.save(encoded, "WEBP", quality=QUALITY, method=4)
    path.write_bytes(encoded.getvalue())
    return size
