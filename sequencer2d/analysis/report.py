"""One self-contained HTML file about a model: every figure, every number, and what they mean.

A browser fetches nothing to show it.
"""

import base64
import html
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sequencer2d import __version__
from sequencer2d.analysis import charts, figures
from sequencer2d.analysis.attribution import grad_cam
from sequencer2d.analysis.cka import similarity
from sequencer2d.analysis.erf import receptive_fields
from sequencer2d.analysis.hidden_states import hidden_states, mixers
from sequencer2d.analysis.memory import memory_reach
from sequencer2d.data.sources import Source
from sequencer2d.errors import ConfigError, DataError, UserError
from sequencer2d.evaluation.attacks import AttackSettings, attack_accuracy
from sequencer2d.evaluation.pixels import Progress, choose, read_batches
from sequencer2d.evaluation.resolution import resolution_sweep
from sequencer2d.evaluation.robustness import compare_corruption_errors
from sequencer2d.evaluation.shape_texture import spectral_conflict
from sequencer2d.evaluation.subject import Subject
from sequencer2d.files import atomic_write


@dataclass(frozen=True)
class Limits:
    """How many images each part takes, and how many processes corrupt them.

    Attributes:
        images: for what is drawn.
        labelled: for what is measured on labels.
        severities: of the corruptions, from 1 to 5.
        epsilons: radii of the attacks, as parts of the range of a pixel's values.
        attack_steps: of PGD.
        workers: processes that corrupt images; 0: this one.
    """

    images: int = 50
    labelled: int = 200
    severities: tuple[int, ...] = (1, 3, 5)
    epsilons: tuple[float, ...] = (1 / 255, 4 / 255)
    attack_steps: int = 5
    workers: int = 0


@dataclass(frozen=True)
class Section:
    """A part of the report: title, what it says, pictures (PNG or GIF bytes with a type), and a table."""

    title: str
    text: str
    pictures: tuple[tuple[str, bytes], ...] = ()
    rows: tuple[dict[str, Any], ...] = ()


