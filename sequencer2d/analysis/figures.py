"""Figures of the arrays, as a paper would print them.

Each has titles, units and one color scale, and is readable without the text beside it.
"""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from sequencer2d.analysis.attribution import Attribution
from sequencer2d.analysis.cka import Similarity
from sequencer2d.analysis.erf import ReceptiveField
from sequencer2d.analysis.hidden_states import SCAN_NAMES, HiddenStates, most_active, running_states
from sequencer2d.analysis.memory import BINS, MemoryReach
from sequencer2d.errors import ConfigError, UserError
from sequencer2d.files import atomic_write

FORMATS = ("pdf", "svg", "png")
STATE_COLOURS = "RdBu_r"
CELL = 1.75  # inches of a small map
ARROWS = "↓↑→←"  # of the scans 0 to 3
VISIBLE = 6  # levels of 255 by which a colour may be off unseen


def receptive_field_grid(models: Sequence[Sequence[ReceptiveField]]) -> Any:
    """One row per model and one column per depth, on one color scale, as in the paper's Figure 5.

    The fields' method decides what is drawn, and whether each map is scaled by its own maximum (`energy`) or all maps
    share one minimum and maximum (`paper`).

    Raises:
        ConfigError: fields by different methods.
    """
    methods = {field.method.name for fields in models for field in fields}
    if len(methods) != 1:
        raise ConfigError(
            f"fields by the methods {', '.join(sorted(methods))} in one figure: draw one method at a time"
        )
    method = models[0][0].method
    maps = iter(method.scaled([field.values for fields in models for field in fields]))
    columns = max(len(fields) for fields in models)
    figure = _figure(columns * CELL + 0.9, len(models) * (CELL + 0.75) + 1.05)
    axes = figure.subplots(len(models), columns, squeeze=False)
    picture = None
    for row, fields in zip(axes, models, strict=True):
        for axis in row[len(fields) :]:
            axis.set_axis_off()
        for axis, field in zip(row, fields, strict=False):
            picture = axis.imshow(next(maps), cmap=method.colours, norm=_power(method.gamma), interpolation="nearest")
            axis.set_title(f"{field.model}\n{field.block}", fontsize=7)
            axis.set_xlabel(_field_note(field), fontsize=6)
            axis.set_xticks([])
            axis.set_yticks([])
    _colour_bar(figure, picture, axes, method.bar)
    size = "×".join(map(str, models[0][0].values.shape))
    _caption(
        figure,
        "Effective receptive field: how strongly each pixel moves the token in the middle of the block's output. "
        f"{method.caption}. Input {size} pixels, images: {models[0][0].images}. cross: part of the {method.quantity} "
        "in the middle token's row and column; arms: its mean on them over that elsewhere at the same distance "
        "(1: round, above 2: a cross, –: the token is too large to tell); "
        "50/90 %: side of a square holding that much of it.",
    )
    return figure


def hidden_state_figure(states: HiddenStates, channels: Sequence[int] | None = None, count: int = 6) -> Any:
    """The image, and below it chosen (or the most active) channels of each LSTM and of the fusion (Figure 4)."""
    rows = states.rows()
    columns = len(channels) if channels else count
    figure = _figure((columns + 1) * CELL * 0.8 + 0.6, len(rows) * (CELL * 0.8 + 0.3) + 0.9)
    axes = figure.subplots(len(rows), columns + 1, squeeze=False)
    for line, (title, maps) in zip(axes, rows, strict=True):
        chosen = list(channels) if channels else most_active(maps, count)
        limit = float(np.quantile(np.abs(maps[..., chosen]), 0.995)) or 1.0
        line[0].imshow(states.image)
        line[0].set_title("image", fontsize=7)
        line[0].set_ylabel(title, fontsize=8)
        for axis in line[1 + len(chosen) :]:
            axis.set_axis_off()
        for axis, channel in zip(line[1:], chosen, strict=False):
            picture = axis.imshow(
                maps[..., channel], cmap=STATE_COLOURS, vmin=-limit, vmax=limit, interpolation="nearest"
            )
            axis.set_title(f"channel {channel}{_arrow(states, title, channel)}", fontsize=7)
        for axis in line:
            axis.set_xticks([])
            axis.set_yticks([])
        _colour_bar(figure, picture, line, "")
    which = "chosen" if channels else "most active"
    _caption(
        figure,
        f"{states.model}, {states.block}: the {which} channels of what the vertical and the horizontal LSTMs put "
        f"out (arrows: the way the scan ran) and of their fusion by the linear layer. One token a cell; red positive, "
        "blue negative, one scale a row.",
    )
    return figure


