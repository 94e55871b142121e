"""Errors under corruption as one result, and the mean corruption error (mCE) of Hendrycks and Dietterich (2019)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sequencer2d.errors import ConfigError
from sequencer2d.evaluation.corruptions import CORRUPTIONS, SEVERITIES
from sequencer2d.files import atomic_write
from sequencer2d.tasks.accuracy import calibration_error

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


@dataclass(frozen=True)
class CorruptionResult:
    """Errors under corruption, of the released ImageNet-C or made on the fly.

    Attributes:
        model: its name.
        corruptions, severities: the rows and columns of the arrays.
        error: (rows, columns) top-1 error, 0 to 1.
        confidence: (rows, columns) mean probability of the predicted class.
        calibration: (rows, columns) expected calibration error, 0 to 1.
        clean_error, clean_confidence, clean_calibration: the same without corruption; nan where it was not measured.
        count: images under each corruption and severity.
        released: whether the images are files of a release (`imagenet_c`) or were corrupted on the fly
            (`robustness`), which is another benchmark.
        imagenet: whether the model was asked among the 1000 classes of ImageNet-1K, as AlexNet was.
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
    released: bool = False
    imagenet: bool = False

    @property
    def mean_error(self) -> float:
        """Mean top-1 error over corruptions and severities, 0 to 1, not normalized."""
        return float(self.error.mean())

    @property
    def mce(self) -> float | None:
        """Mean corruption error in percent of AlexNet's.

        It is None unless all 15 × 5 cells of the release were run with ImageNet's classes.
        """
        complete = set(self.corruptions) == set(CORRUPTIONS) and set(self.severities) == set(SEVERITIES)
        comparable = self.released and self.imagenet and complete
        return mean_corruption_error(self.error, self.corruptions) if comparable else None

    @property
    def title(self) -> str:
        """What was measured, for captions."""
        if not self.released:
            return "corruptions made on the fly (not ImageNet-C: no mCE)"
        return "images of the released ImageNet-C" if self.imagenet else "released images in ImageNet-C's layout"

    def save(self, path: str | Path) -> None:
        """Write the arrays as `.npz`."""
        values = {**vars(self), **({} if self.mce is None else {"mce": self.mce})}
        with atomic_write(path) as file:
            np.savez_compressed(file, allow_pickle=False, **{key: np.asarray(value) for key, value in values.items()})


def mean_corruption_error(error: np.ndarray, corruptions: Sequence[str] = CORRUPTIONS) -> float:
    """mCE in percent: the mean over corruptions of Σ_s error / Σ_s AlexNet's error.

    Source: Hendrycks and Dietterich, section 4.2.
    """
    alexnet = np.asarray([ALEXNET_ERRORS[name] for name in corruptions])
    return float(100 * (np.asarray(error).mean(axis=1) / alexnet).mean())


def cell_figures(hits: np.ndarray, confidences: np.ndarray) -> tuple[float, float, float]:
    """Error, mean confidence and expected calibration error, 0 to 1, of the images of one cell."""
    return 1 - float(hits.mean()), float(confidences.mean()), calibration_error(confidences, hits)


def check_names(corruptions: Sequence[str], severities: Sequence[int]) -> None:
    """Raise `ConfigError` for an unknown corruption or severity, for one named twice, or for none."""
    for name in corruptions:
        if name not in CORRUPTIONS:
            raise ConfigError(f"no corruption {name!r}; there are: {', '.join(CORRUPTIONS)}")
    for severity in severities:
        if severity not in SEVERITIES:
            raise ConfigError(f"no severity {severity}; there are 1 to 5")
    for named in (corruptions, severities):
        if twice := [value for value in named if list(named).count(value) > 1]:
            raise ConfigError(f"{twice[0]} is named twice: name each corruption and severity once")
    if not corruptions or not severities:
        raise ConfigError("no corruption or no severity to apply: name at least one of each")
