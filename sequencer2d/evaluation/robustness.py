"""Errors on images of any data set under the 15 corruptions of ImageNet-C at 5 severities, made on the fly.

The corruptions are those of Hendrycks and Dietterich (2019), as the library imagecorruptions-imaug makes them. This is
another benchmark than ImageNet-C, whose images are released as files (`imagenet_c`), and has no mCE: AlexNet's errors
were measured on those files. The strengths are tuned for images of 224 pixels: on much smaller ones the same severity
destroys more. Corruptions are applied after resizing and cropping; unlike in ImageNet-C, the result is not compressed
as JPEG once more.
"""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeVar

import numpy as np

from sequencer2d.data.sources import Source
from sequencer2d.evaluation.corruptions import (
    CORRUPTIONS,
    LEAST_PIXELS,
    SEVERITIES,
    corrupt_versions,
    require_library,
    start_worker,
)
from sequencer2d.evaluation.mce import CorruptionResult, cell_figures, check_names
from sequencer2d.evaluation.outcomes import logits_of, outcomes_of
from sequencer2d.evaluation.pixels import Progress, check_size, choose, match_classes, read_batches
from sequencer2d.evaluation.subject import Subject
from sequencer2d.tasks.accuracy import Outcomes, concatenate

Item = TypeVar("Item")


def corruption_errors(
    subject: Subject,
    source: Source,
    *,
    corruptions: Sequence[str] = CORRUPTIONS,
    severities: Sequence[int] = SEVERITIES,
    limit: int | None = None,
    seed: int = 0,
    workers: int = 0,
    batch_size: int = 128,
    common_only: bool = False,
    progress: Progress | None = None,
) -> CorruptionResult:
    """Errors, confidence and calibration of a classifier under each corruption and severity.

    Args:
        subject: any classifier.
        source: images with labels.
        corruptions: names of the benchmark's corruptions.
        severities: from 1 to 5.
        limit: at most so many images, a random sample; the same ones under every corruption.
        seed: of the sample and of the corruptions.
        workers: processes that corrupt; 0: this one.
        batch_size: images, corrupted ones included, in a pass through the model; at least all versions of one.
        common_only: leave out classes of the data that the model does not have.
        progress: called with the number of corrupted images done.

    Raises:
        ConfigError: an unknown corruption or severity, or classes that do not match.
        DataError: an image that cannot be read.
        InputError: a model whose images are smaller than 32 pixels.
        UserError: the library that corrupts is not installed.
    """
    return compare_corruption_errors(
        [subject], source, corruptions=corruptions, severities=severities, limit=limit, seed=seed, workers=workers,
        batch_size=batch_size, common_only=common_only, progress=progress,
    )[0]  # fmt: skip


def compare_corruption_errors(
    subjects: Sequence[Subject],
    source: Source,
    *,
    corruptions: Sequence[str] = CORRUPTIONS,
    severities: Sequence[int] = SEVERITIES,
    limit: int | None = None,
    seed: int = 0,
    workers: int = 0,
    batch_size: int = 128,
    common_only: bool = False,
    progress: Progress | None = None,
) -> list[CorruptionResult]:
    """`corruption_errors` of several models. Those that take images of one size and crop share the corrupted ones.

    Corrupting costs more than classifying, so that a second such model is almost free. `progress` counts shared images
    once.
    """
    check_names(corruptions, severities)
    for subject in subjects:
        check_size(subject.data, LEAST_PIXELS, "corrupting")
    require_library()
    classes = [match_classes(subject, source, common_only=common_only) for subject in subjects]
    cells = [(name, severity) for name in corruptions for severity in severities]
    indices = choose(len(source), limit, seed)
    answers: list[list[Outcomes]] = [[] for _ in subjects]
    with ExitStack() as stack:
        submit = _submitter(stack, workers)
        for group in _sharing(subjects):
            batches = read_batches(
                source, subjects[group[0]].data, batch_size=max(1, batch_size // (1 + len(cells))), indices=indices
            )
            asked = (b for b in batches if any((classes[i][b.targets] >= 0).any() for i in group))
            pending = ((b.targets, submit(b.pixels, b.indices, cells, seed)) for b in asked)
            for targets, versions in _ahead(pending, 2 * workers):
                images = versions()
                for i in group:
                    answers[i] += _classify(subjects[i], images, classes[i][targets])
                if progress:
                    progress(len(images) * len(cells))
    return [
        _result(subject, concatenate(outcomes), tuple(corruptions), tuple(severities))
        for subject, outcomes in zip(subjects, answers, strict=True)
    ]


def _sharing(subjects: Sequence[Subject]) -> list[list[int]]:
    """Positions of the models, those together whose evaluation makes the same pixels of an image."""
    groups: dict[Any, list[int]] = {}
    for index, subject in enumerate(subjects):
        data = subject.data
        groups.setdefault((data.size, data.eval_interpolation, data.eval_crop, data.crop_pct), []).append(index)
    return list(groups.values())


def _submitter(stack: ExitStack, workers: int) -> Callable[..., Callable[[], np.ndarray]]:
    """A function that begins `corrupt_versions` and returns one that waits for the result."""
    if workers <= 0:
        return lambda *arguments: partial(corrupt_versions, *arguments)
    # Forked children of a process with threads can hang; spawned ones start slowly, once.
    context = multiprocessing.get_context("spawn")
    pool = stack.enter_context(ProcessPoolExecutor(workers, mp_context=context, initializer=start_worker))
    stack.callback(pool.shutdown, cancel_futures=True)  # after an error there is no use in what still waits
    return lambda *arguments: pool.submit(corrupt_versions, *arguments).result


def _ahead(items: Iterable[Item], count: int) -> Iterator[Item]:
    """The items in order, each made when the one `count` places before it is handed out."""
    waiting: deque[Item] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


def _classify(subject: Subject, versions: np.ndarray, targets: np.ndarray) -> list[Outcomes]:
    """Outcomes of all versions (B, V, H, W, 3) of the images whose target (B,) is not −1, image by image."""
    kept = versions[targets >= 0]
    if len(kept) == 0:
        return []
    pixels = kept.reshape(-1, *kept.shape[2:])
    logits = logits_of(subject, pixels, batch_size=len(pixels))
    return [outcomes_of(logits, np.repeat(targets[targets >= 0], kept.shape[1]))]


def _result(
    subject: Subject, outcomes: Outcomes, names: tuple[str, ...], severities: tuple[int, ...]
) -> CorruptionResult:
    shape = (-1, 1 + len(names) * len(severities))
    hits = (outcomes.predictions == outcomes.targets).reshape(shape)
    confidences = outcomes.confidences.reshape(shape)
    figures = np.asarray([cell_figures(h, c) for h, c in zip(hits.T, confidences.T, strict=True)])
    clean, table = figures[0], figures[1:].reshape(len(names), len(severities), 3)
    return CorruptionResult(
        model=subject.name,
        corruptions=names,
        severities=severities,
        error=table[..., 0],
        confidence=table[..., 1],
        calibration=table[..., 2],
        clean_error=float(clean[0]),
        clean_confidence=float(clean[1]),
        clean_calibration=float(clean[2]),
        count=len(hits),
    )
