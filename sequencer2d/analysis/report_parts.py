"""What the report measures: one function per part, from the models and the images to a text, pictures and a table."""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sequencer2d.analysis import charts, figures
from sequencer2d.analysis.animation import write_animation
from sequencer2d.analysis.attribution import grad_cam
from sequencer2d.analysis.cka import similarity
from sequencer2d.analysis.erf import receptive_fields
from sequencer2d.analysis.figure_files import figure_bytes
from sequencer2d.analysis.hidden_states import hidden_states, mixers
from sequencer2d.analysis.memory import memory_reach
from sequencer2d.data.sources import Source
from sequencer2d.errors import ConfigError
from sequencer2d.evaluation.attacks import AttackSettings, attack_accuracy
from sequencer2d.evaluation.outcomes import logits_of
from sequencer2d.evaluation.pixels import Progress, choose, match_classes, read_batches
from sequencer2d.evaluation.resolution import resolution_sweep
from sequencer2d.evaluation.robustness import compare_corruption_errors
from sequencer2d.evaluation.shape_texture import spectral_conflict
from sequencer2d.evaluation.subject import Subject

DPI = 110
ATTRIBUTED = 8
"""Images of which the evidence is shown."""


@dataclass(frozen=True)
class Limits:
    """How many images each part takes, and how many processes corrupt them.

    Attributes:
        images: for what is drawn.
        labeled: for what is measured on labels.
        severities: of the corruptions, from 1 to 5.
        epsilons: radii of the attacks, as parts of the range of a pixel's values.
        attack_steps: of PGD.
        workers: processes that corrupt images; 0: this one.
    """

    images: int = 50
    labeled: int = 200
    severities: tuple[int, ...] = (1, 3, 5)
    epsilons: tuple[float, ...] = (1 / 255, 4 / 255)
    attack_steps: int = 5
    workers: int = 0


@dataclass(frozen=True)
class Request:
    """What a report is asked about.

    Attributes:
        subjects: the model to analyze, then those to compare it with.
        source: images with labels.
        limits: how many images each part takes.
        common_only: leave out classes of the data that a model does not have.
        progress: called with the number of images done since the last call.
    """

    subjects: tuple[Subject, ...]
    source: Source
    limits: Limits
    common_only: bool
    progress: Progress | None

    @property
    def first(self) -> Subject:
        """The model to analyze."""
        return self.subjects[0]

    @property
    def labeled(self) -> dict[str, Any]:
        """The arguments that measurements on labels share."""
        return {"limit": self.limits.labeled, "common_only": self.common_only, "progress": self.progress}

    def pixels(self, subject: Subject, count: int | None = None) -> np.ndarray:
        """Images as the subject takes them, uint8 (N, H, W, 3): `count`, by default as many as are drawn."""
        chosen = choose(len(self.source), count or self.limits.images)
        return np.concatenate([batch.pixels for batch in read_batches(self.source, subject.data, indices=chosen)])


@dataclass(frozen=True)
class Section:
    """What a part of the report says.

    Attributes:
        text: a paragraph.
        pictures: pairs of a media type and the bytes of a PNG or GIF.
        rows: of a table, whose titles are the keys.
    """

    text: str
    pictures: tuple[tuple[str, bytes], ...] = ()
    rows: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Part:
    """A part of the report.

    Attributes:
        title: its title.
        build: makes its section.
    """

    title: str
    build: Callable[[Request], Section]


def _fields(request: Request) -> Section:
    models = [
        receptive_fields(subject, request.pixels(subject), progress=request.progress) for subject in request.subjects
    ]
    crosses = sum(field.shape.cruciform for field in models[0])
    text = (
        "Which pixels move the token (one cell of the map) in the middle of a block's output. A field's energy is the "
        "squared gradient, mean over images; the paper's Figure 5 shows another quantity (analyze erf --method "
        f"paper). Of {len(models[0])} blocks of {request.first.name}, {crosses} see a "
        "cross: their middle row and column hold at least twice the energy per pixel of other directions. In the "
        "table, row, column and cross: the share of the energy in the middle token's row, column and both; arms over "
        "rest: energy per pixel on them over that elsewhere at the same distance; then the square that half, and nine "
        "tenths, of the energy would fill."
    )
    rows = [field.row() for fields in models for field in fields]
    shown = tuple({key: value for key, value in row.items() if key not in ("layout", "method")} for row in rows)
    return Section(text, (_png(figures.receptive_field_grid(models)),), shown)


def _states(request: Request) -> Section:
    states = hidden_states(request.first, request.pixels(request.first)[0])
    write_animation(states, animation := io.BytesIO())
    text = (
        "What the vertical and the horizontal LSTMs hand on at each token, and what the linear layer makes of them. "
        "Below, the recurrences at work: the image, then each scan's most active channel (its number behind the "
        "scan's name), uncovered as the scan runs."
    )
    return Section(text, (_png(figures.hidden_state_figure(states)), ("image/gif", animation.getvalue())))


def _memory(request: Request) -> Section:
    recurrent = [subject for subject in request.subjects if _has_mixers(subject)]
    if not recurrent:
        mixers(request.first.model)  # raises, and says why
    reaches = [memory_reach(subject, request.pixels(subject), progress=request.progress) for subject in recurrent]
    others = [f"{subject.name} has no recurrences." for subject in request.subjects if subject not in recurrent]
    text = "After how many pixels half of what a unit remembers is gone, by block and direction of the scan."
    return Section(" ".join([text, *others]), tuple(_png(figures.memory_figure(reach)) for reach in reaches))


