"""Maps over one clip as GIF and MP4: a panel for the clip, one for each map, and their entropy and overlap.

Axes: T frames, t timesteps, S maps, H W pixels.
"""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vidtl.runtime.files import printable, replacing
from vidtl.visualize import label_font
from vidtl.visualize.token_maps import TokenMapImages, overlay

Picture = NDArray[np.uint8]
"""uint8 [height, width, 3]; both even, as the chroma planes of MP4 require."""

PANEL = 192
"""Pixels of the longer side of a panel."""

_STRIP, _HEADER, _GAP = 18, 44, 6
_INK, _FAINT, _PAPER = (25, 25, 25), (110, 110, 110), (255, 255, 255)


def animate(images: TokenMapImages, clip_THWC: NDArray[np.uint8], title: str = "") -> Iterator[Picture]:
    """Draw one picture for each frame of the clip that a map covers."""
    num_steps, length = len(images.frames), images.tubelet_length
    height, width = clip_THWC.shape[1:3]
    scale = PANEL / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    num_frames = num_steps * length
    for number in range(num_frames):
        step = number // length
        frame = clip_THWC[number]
        overlays = overlay(images.heat[:, step, None], frame[None])[:, 0]
        panels = [("clip", _enlarged(frame, size))]
        for name, entropy, picture in zip(images.names, images.entropies[step], overlays, strict=True):
            panels.append((f"{printable(name, 14)}   entropy {entropy:.2f}", _enlarged(picture, size)))
        about = f"frame {number + 1} of {num_frames}, timestep {step + 1} of {num_steps}"
        if len(images.names) > 1:
            panels.append(("shared mass of two tokens", _overlap_panel(images.overlaps[step], size)))
        else:
            about += f" with {images.time_shares[step, 0]:.1%} of the weight"
        yield _page(panels, title, about)


def write_gif(pictures: Sequence[Picture], path: Path, rate: Fraction) -> None:
    """Write a looping GIF; its frame times are hundredths of a second."""
    frames = [Image.fromarray(picture).quantize(255, dither=Image.Dither.NONE) for picture in pictures]
    duration_ms = max(20, round(100 / rate) * 10)  # viewers slow anything faster down
    with replacing(path) as temporary:
        frames[0].save(
            temporary, format="GIF", save_all=True, append_images=frames[1:], duration=duration_ms, loop=0, disposal=1
        )


def write_mp4(pictures: Sequence[Picture], path: Path, rate: Fraction) -> None:
    """Write H.264 in yuv420p, which every player supports."""
    height, width = pictures[0].shape[:2]
    with replacing(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "fast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _page(panels: Sequence[tuple[str, Image.Image]], title: str, about: str) -> Picture:
    panel_width, panel_height = panels[0][1].size
    fewest = math.ceil(math.sqrt(len(panels)))
    columns = min(range(fewest, fewest + 3), key=lambda count: -len(panels) % count)  # leaves the fewest places empty
    rows = -(-len(panels) // columns)
    width = columns * (panel_width + _GAP) + _GAP
    height = _HEADER + rows * (panel_height + _STRIP) + _GAP
    page = Image.new("RGB", (width + width % 2, height + height % 2), _PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((_GAP, 5), printable(title, width // 8), _INK, label_font(13))
    draw.text((_GAP, 24), about, _FAINT, label_font(11))
    for place, (label, panel) in enumerate(panels):
        row, column = divmod(place, columns)
        x, y = _GAP + column * (panel_width + _GAP), _HEADER + row * (panel_height + _STRIP)
        draw.text((x, y + 2), label, _INK, label_font(11))
        page.paste(panel, (x, y + _STRIP))
    return np.asarray(page)


def _overlap_panel(overlaps_SS: NDArray[np.float64], size: tuple[int, int]) -> Image.Image:
    colors = (255 * colormaps["Blues"](overlaps_SS)[..., :3]).round().astype(np.uint8)
    return Image.fromarray(colors).resize((min(size), min(size)), Image.Resampling.NEAREST)


def _enlarged(picture: NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)
