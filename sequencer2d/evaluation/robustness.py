"""The 15 corruptions of ImageNet-C at 5 severities (Hendrycks and Dietterich 2019), made on the fly for any data set.

The corruptions are those of the library imagecorruptions-imaug, whose strengths are tuned for images of 224 pixels: on
much smaller ones the same severity destroys more. They are applied after resizing and cropping, as for ImageNet-C
itself; unlike there, the result is not compressed as JPEG once more.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sequencer2d.data.sources import Source
from sequencer2d.errors import ConfigError, InputError, UserError
from sequencer2d.evaluation.classify import Outcomes, calibration_error, concatenate
from sequencer2d.evaluation.outcomes import logits_of, outcomes_of
from sequencer2d.evaluation.pixels import Progress, check_size, choose, match_classes, read_batches
from sequencer2d.evaluation.subject import Subject
from sequencer2d.files import atomic_write

SEVERITIES = (1, 2, 3, 4, 5)
LEAST_PIXELS = 32

# Mean error of AlexNet over the five severities of each corruption on ImageNet-C, which mCE divides by.
ALEXNET_ERRORS: dict[str, float] = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
CORRUPTIONS = tuple(ALEXNET_ERRORS)
# Share of pixels that impulse noise sets to black or white, per severity, as in ImageNet-C.
IMPULSE_AMOUNTS = (0.03, 0.06, 0.09, 0.17, 0.27)


@dataclass(frozen=True)
class CorruptionResult:
    """Errors under corruption.

    Attributes:
        model: its name.
        corruptions, severities: the rows and columns of the arrays.
        error: (rows, columns) top-1 error, 0 to 1.
        confidence: (rows, columns) mean probability of the predicted class.
        calibration: (rows, columns) expected calibration error, 0 to 1.
        clean_error, clean_confidence, clean_calibration: the same without corruption.
        count: images.
        imagenet: whether the classes are those of ImageNet-1K, for which AlexNet's errors exist.
    """

    model: str
    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    error: np.ndarray
    confidence: np.ndarray
    calibration: np.ndarray
    clean_error: float
    clean_confidence: float
    clean_calibration: float
    count: int
    imagenet: bool

    @property
    def mean_error(self) -> float:
        """Mean top-1 error over corruptions and severities, 0 to 1, not normalised."""
        return float(self.error.mean())

    @property
    def mce(self) -> float | None:
        """Mean corruption error in percent of AlexNet's; None unless all 15 × 5 were run with ImageNet's classes."""
        complete = set(self.corruptions) == set(CORRUPTIONS) and self.severities == SEVERITIES
        return mean_corruption_error(self.error, self.corruptions) if self.imagenet and complete else None

    def save(self, path: str | Path) -> None:
        """Write the arrays as `.npz`."""
        values = {key: value for key, value in vars(self).items() if value is not None}
        with atomic_write(path) as file:
            np.savez_compressed(file, allow_pickle=False, **{key: np.asarray(value) for key, value in values.items()})


def mean_corruption_error(error: np.ndarray, corruptions: Sequence[str] = CORRUPTIONS) -> float:
    """mCE in percent: the mean over corruptions of Σ_s error / Σ_s AlexNet's error (Hendrycks and Dietterich, sec.
    4.2)."""
    alexnet = np.asarray([ALEXNET_ERRORS[name] for name in corruptions])
    return float(100 * (np.asarray(error).mean(axis=1) / alexnet).mean())


def corrupt(pixels: np.ndarray, name: str, severity: int, seed: int = 0) -> np.ndarray:
    """One image, uint8 (H, W, 3), corrupted: the same result for the same seed.

    Raises:
        ConfigError: an unknown corruption or severity.
        InputError: an image with fewer than 32 pixels along a side.
        UserError: the library is not installed.
    """
    if name not in CORRUPTIONS:
        raise ConfigError(f"no corruption {name!r}; there are: {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise ConfigError(f"severity {severity}; expected 1 to 5")
    if min(pixels.shape[:2]) < LEAST_PIXELS:
        raise InputError(f"corruptions need images of at least 32×32 pixels, got {pixels.shape[0]}×{pixels.shape[1]}")
    library = _library()
    if name == "impulse_noise":
        return _impulse_noise(pixels, IMPULSE_AMOUNTS[severity - 1], seed)
    state = np.random.get_state()
    np.random.seed(seed)  # the library draws from numpy's global generator
    try:
        options = {"seed": seed} if name == "glass_blur" else {}
        return np.asarray(library(np.ascontiguousarray(pixels), severity=severity, corruption_name=name, **options))
    finally:
        np.random.set_state(state)


def corruption_errors(
    subject: Subject,
    source: Source,
    *,
    corruptions: Sequence[str] = CORRUPTIONS,
    severities: Sequence[int] = SEVERITIES,
    limit: int | None = None,
    seed: int = 0,
    workers: int = 0,
    batch_size: int = 64,
    common_only: bool = False,
    progress: Progress | None = None,
) -> CorruptionResult:
    """Errors, confidence and calibration of a classifier under each corruption and severity.

    Args:
        limit: at most so many images, a random sample; the same ones under every corruption.
        seed: of the sample and of the corruptions.
        workers: processes that corrupt; 0: this one.
        common_only: leave out classes of the data that the model does not have.
        progress: called with the number of corrupted images done.

    Raises:
        ConfigError: an unknown corruption or severity, or classes that do not match.
        DataError: an image that cannot be read.
        InputError: a model whose images are smaller than 32 pixels.
    """
    _check_names(corruptions, severities)
    check_size(subject.data, LEAST_PIXELS, "corrupting")
    _library()
    classes = match_classes(subject, source, common_only=common_only)
    cells = [(name, severity) for name in corruptions for severity in severities]
    parts: dict[Any, list[Outcomes]] = {cell: [] for cell in [None, *cells]}
    with ExitStack() as stack:
        run = _runner(stack, workers)
        for batch in read_batches(
            source, subject.data, batch_size=batch_size, indices=choose(len(source), limit, seed)
        ):
            keep = classes[batch.targets] >= 0
            pixels, targets, indices = batch.pixels[keep], classes[batch.targets[keep]], batch.indices[keep]
            if len(pixels) == 0:
                continue
            parts[None].append(outcomes_of(logits_of(subject, pixels), targets))
            for name, severity in cells:
                changed = run(
                    [
                        (image, name, severity, _seed(seed, int(i), name, severity))
                        for image, i in zip(pixels, indices, strict=True)
                    ]
                )
                parts[name, severity].append(outcomes_of(logits_of(subject, np.stack(changed)), targets))
                if progress:
                    progress(len(pixels))
    return _result(subject, parts, tuple(corruptions), tuple(severities))


def _result(
    subject: Subject, parts: dict[Any, list[Outcomes]], names: tuple[str, ...], severities: tuple[int, ...]
) -> CorruptionResult:
    figures = {cell: _figures(concatenate(outcomes)) for cell, outcomes in parts.items()}
    table = np.asarray([[figures[name, severity] for severity in severities] for name in names])
    clean = figures[None]
    return CorruptionResult(
        model=subject.name,
        corruptions=names,
        severities=severities,
        error=table[..., 0],
        confidence=table[..., 1],
        calibration=table[..., 2],
        clean_error=clean[0],
        clean_confidence=clean[1],
        clean_calibration=clean[2],
        count=sum(len(outcomes.targets) for outcomes in parts[None]),
        imagenet=len(subject.class_names) == 1000,
    )


def _figures(outcomes: Outcomes) -> tuple[float, float, float]:
    hits = outcomes.predictions == outcomes.targets
    return 1 - float(hits.mean()), float(outcomes.confidences.mean()), calibration_error(outcomes.confidences, hits)


def _runner(stack: ExitStack, workers: int) -> Callable[[list[tuple[Any, ...]]], list[np.ndarray]]:
    if workers <= 0:
        return lambda tasks: [corrupt(*task) for task in tasks]
    import multiprocessing

    # Forked children of a process with threads can hang; spawned ones start slowly, once.
    pool = stack.enter_context(ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")))
    return lambda tasks: list(pool.map(_corrupt_task, tasks, chunksize=max(1, len(tasks) // (4 * workers))))


def _impulse_noise(pixels: np.ndarray, amount: float, seed: int) -> np.ndarray:
    """The library's own call, with a seed: it lets the noise draw from a generator that nobody can set."""
    from skimage.util import random_noise

    return np.rint(random_noise(pixels / 255, mode="s&p", amount=amount, rng=seed) * 255).astype(np.uint8)


def _corrupt_task(task: tuple[Any, ...]) -> np.ndarray:
    return corrupt(*task)


def _seed(seed: int, index: int, name: str, severity: int) -> int:
    return int(np.random.SeedSequence([seed, index, CORRUPTIONS.index(name), severity]).generate_state(1)[0])


def _check_names(corruptions: Sequence[str], severities: Sequence[int]) -> None:
    for name in corruptions:
        if name not in CORRUPTIONS:
            raise ConfigError(f"no corruption {name!r}; there are: {', '.join(CORRUPTIONS)}")
    wrong = [severity for severity in severities if severity not in SEVERITIES]
    if wrong or not corruptions or not severities:
        raise ConfigError(
            f"severities {tuple(severities)} of corruptions {tuple(corruptions)}: expected some of each, 1 to 5"
        )


def _library() -> Callable[..., Any]:
    try:
        from imagecorruptions import corrupt as library
    except ImportError as error:
        raise UserError(
            f"corruptions need the library imagecorruptions-imaug: pip install 'sequencer2d[analysis]' ({error})"
        ) from error
    return library  # type: ignore[no-any-return]
