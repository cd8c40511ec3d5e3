"""Maps over one clip: a still figure, GIF and MP4. Axes: T frames, t timesteps, S maps, H W pixels."""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vidtl.runtime.files import printable, replacing
from vidtl.video.encoder import encode_video
from vidtl.visualize import COLORS, bare, draw_label, label_text, new_figure, save_figure
from vidtl.visualize.token_maps import TokenMapImages, overlay

MAX_COLUMNS, MAX_ROWS = 8, 16
"""Timesteps, spread evenly, and maps drawn."""

CELL_IN, BELOW_IN = 1.25, 2.6
PANEL = 192
"""Pixels of the longer side of a panel."""

Picture = NDArray[np.uint8]
"""uint8 [height, width, 3]; both even, as the chroma planes of MP4 require."""

_STRIP, _HEADER, _GAP = 18, 44, 6
_INK, _FAINT, _PAPER = (25, 25, 25), (110, 110, 110), (255, 255, 255)


def draw_maps(images: TokenMapImages, path: Path, title: str = "") -> None:
    """Draw frames, a row per map over time, and entropy and overlap, into a PNG or WebP file."""
    num_steps = len(images.frames)
    steps = _spread(num_steps)
    frames = images.frames[steps]
    rows = [frames, *overlay(images.heat[:MAX_ROWS, steps], frames)]
    height, width = CELL_IN * np.array(images.frames.shape[1:3]) / max(images.frames.shape[1:3])
    above_in = 0.7 + len(rows) * height
    figure = new_figure(max(7.0, 1.4 + len(steps) * width), above_in + BELOW_IN)
    places = figure.add_gridspec(2, 2, height_ratios=(above_in, BELOW_IN))
    means = [f"{name}\nentropy {mean:.2f}" for name, mean in zip(images.names, images.entropy, strict=True)]
    _draw_grid(figure.add_subplot(places[0, :]), rows, ["frames", *means[:MAX_ROWS]], steps)
    shown = f"{len(steps)} of {num_steps} timesteps of {images.tubelet_length} frames"
    figure.suptitle(f"{label_text(title, 90)}\n{shown}".strip(), fontsize=9)
    _draw_entropies(figure.add_subplot(places[1, 0]), images)
    (_draw_overlap if len(images.names) > 1 else _draw_time_shares)(figure.add_subplot(places[1, 1]), images)
    save_figure(figure, path)


def draw_frames(clips: Sequence[NDArray[np.uint8]], path: Path, names: Sequence[str] = ("frames",)) -> None:
    """Draw a row of frames for each clip [T, H, W, 3], with its name on the left."""
    steps = _spread(len(clips[0]))
    margin_in = 0.5 + 0.075 * max(len(line) for name in names for line in name.split("\n"))
    height, width = CELL_IN * np.array(clips[0].shape[1:3]) / max(clips[0].shape[1:3])
    figure = new_figure(margin_in + len(steps) * width, 0.5 + len(clips) * height)
    figure.set_layout_engine("compressed")  # the other layout cuts names off beside pictures of fixed aspect
    _draw_grid(figure.add_subplot(), [frames_THWC[steps] for frames_THWC in clips], names, steps)
    save_figure(figure, path)


def _spread(count: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, count - 1, min(count, MAX_COLUMNS)).round().astype(np.int64))


def _draw_grid(
    axes: Axes, rows_tHWC: Sequence[NDArray[np.uint8]], names: Sequence[str], steps: NDArray[np.int64]
) -> None:
    """Draw all cells as one picture with white gaps, which is much faster than axes for each."""
    height, width = rows_tHWC[0].shape[1:3]
    gap = max(1, max(height, width) // 32)
    canvas = np.full((len(rows_tHWC) * (height + gap), len(steps) * (width + gap), 3), 255, np.uint8)
    for row, cells in enumerate(rows_tHWC):
        for column, cell in enumerate(cells):
            y, x = row * (height + gap), column * (width + gap)
            canvas[y : y + height, x : x + width] = cell
    axes.imshow(canvas, interpolation="nearest" if height < 100 else "antialiased")
    axes.set_yticks(height / 2 + (height + gap) * np.arange(len(rows_tHWC)), names)
    axes.set_xticks(width / 2 + (width + gap) * np.arange(len(steps)), [f"t = {step + 1}" for step in steps])
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelsize=8)
    axes.spines[:].set_visible(False)


def _draw_entropies(axes: Axes, images: TokenMapImages) -> None:
    for number, (name, entropies_t) in enumerate(zip(images.names, images.entropies.T, strict=True)):
        _draw_over_time(axes, entropies_t, name, number)
    axes.set_ylim(-0.02, 1.02)
    axes.set_title("entropy: 0 one place, 1 uniform", fontsize=8)
    if len(images.names) > 1:
        axes.legend(fontsize=6, frameon=False, ncols=2, loc="best", labelspacing=0.2)