def memory_figure(reach: MemoryReach) -> Any:
    """Half-lives of every block, axis and direction, and the distribution of forget gates."""
    figure = _figure(9, 6.2)
    top, bottom = figure.subplots(2, 1)
    blocks = list(dict.fromkeys(scan.block for scan in reach.scans))
    kinds = sorted({scan.scan for scan in reach.scans})
    for kind in kinds:
        scans = [scan for scan in reach.scans if scan.scan == kind]
        low, middle, high = np.transpose([scan.quantiles() * scan.stride for scan in scans])
        x = np.arange(len(scans)) + (kind - np.mean(kinds)) * 0.16
        top.errorbar(x, middle, [middle - low, high - middle], fmt="o", ms=4, capsize=2, lw=1, label=SCAN_NAMES[kind])
    length = reach.scans[0].tokens * reach.scans[0].stride
    top.axhline(length, color="0.5", lw=0.8, ls="--")
    # Beside the axes: inside, late blocks' bars reach that far.
    top.text(
        1.005, length, "side of\nthe scan", va="center", fontsize=7, color="0.4", transform=top.get_yaxis_transform()
    )
    top.set_yscale("log", base=2)
    top.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    for axis in (top, bottom):
        axis.tick_params(labelsize=7)
    top.set_ylabel("half-life, pixels", fontsize=8)
    top.set_title(f"{reach.model}: how far the memory of each recurrence reaches", fontsize=9)
    top.legend(fontsize=7, ncols=4, loc="lower center", bbox_to_anchor=(0.5, -0.16), frameon=False)
    top.set_xticks([])
    merged = [np.mean([s.histogram for s in reach.scans if s.block == block], axis=0) for block in blocks]
    picture = bottom.imshow(
        np.transpose(merged) * BINS,
        origin="lower",
        aspect="auto",
        cmap="viridis",
        norm=_power(0.5, None),
        extent=(-0.5, len(blocks) - 0.5, 0, 1),
    )
    bottom.set_xlabel("block, as stage.block", fontsize=8)
    bottom.set_ylabel("forget gate\n(0: forgets, 1: keeps)", fontsize=8)
    bottom.set_xticks(range(len(blocks)), [_short(block) for block in blocks], fontsize=7, rotation=45)
    top.set_xlim(-0.5, len(blocks) - 0.5)
    _colour_bar(figure, picture, [bottom], "density (√ scale)")
    _caption(
        figure,
        "Top: pixels after which half of what a unit remembers is left (points: median over units; bars: 10 % to 90 "
        "%). "
        "Bottom: how often the forget gates, of all directions, take each value: by that factor a unit's memory "
        f"shrinks at each token. Mean over {reach.images} images.",
    )
    return figure