def _similarity(request: Request) -> Section:
    images = [request.pixels(subject, request.limits.labeled) for subject in request.subjects]
    results = [
        similarity(request.first, subject, images[0], None if index == 0 else images[index], progress=request.progress)
        for index, subject in enumerate(request.subjects)
    ]
    text = (
        "Which blocks put out the same information, early and late ones (left and right, bottom and top): of "
        f"{request.first.name} with itself, and with each other model."
    )
    return Section(text, (_png(figures.similarity_figure(results)),))


def _attribution(request: Request) -> Section:
    """Of the images that are drawn with: the most confident mistakes, up to half of the places, then right ones."""
    first, source = request.first, request.source
    chosen = choose(len(source), request.limits.images)
    batches = list(read_batches(source, first.data, indices=chosen))
    pixels = np.concatenate([batch.pixels for batch in batches])
    truths = match_classes(first, source, common_only=request.common_only)[
        np.concatenate([batch.targets for batch in batches])
    ]
    confidences, predictions = (part.numpy() for part in logits_of(first, pixels).softmax(dim=1).max(dim=1))
    ranked = np.argsort(-confidences, kind="stable")
    wrong, right = ([n for n in ranked if (predictions[n] == truths[n]) == value] for value in (False, True))
    some = wrong[: max(ATTRIBUTED // 2, ATTRIBUTED - len(right))]
    shown = [*some, *right][:ATTRIBUTED]
    result = grad_cam(first, pixels[shown], truths=truths[shown])
    text = (
        f"Where in the image the evidence for the class lies that {first.name} predicts (Grad-CAM): the most confident "
        f"of its {len(wrong)} mistakes among {len(pixels)} images, then the most confident of those that are right."
    )
    return Section(text, (_png(figures.attribution_figure(result, first.class_names)),))


def _resolution(request: Request) -> Section:
    results = [resolution_sweep(subject, request.source, **request.labeled) for subject in request.subjects]
    refusals = (f"{r.model} does not take {size} pixels: {why}." for r in results for size, why in r.refused.items())
    text = " ".join(["Accuracy when images are smaller or larger than in training.", *refusals])
    return Section(text, (_png(charts.resolution_chart(results)),))


def _corruptions(request: Request) -> Section:
    limits = request.limits
    options = {"severities": limits.severities, "workers": limits.workers, **request.labeled}
    results = compare_corruption_errors(request.subjects, request.source, **options)
    rows = tuple(
        {
            "model": result.model,
            "clean error, %": 100 * result.clean_error,
            "mean error, %": 100 * result.mean_error,
            "clean calibration error, %": 100 * result.clean_calibration,
            "mean calibration error, %": 100 * float(result.calibration.mean()),
        }
        for result in results
    )
    text = (
        "Errors under noise, blur, weather and digital damage at several severities, and whether the model knows when "
        "it errs. The corruptions are made on the fly: this is not the released ImageNet-C. Calibration error: how far "
        "the model's confidence lies from its accuracy; few images overstate it. The table holds means over "
        "corruptions and severities, clean: without any."
    )
    return Section(text, (_png(charts.corruption_chart(results)), _png(charts.calibration_chart(results))), rows)


def _attacks(request: Request) -> Section:
    settings = AttackSettings(epsilons=request.limits.epsilons, steps=request.limits.attack_steps, step_size=None)
    results = [
        attack_accuracy(subject, request.source, attack, settings, **request.labeled)
        for subject in request.subjects
        for attack in ("fgsm", "pgd")
    ]
    text = "Accuracy on images changed, invisibly, so as to fool the model that sees them."
    return Section(text, (_png(charts.attack_chart(results)),))


def _shape_texture(request: Request) -> Section:
    results = [spectral_conflict(subject, request.source, **request.labeled) for subject in request.subjects]
    rows = tuple(
        {
            "model": result.model,
            "images": result.count,
            "named the shape's class": result.shape,
            "the texture's": result.texture,
            "neither": result.other,
            "shape bias, %": math.nan if result.shape_bias is None else 100 * result.shape_bias,
        }
        for result in results
    )
    text = (
        "Images with the outlines of one class (phases of its spectrum) and the texture of another (amplitudes): which "
        "of the two does the model name? Shape bias: how often the shape's class where it named either; where it named "
        "neither nearly always, this says little."
    )
    return Section(text, rows=rows)


PARTS = (
    Part("Receptive fields", _fields),
    Part("Hidden states", _states),
    Part("Reach of the memory", _memory),
    Part("Similarity of layers", _similarity),
    Part("Evidence", _attribution),
    Part("Other resolutions", _resolution),
    Part("Corruptions and calibration", _corruptions),
    Part("Attacks", _attacks),
    Part("Shape or texture", _shape_texture),
)


def _has_mixers(subject: Subject) -> bool:
    try:
        return bool(mixers(subject.model))
    except ConfigError:
        return False


def _png(figure: Any) -> tuple[str, bytes]:
    return "image/png", figure_bytes(figure, "png", DPI)
