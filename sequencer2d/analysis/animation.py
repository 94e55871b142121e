"""The recurrences of a block running over an image, as a GIF."""

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from sequencer2d.analysis.drawing import STATE_COLORS
from sequencer2d.analysis.hidden_states import SCAN_NAMES, HiddenStates, most_active, running_states
from sequencer2d.files import atomic_write

GRAY = np.asarray([225, 225, 225], dtype=np.uint8)
"""Tokens that the scan has not reached."""
GAP = 6
"""Pixels between panels."""
HELD = 6
"""How many times longer the last frame stays."""


def running_animation(states: HiddenStates, path: str | Path, *, side: int = 160, every: int = 1) -> None:
    """Write a GIF of the recurrences running over the image; see `write_animation`."""
    with atomic_write(path) as file:
        write_animation(states, file, side=side, every=every)


def write_animation(
    states: HiddenStates, file: IO[bytes], *, side: int = 160, milliseconds: int = 160, every: int = 1
) -> None:
    """The image and beside it each scan's most active channel, uncovered as the scan proceeds, as a GIF.

    Args:
        states: the scans of one image.
        file: written to.
        side: about how many pixels high the panels are, under their titles.
        milliseconds: how long a frame stays.
        every: steps of the scans from one frame to the next; the last frame shows all steps.
    """
    import matplotlib as mpl
    from PIL import Image

    colors = mpl.colormaps[STATE_COLORS]
    scale = max(1, side // states.states.shape[1])
    picks = [most_active(states.states[slot], 1)[0] for slot in range(len(states.scans))]
    limits = [float(np.abs(states.states[s, ..., c]).max()) or 1.0 for s, c in enumerate(picks)]
    size = (states.states.shape[2] * scale, states.states.shape[1] * scale)
    image = np.asarray(Image.fromarray(states.image).resize(size))
    gap = np.full((size[1], GAP, 3), 255, dtype=np.uint8)
    titles = ["image", *(f"{SCAN_NAMES[scan]}, {c}" for scan, c in zip(states.scans, picks, strict=True))]
    head = _titles(titles, size[0], GAP)
    frames = []
    steps = list(running_states(states))
    for frame in steps[(len(steps) - 1) % every :: every]:
        panels = [image]
        for slot, channel in enumerate(picks):
            values = frame[slot, ..., channel]
            shades = (colors((np.nan_to_num(values) / limits[slot] + 1) / 2)[..., :3] * 255).astype(np.uint8)
            shades[np.isnan(values)] = GRAY
            panels += [gap, shades.repeat(scale, axis=0).repeat(scale, axis=1)]
        picture = np.concatenate([head, np.concatenate(panels, axis=1)])
        frames.append(_with_exact(Image.fromarray(picture).quantize(256, Image.Quantize.MAXCOVERAGE), picture, GRAY))
    later = frames[1:] + [frames[-1]] * HELD
    frames[0].save(file, format="GIF", save_all=True, append_images=later, duration=milliseconds, loop=0)


def _with_exact(reduced: Any, picture: np.ndarray, color: np.ndarray) -> Any:
    """A picture of few colors in which the neutral `color` of `picture` (rows, columns, 3) has no tinge."""
    places = np.argwhere((picture == color).all(axis=2))
    if len(places):
        entry = np.asarray(reduced)[tuple(places[0])]
        palette = np.asarray(reduced.getpalette()).reshape(-1, 3)
        palette[entry] = color
        reduced.putpalette(palette.ravel().tolist())
    return reduced


def _titles(texts: Sequence[str], width: int, gap: int) -> np.ndarray:
    """A white strip (rows, columns, 3) with a text over each of several panels, as large as the widest one allows."""
    import matplotlib as mpl
    from PIL import Image, ImageDraw, ImageFont

    # The font of the figures: Pillow's own is not scalable everywhere.
    file = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    sizes = (ImageFont.truetype(str(file), points) for points in range(12, 5, -1))
    font = next((f for f in sizes if max(map(f.getlength, texts)) <= width), ImageFont.truetype(str(file), 6))
    strip = Image.new("RGB", (len(texts) * width + (len(texts) - 1) * gap, 20), "white")
    draw = ImageDraw.Draw(strip)
    for index, text in enumerate(texts):
        draw.text((index * (width + gap), 3), text, fill="black", font=font)
    return np.asarray(strip)