def similarity_figure(results: Sequence[Similarity]) -> Any:
    """One heat map a pair of models, on one scale."""
    figure = _figure(4.3 * len(results) + 0.4, 4.9)
    axes = figure.subplots(1, len(results), squeeze=False)
    for axis, result in zip(axes[0], results, strict=True):
        picture = axis.imshow(result.values, cmap="magma", vmin=0, vmax=1, origin="lower", aspect="auto")
        for set_ticks, names in ((axis.set_yticks, result.blocks[0]), (axis.set_xticks, result.blocks[1])):
            step = max(1, len(names) // 12)
            set_ticks(range(0, len(names), step), [_short(name) for name in names[::step]], fontsize=6)
        axis.tick_params(axis="x", rotation=90)
        axis.set_ylabel(f"{result.models[0]}, block as stage.block", fontsize=8)
        axis.set_xlabel(f"{result.models[1]}, block as stage.block", fontsize=8)
    _colour_bar(figure, picture, axes, "linear CKA")
    _caption(
        figure,
        "Similarity of what two blocks put out for the same images: 1 if equal up to rotation and scale, 0 if "
        "unrelated "
        f"(linear CKA, unbiased over mini-batches, {results[0].images} images).",
    )
    return figure


def attribution_figure(result: Attribution, class_names: Sequence[str], count: int = 8) -> Any:
    """Images above, the same under their Grad-CAM below."""
    shown = min(count, len(result.maps))
    figure = _figure(shown * CELL * 0.85 + 0.8, 2 * CELL * 0.85 + 1.25)
    axes = figure.subplots(2, shown, squeeze=False)
    for index in range(shown):
        for row in (0, 1):
            # Smoothed, small images make files of several times the size.
            axes[row, index].imshow(result.pixels[index], interpolation="nearest")
            axes[row, index].set_xticks([])
            axes[row, index].set_yticks([])
        picture = axes[1, index].imshow(
            result.maps[index], cmap="inferno", alpha=0.6, vmin=0, vmax=1, interpolation="nearest"
        )
        name = readable(class_names[int(result.classes[index])])
        lines = textwrap.wrap(name, 20, max_lines=2, placeholder="…")
        axes[0, index].set_title("\n".join([*lines, f"{result.probabilities[index]:.0%}"]), fontsize=7)
    _colour_bar(figure, picture, axes, "relevance")
    _caption(
        figure,
        f"Grad-CAM of {result.model} at {result.block}: the brighter, the more a region speaks for the class named "
        "above, relative to the strongest region of the same image. Beside the class, right or wrong, the probability "
        "that the model gives it.",
    )
    return figure


def running_animation(states: HiddenStates, path: str | Path) -> None:
    """Write a GIF of the recurrences running over the image; see `write_animation`."""
    with atomic_write(path) as file:
        write_animation(states, file)


def write_animation(states: HiddenStates, file: IO[bytes], *, side: int = 160, milliseconds: int = 160) -> None:
    """The image and beside it each scan's most active channel, uncovered as the scan proceeds, as a GIF.

    Panels are about `side` pixels high, under their titles.
    """
    import matplotlib as mpl
    from PIL import Image

    colours, grey = mpl.colormaps[STATE_COLOURS], np.asarray([225, 225, 225], dtype=np.uint8)
    scale = max(1, side // states.states.shape[1])
    picks = [most_active(states.states[slot], 1)[0] for slot in range(len(states.scans))]
    limits = [float(np.abs(states.states[s, ..., c]).max()) or 1.0 for s, c in enumerate(picks)]
    size = (states.states.shape[2] * scale, states.states.shape[1] * scale)
    image = np.asarray(Image.fromarray(states.image).resize(size))
    gap = np.full((size[1], 6, 3), 255, dtype=np.uint8)
    titles = ["image", *(f"{SCAN_NAMES[scan]}, {c}" for scan, c in zip(states.scans, picks, strict=True))]
    head = _titles(titles, size[0], gap.shape[1])
    frames = []
    for frame in running_states(states):
        panels = [image]
        for slot, channel in enumerate(picks):
            values = frame[slot, ..., channel]
            shades = (colours((np.nan_to_num(values) / limits[slot] + 1) / 2)[..., :3] * 255).astype(np.uint8)
            shades[np.isnan(values)] = grey
            panels += [gap, shades.repeat(scale, axis=0).repeat(scale, axis=1)]
        picture = np.concatenate([head, np.concatenate(panels, axis=1)])
        frames.append(_with_exact(Image.fromarray(picture).quantize(256, Image.Quantize.MAXCOVERAGE), picture, grey))
    later = frames[1:] + [frames[-1]] * 6
    frames[0].save(file, format="GIF", save_all=True, append_images=later, duration=milliseconds, loop=0)


def _with_exact(reduced: Any, picture: np.ndarray, colour: np.ndarray) -> Any:
    """A picture of few colours in which the neutral `colour` of `picture` (rows, columns, 3) has no tinge."""
    places = np.argwhere((picture == colour).all(axis=-1))
    if len(places):
        entry = np.asarray(reduced)[tuple(places[0])]
        palette = np.asarray(reduced.getpalette()).reshape(-1, 3)
        palette[entry] = colour
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


def save_figure(figure: Any, path: str | Path, formats: Sequence[str] = FORMATS, dpi: int = 130) -> list[Path]:
    """Write a figure beside `path` (its suffix is replaced) in each format; returns the files.

    Raises:
        ConfigError: another format than pdf, svg or png.
    """
    wrong = [name for name in formats if name not in FORMATS]
    if wrong:
        raise ConfigError(f"no figure format {wrong[0]!r}; choose among {', '.join(FORMATS)}")
    import matplotlib as mpl

    files = []
    for name in formats:
        target = Path(path).with_suffix(f".{name}")
        with mpl.rc_context({"svg.hashsalt": "sequencer2d"}):
            content = figure_bytes(figure, name, dpi)
        with atomic_write(target) as file:
            file.write(content)
        files.append(target)
    return files


def figure_bytes(figure: Any, name: str = "png", dpi: int = 130) -> bytes:
    """A figure as a file of the format `name`.

    A PNG has 256 colors, a third of the size, if no pixel can be told from its true color.
    """
    from PIL import Image

    buffer = io.BytesIO()
    metadata: dict[str, Any] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[name]
    figure.savefig(buffer, format=name, dpi=dpi, bbox_inches="tight", metadata=metadata)
    if name != "png":
        return buffer.getvalue()
    full = Image.open(buffer).convert("RGB")
    # The default method spends its colours on large areas and leaves bands in a colour bar.
    reduced = full.quantize(256, Image.Quantize.MAXCOVERAGE)
    differs = np.abs(np.asarray(reduced.convert("RGB"), dtype=np.int16) - np.asarray(full)).max()
    small = io.BytesIO()
    (reduced if differs <= VISIBLE else full).save(small, format="PNG", optimize=True)
    return small.getvalue()


def readable(class_name: str) -> str:
    """A class for people: WordNet identifiers such as n01440764 by their first word, other names as they are."""
    if not (class_name.startswith("n") and len(class_name) == 9 and class_name[1:].isdigit()):
        return class_name
    from timm.data import ImageNetInfo

    return str(ImageNetInfo("imagenet-22k").label_name_to_description(class_name)).split(",")[0]


def _power(gamma: float, largest: float | None = 1.0) -> Any:
    """A color scale from 0 to `largest` (none: the largest value).

    With `gamma` < 1 weak values show beside strong ones.
    """
    from matplotlib.colors import PowerNorm

    return PowerNorm(gamma, vmin=0, vmax=largest)


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("figures need matplotlib: pip install 'sequencer2d[analysis]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def _colour_bar(figure: Any, picture: Any, axes: Any, label: str) -> None:
    bar = figure.colorbar(picture, ax=axes, fraction=0.03, pad=0.015)
    bar.set_label(label, fontsize=7)
    bar.ax.tick_params(labelsize=6)


def _caption(figure: Any, text: str) -> None:
    width = int(figure.get_figwidth() * 17)
    figure.supxlabel("\n".join(textwrap.wrap(text, width)), fontsize=7, x=0.02, ha="left", color="0.25")


def _field_note(field: ReceptiveField) -> str:
    shape = field.shape
    arms = "–" if np.isnan(shape.arm_ratio) else "∞" if np.isinf(shape.arm_ratio) else f"{shape.arm_ratio:.1f}"
    return f"cross {shape.cross_share:.0%}, arms {arms}\n50 %: {shape.side_50:.0f} px, 90 %: {shape.side_90:.0f} px"


def _arrow(states: HiddenStates, row: str, channel: int) -> str:
    """Which way the scan of a channel ran; nothing for the fusion, which takes them all."""
    if row == "fusion":
        return ""
    scans = [scan for scan in states.scans if scan in ((0, 1) if row == "vertical" else (2, 3))]
    return " " + ARROWS[scans[channel // states.states.shape[-1]]]


def _short(block: str) -> str:
    """stages.2.blocks.7 as 2.7."""
    return ".".join(part for part in block.split(".") if part.isdigit()) or block
