"""Charts of what was measured: resolution, corruptions, attacks, calibration; one line or heat map per model.

Axes of shares begin at 0, and every share of a sample of images has its confidence band.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sequencer2d.analysis.drawing import (
    BANDS,
    SMALL,
    caption,
    color_bar,
    figure_function,
    label_axes,
    new_figure,
    share_line,
)
from sequencer2d.evaluation.attacks import AttackResult
from sequencer2d.evaluation.intervals import wilson
from sequencer2d.evaluation.mce import CorruptionResult
from sequencer2d.evaluation.resolution import ResolutionResult

DARK = 0.55
"""Part of the scale of errors above which its colors are dark."""


@figure_function
def resolution_chart(results: Sequence[ResolutionResult]) -> Any:
    """Accuracy over the input size, absolute and relative to the native size (Figure 3 a, b)."""
    figure, left, right = _two_charts()
    accuracy_by_size(left, right, results)
    caption(
        figure,
        f"Accuracy at other input sizes than the {results[0].native} pixels of training (dashed), without "
        f"fine-tuning, on {results[0].count} images. {BANDS}; on the right they leave out how uncertain the accuracy "
        "at the native size is.",
    )
    return figure


def accuracy_by_size(left: Any, right: Any, results: Sequence[ResolutionResult]) -> None:
    """Draw accuracy over the input size on two axes: absolute on the left one, relative on the right one."""
    for result in results:
        share_line(left, result.sizes, result.top1, result.count, marker="o", label=result.model)
        native = float(result.top1[list(result.sizes).index(result.native)]) or math.nan
        share_line(right, result.sizes, result.top1, result.count, whole=native, marker="o")
    for axis in (left, right):
        axis.axvline(results[0].native, color="0.6", lw=0.8, ls="--")
        axis.set_ylim(bottom=0)
    _label(left, "side of the input, pixels", "top-1 accuracy, %")
    _label(right, "side of the input, pixels", "top-1 accuracy, % of that at the native size")
    left.legend()


@figure_function
def corruption_chart(results: Sequence[CorruptionResult]) -> Any:
    """Error by corruption and severity, one heat map per model, on one scale: that of the errors that occur."""
    figure = new_figure(3.1 * len(results) + 1.6, 5.2)
    axes = figure.subplots(1, len(results), squeeze=False, sharey=True)
    tables = [_errors(result) for result in results]
    low, high = _whole_tens(np.concatenate([table.ravel() for table in tables]))
    for axis, result, table in zip(axes[0], results, tables, strict=True):
        columns = [str(severity) for severity in result.severities]
        if table.shape[1] > len(columns):
            columns.insert(0, "clean")
        picture = axis.imshow(table, cmap="viridis_r", vmin=low, vmax=high, aspect="auto")
        for (row, column), value in np.ndenumerate(table):
            color = "w" if value > low + DARK * (high - low) else "k"
            axis.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=SMALL, color=color)
        axis.set_xticks(range(len(columns)), columns)
        axis.set_yticks(range(len(result.corruptions)), [name.replace("_", " ") for name in result.corruptions])
        label_axes(axis, "severity", "")
        mce = f", mCE {result.mce:.1f} %" if result.mce is not None else ""
        axis.set_title(f"{result.model}\nmean error {100 * result.mean_error:.1f} %{mce}", fontsize=8)
    color_bar(figure, picture, axes, "top-1 error, %")
    count = results[0].count
    caption(
        figure,
        f"Top-1 error in percent, {count} images: each number is certain to about ±{_half_width(count):.0f} points "
        f"(95 % confidence). Colors run from {low:.0f} to {high:.0f} %. {_first_up(results[0].title)}.",
    )
    return figure


def _errors(result: CorruptionResult) -> np.ndarray:
    """(corruptions, severities) errors in percent; with a first column of the error without corruption, if known."""
    if np.isnan(result.clean_error):
        return 100 * result.error
    return 100 * np.column_stack([np.full(len(result.error), result.clean_error), result.error])


def _whole_tens(values: np.ndarray) -> tuple[float, float]:
    """The multiples of ten around all values."""
    low = 10 * math.floor(float(values.min()) / 10)
    return low, max(low + 10, 10 * math.ceil(float(values.max()) / 10))


def _half_width(count: int) -> float:
    """Half the width, in points, of the confidence interval of a share of one half, where it is widest."""
    low, high = wilson(count / 2, count)
    return 50 * (high - low)


@figure_function
def calibration_chart(results: Sequence[CorruptionResult]) -> Any:
    """Accuracy, confidence and calibration error over severity, means over the corruptions."""
    figure, left, right = _two_charts()
    for index, result in enumerate(results):
        x, color = [0, *result.severities], f"C{index}"
        accuracy = 1 - np.asarray([result.clean_error, *result.error.mean(axis=0)])
        confidence = 100 * np.asarray([result.clean_confidence, *result.confidence.mean(axis=0)])
        error = 100 * np.asarray([result.clean_calibration, *result.calibration.mean(axis=0)])
        share_line(left, x, accuracy, result.count, color=color, marker="o", label=f"{result.model}: accuracy")
        left.plot(x, confidence, color=color, marker="s", ls="--", label=f"{result.model}: confidence")
        right.plot(x, error, color=color, marker="o", label=result.model)
    _label(left, "severity of corruption (0: clean)", "accuracy and mean confidence, %")
    _label(right, "severity of corruption (0: clean)", "expected calibration error, %")
    for axis in (left, right):
        axis.set_ylim(bottom=0)
        axis.legend()
    caption(
        figure,
        "Calibration under shift: where the dashed confidence lies above the accuracy, the model is too sure of "
        "itself. Calibration error: how far the two lie apart, mean over bins of equal confidence; few images make it "
        f"look larger than it is. Means over {len(results[0].corruptions)} corruptions, {results[0].count} images. "
        f"{BANDS}. {_first_up(results[0].title)}.",
    )
    return figure


@figure_function
def attack_chart(results: Sequence[AttackResult]) -> Any:
    """Accuracy over the radius of the attack."""
    figure = new_figure(5.2, 3.7)
    axis = figure.subplots()
    models = list(dict.fromkeys(result.model for result in results))
    for result in results:
        x = np.concatenate([[0], 255 * result.epsilons])
        y = np.concatenate([[result.clean_accuracy], result.accuracy])
        label = f"{result.model}, {result.attack.upper()}" + (f" ({result.steps} steps)" if result.steps > 1 else "")
        # Where the two attacks do the same, both still show: rings around points.
        looks = {"ls": "-"} if result.attack == "pgd" else {"ls": "--", "ms": 6, "mfc": "none"}
        color = f"C{models.index(result.model)}"
        share_line(axis, x, y, result.count, color=color, marker="o", label=label, **looks)
    _label(axis, "ε: largest change of a pixel, levels of 255", "top-1 accuracy, %")
    axis.set_ylim(bottom=0)
    axis.legend()
    caption(
        figure,
        "Accuracy on images changed by at most ε in every pixel so as to fool the model, by one step along the "
        f"gradient (FGSM) or several (PGD{_pgd_settings(results)}), {results[0].count} images. {BANDS}.",
    )
    return figure


def _two_charts() -> tuple[Any, Any, Any]:
    figure = new_figure(8.4, 3.7)
    return figure, *figure.subplots(1, 2)


def _label(axis: Any, x: str, y: str) -> None:
    label_axes(axis, x, y)
    axis.grid(alpha=0.25)


def _first_up(text: str) -> str:
    return text[0].upper() + text[1:]


def _pgd_settings(results: Sequence[AttackResult]) -> str:
    """How PGD ran, for a caption; nothing where it did not."""
    result = next((result for result in results if result.attack == "pgd"), None)
    if result is None:
        return ""
    sizes = [f"{255 * size:g}/255" for size in result.step_sizes]
    size = sizes[0] if len(set(sizes)) == 1 else f"{sizes[0]} to {sizes[-1]} as ε grows"
    return f": {result.steps} steps of {size}, from {'a random start' if result.random_start else 'the image'}"