def _draw_time_shares(axes: Axes, images: TokenMapImages) -> None:
    _draw_over_time(axes, 100 * images.time_shares[:, 0], "", 0)
    axes.set_ylim(0, 110 * images.time_shares.max())
    axes.set_title("share of each timestep, %", fontsize=8)


def _draw_over_time(axes: Axes, values_t: NDArray[np.float64], name: str, number: int) -> None:
    color, style = COLORS[number % len(COLORS)], "-" if number < len(COLORS) else "--"
    steps = np.arange(1, len(values_t) + 1)
    axes.plot(steps, values_t, style, marker="o", markersize=2.5, linewidth=1, color=color, label=label_text(name))
    axes.set_xlabel("timestep", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    bare(axes)


def _draw_overlap(axes: Axes, images: TokenMapImages) -> None:
    overlaps_SS = images.overlaps.mean(axis=0)
    axes.imshow(overlaps_SS, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    numbers = range(len(overlaps_SS))
    labels = [str(s + 1) for s in numbers]
    axes.set(xticks=numbers, yticks=numbers, xticklabels=labels, yticklabels=labels)
    axes.tick_params(length=0, labelsize=7)
    axes.set_title(f"shared mass of two maps: mean {images.overlap:.2f}", fontsize=8)
    if len(numbers) <= 12:
        for (row, column), value in np.ndenumerate(overlaps_SS):
            color = "white" if value > 0.55 else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=color, fontsize=6)


def animate(images: TokenMapImages, clip_THWC: NDArray[np.uint8], title: str = "") -> Iterator[Picture]:
    """Draw a picture for each frame that a map covers."""
    num_steps, length = len(images.frames), images.tubelet_length
    num_frames = num_steps * length
    for number, frame in enumerate(clip_THWC[:num_frames]):
        step = number // length
        overlays = overlay(images.heat[:, step, None], frame[None])[:, 0]
        panels = [("clip", panel(frame))]
        for name, entropy, picture in zip(images.names, images.entropies[step], overlays, strict=True):
            panels.append((f"{printable(name, 14)}   entropy {entropy:.2f}", panel(picture)))
        about = f"frame {number + 1} of {num_frames}, timestep {step + 1} of {num_steps}"
        if len(images.names) > 1:
            colors = (255 * colormaps["Blues"](images.overlaps[step])[..., :3]).round().astype(np.uint8)
            side = min(panels[0][1].size)
            overlap = Image.fromarray(colors).resize((side, side), Image.Resampling.NEAREST)
            panels.append(("shared mass of two tokens", overlap))
        else:
            about += f" with {images.time_shares[step, 0]:.1%} of the weight"
        yield make_page(panels, title, about)


def write_gif(pictures: Sequence[Picture], path: Path, rate: Fraction) -> None:
    """Write a looping GIF, whose frame times are hundredths of a second."""
    frames = [Image.fromarray(picture).quantize(255, dither=Image.Dither.NONE) for picture in pictures]
    duration_ms = max(20, round(100 / rate) * 10)  # viewers slow anything faster down
    with replacing(path) as temporary:
        frames[0].save(
            temporary, format="GIF", save_all=True, append_images=frames[1:], duration=duration_ms, loop=0, disposal=1
        )


def write_mp4(pictures: Sequence[Picture], path: Path, rate: Fraction) -> None:
    """Write H.264 in yuv420p, which every player supports."""
    with replacing(path) as temporary:
        encode_video(temporary, pictures, rate)


def make_page(panels: Sequence[tuple[str, Image.Image]], title: str, about: str) -> Picture:
    """Lay out panels of one size, each below the lines of its label, in a grid."""
    panel_width, panel_height = panels[0][1].size
    fewest = math.ceil(math.sqrt(len(panels)))
    columns = min(range(fewest, fewest + 3), key=lambda count: -len(panels) % count)  # leaves the fewest places empty
    rows = -(-len(panels) // columns)
    strip = _STRIP * max(1 + label.count("\n") for label, _ in panels)
    width = columns * (panel_width + _GAP) + _GAP
    height = _HEADER + rows * (panel_height + strip) + _GAP
    page = Image.new("RGB", (width + width % 2, height + height % 2), _PAPER)
    draw = ImageDraw.Draw(page)
    draw_label(draw, (_GAP, 5), printable(title, width // 8), _INK, 13)
    draw_label(draw, (_GAP, 24), about, _FAINT, 11)
    for place, (label, picture) in enumerate(panels):
        row, column = divmod(place, columns)
        x, y = _GAP + column * (panel_width + _GAP), _HEADER + row * (panel_height + strip)
        for line, text in enumerate(label.split("\n")):
            draw_label(draw, (x, y + 2 + line * _STRIP), printable(text, PANEL // 7), _INK, 11)
        page.paste(picture, (x, y + strip))
    return np.asarray(page)


def panel(picture: NDArray[np.uint8]) -> Image.Image:
    """Resize a picture [H, W, 3] so that its longer side has `PANEL` pixels."""
    height, width = picture.shape[:2]
    scale = PANEL / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)