def write_report(
    subjects: Sequence[Subject],
    source: Source,
    path: str | Path,
    *,
    limits: Limits | None = None,
    common_only: bool = False,
    on_part: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Analyze the first model, beside the others, and write the report.

    Args:
        subjects: the model to analyze, then those to compare it with.
        source: images with labels.
        path: of the HTML file.
        limits: how many images each part takes.
        common_only: leave out classes of the data that a model does not have, instead of refusing them.
        on_part: called with the title of each part before it is made.
        progress: called with the number of images that a part has done since the last call.

    A part that cannot be done for a model (no recurrences, a missing library, one input size only) says why in its
    place.

    Raises:
        ConfigError: classes that do not match.
        DataError: an image that cannot be read, or too few of them.
        UserError: no part can be done; the reason of the first one.
    """
    limits = limits or Limits()
    sections: list[Section] = []
    failures: list[UserError] = []
    for build in PARTS:
        if on_part:
            on_part(TITLES[build.__name__])
        sections.append(_part(build, subjects, source, limits, common_only, progress, failures=failures))
    if len(failures) == len(PARTS):
        raise failures[0]
    document = render(subjects, source, sections, limits)
    with atomic_write(path, "w") as file:
        file.write(document)
    return Path(path)


def render(subjects: Sequence[Subject], source: Source, sections: Sequence[Section], limits: Limits) -> str:
    """The sections as one HTML document."""
    first = subjects[0]
    links = "".join(f'<a href="#s{i}">{html.escape(s.title)}</a>' for i, s in enumerate(sections))
    body = "\n".join(_section_html(index, section) for index, section in enumerate(sections))
    parameters = sum(parameter.numel() for parameter in first.model.parameters())
    beside = ", ".join(subject.name for subject in subjects[1:])
    summary = (
        f"{html.escape(first.name)}: {parameters / 1e6:.1f} M parameters, {len(first.class_names)} classes, images of "
        f"{first.data.size[0]}×{first.data.size[1]} pixels{'; beside ' + html.escape(beside) if beside else ''}. "
        f"Measured on {min(limits.labelled, len(source))}, drawn with {min(limits.images, len(source))} of "
        f"{len(source)} images in {len(source.class_names)} classes: a share of so many images is uncertain by up to "
        f"±{_uncertainty(min(limits.labelled, len(source))):.0f} points. sequencer2d {__version__}."
    )
    return PAGE.format(
        title=f"How {html.escape(first.name)} sees", style=STYLE, links=links, summary=summary, body=body
    )


def _uncertainty(count: int) -> float:
    """Half the width of the 95 % interval of a share of `count` images, in percent.

    The width is that of a share of one half, where it is largest.
    """
    return 100 * 1.96 * math.sqrt(0.25 / count)


def _part(build: Callable[..., Section], *arguments: Any, failures: list[UserError]) -> Section:
    """One section, or why there is none, which is added to `failures`."""
    try:
        return build(*arguments)
    except UserError as error:
        if isinstance(error, DataError) or (isinstance(error, ConfigError) and "classes" in str(error)):
            raise
        failures.append(error)
        return Section(TITLES[build.__name__], f"Not done: {error}")


def _fields(
    subjects: Sequence[Subject], source: Source, limits: Limits, common_only: bool, progress: Progress | None
) -> Section:
    models = [receptive_fields(subject, _pixels(subject, source, limits), progress=progress) for subject in subjects]
    cross = [field for field in models[0] if field.shape.cruciform]
    text = (
        "Which pixels move the token (one cell of the map) in the middle of a block's output. A field's energy is the "
        "squared gradient, mean over images; the paper's Figure 5 shows another quantity (`analyze erf --method "
        f"paper`). Of {len(models[0])} blocks of {subjects[0].name}, {len(cross)} see a "
        "cross: their middle row and column hold at least twice the energy per pixel of other directions. In the "
        "table, row, column and cross: the share of the energy in the middle token's row, column and both; arms over "
        "rest: energy per pixel on them over that elsewhere at the same distance; then the square that half, and nine "
        "tenths, of the energy would fill."
    )
    rows = tuple(
        {key: value for key, value in field.row().items() if key not in ("layout", "method")}
        for fields in models
        for field in fields
    )
    return Section(TITLES["_fields"], text, (_png(figures.receptive_field_grid(models)),), rows)


def _states(subjects: Sequence[Subject], source: Source, limits: Limits, *_: Any) -> Section:
    states = hidden_states(subjects[0], _pixels(subjects[0], source, limits)[0])
    buffer = _animation(states)
    text = (
        "What the vertical and the horizontal LSTMs hand on at each token, and what the linear layer makes of them. "
        "Below, the recurrences at work: the image, then each scan's most active channel (its number behind the "
        "scan's name), uncovered as the scan runs."
    )
    return Section(TITLES["_states"], text, (_png(figures.hidden_state_figure(states)), ("image/gif", buffer)))


def _memory(
    subjects: Sequence[Subject], source: Source, limits: Limits, common_only: bool, progress: Progress | None
) -> Section:
    ours = [subject for subject in subjects if _has_mixers(subject)]
    if not ours:
        mixers(subjects[0].model)
    reaches = [memory_reach(subject, _pixels(subject, source, limits), progress=progress) for subject in ours]
    text = (
        "After how many pixels half of what a unit remembers is gone, by block and direction of the scan. "
        + " ".join(f"{subject.name} has no recurrences." for subject in subjects if subject not in ours)
    )
    return Section(TITLES["_memory"], text, tuple(_png(figures.memory_figure(reach)) for reach in reaches))


def _similarity(
    subjects: Sequence[Subject], source: Source, limits: Limits, common_only: bool, progress: Progress | None
) -> Section:
    images = [_pixels(subject, source, limits, limits.labelled) for subject in subjects]
    results = [
        similarity(subjects[0], subject, images[0], None if index == 0 else images[index], progress=progress)
        for index, subject in enumerate(subjects)
    ]
    text = (
        "Which blocks put out the same information, early and late ones (left and right, bottom and top): of "
        f"{subjects[0].name} with itself, and with each other model."
    )
    return Section(TITLES["_similarity"], text, (_png(figures.similarity_figure(results)),))


def _attribution(subjects: Sequence[Subject], source: Source, limits: Limits, *_: Any) -> Section:
    pixels = _pixels(subjects[0], source, limits)[:8]
    result = grad_cam(subjects[0], pixels)
    text = f"Where in the image the evidence for the class lies that {subjects[0].name} predicts (Grad-CAM)."
    return Section(TITLES["_attribution"], text, (_png(figures.attribution_figure(result, subjects[0].class_names)),))


def _resolution(
    subjects: Sequence[Subject], source: Source, limits: Limits, common_only: bool, progress: Progress | None
) -> Section:
    results = [
        resolution_sweep(subject, source, limit=limits.labelled, common_only=common_only, progress=progress)
        for subject in subjects
    ]
    refusals = (f"{r.model} does not take {size} pixels: {why}." for r in results for size, why in r.refused.items())
    text = " ".join(["Accuracy when images are smaller or larger than in training.", *refusals])
    return Section(TITLES["_resolution"], text, (_png(charts.resolution_chart(results)),))


def _corruptions(
    subjects: Sequence[Subject], source: Source, limits: Limits, common_only: bool, progress: Progress | None
) -> Section:
    results = compare_corruption_errors(
        subjects, source, severities=limits.severities, limit=limits.labelled, workers=limits.workers,
        common_only=common_only, progress=progress,
    )  # fmt: skip
    rows = tuple(
        {"model": r.model, "clean error, %": 100 * r.clean_error, "mean error, %": 100 * r.mean_error,
         "clean calibration error, %": 100 * r.clean_calibration,
         "mean calibration error, %": 100 * float(r.calibration.mean())}
        for r in results
    )  # fmt: skip
    text = (
        "Errors under noise, blur, weather and digital damage at several severities, and whether the model knows when "
        "it errs. The corruptions are made on the fly: this is not the released ImageNet-C. Calibration error: how far "
        "the model's confidence lies from its accuracy; few images overstate it. The table holds means over "
        "corruptions and severities, clean: without any."
    )
    pictures = (_png(charts.corruption_chart(results)), _png(charts.calibration_chart(results)))
    return Section(TITLES["_corruptions"], text, pictures, rows)


def _attacks(
    subjects: Sequence[Subject], source: Source, limits: Limits, common_only: bool, progress: Progress | None
) -> Section:
    settings = AttackSettings(epsilons=limits.epsilons, steps=limits.attack_steps, step_size=None)
    results = [
        attack_accuracy(
            subject, source, attack, settings, limit=limits.labelled, common_only=common_only, progress=progress
        )
        for subject in subjects
        for attack in ("fgsm", "pgd")
    ]  # fmt: skip
    return Section(
        TITLES["_attacks"],
        "Accuracy on images changed, invisibly, so as to fool the model that sees them.",
        (_png(charts.attack_chart(results)),),
    )


def _shape_texture(
    subjects: Sequence[Subject], source: Source, limits: Limits, common_only: bool, progress: Progress | None
) -> Section:
    results = [
        spectral_conflict(subject, source, limit=limits.labelled, common_only=common_only, progress=progress)
        for subject in subjects
    ]
    rows = tuple(
        {"model": r.model, "images": r.count, "named the shape's class": r.shape, "the texture's": r.texture,
         "neither": r.other, "shape bias, %": math.nan if r.shape_bias is None else 100 * r.shape_bias}
        for r in results
    )  # fmt: skip
    text = (
        "Images with the outlines of one class (phases of its spectrum) and the texture of another (amplitudes): which "
        "of the two does the model name? Shape bias: how often the shape's class where it named either; where it named "
        "neither nearly always, this says little."
    )
    return Section(TITLES["_shape_texture"], text, rows=rows)


TITLES = {
    "_fields": "Receptive fields",
    "_states": "Hidden states",
    "_memory": "Reach of the memory",
    "_similarity": "Similarity of layers",
    "_attribution": "Evidence",
    "_resolution": "Other resolutions",
    "_corruptions": "Corruptions and calibration",
    "_attacks": "Attacks",
    "_shape_texture": "Shape or texture",
}
PARTS = (
    _fields, _states, _memory, _similarity, _attribution, _resolution, _corruptions, _attacks, _shape_texture,
)  # fmt: skip


def _pixels(subject: Subject, source: Source, limits: Limits, count: int | None = None) -> np.ndarray:
    chosen = choose(len(source), count or limits.images)
    return np.concatenate([batch.pixels for batch in read_batches(source, subject.data, indices=chosen)])


def _has_mixers(subject: Subject) -> bool:
    try:
        return bool(mixers(subject.model))
    except ConfigError:
        return False


def _animation(states: Any) -> bytes:
    buffer = io.BytesIO()
    figures.write_animation(states, buffer)
    return buffer.getvalue()


def _png(figure: Any) -> tuple[str, bytes]:
    return "image/png", figures.figure_bytes(figure, "png", 110)


def _section_html(index: int, section: Section) -> str:
    pictures = "".join(
        f'<img alt="{html.escape(section.title)}" src="data:{kind};base64,{base64.b64encode(data).decode()}">'
        for kind, data in section.pictures
    )
    title, text = html.escape(section.title), html.escape(section.text)
    return f'<section id="s{index}"><h2>{title}</h2><p>{text}</p>{pictures}{_table(section.rows)}</section>'


def _table(rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th{_class(value)}>{html.escape(key)}</th>" for key, value in rows[0].items())
    body = "".join(
        "<tr>" + "".join(f"<td{_class(value)}>{html.escape(_cell(value))}</td>" for value in row.values()) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _class(value: Any) -> str:
    return ' class="number"' if isinstance(value, (int, float)) else ""


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1f}" if math.isfinite(value) else "–"
    return str(value)


STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.2rem;border-top:1px solid #ddd;padding-top:1rem;margin-top:2rem}
nav a{margin-right:1rem;color:#26c;text-decoration:none}img{display:block;max-width:100%;height:auto;margin:1rem 0}
table{border-collapse:collapse;font-size:12px}td,th{padding:.2rem .6rem;border-bottom:1px solid #eee;text-align:left}
.number{text-align:right}td{white-space:nowrap}.wide{overflow-x:auto}
"""
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><h1>{title}</h1><p>{summary}</p><nav>{links}</nav>
{body}
</body></html>
"""
