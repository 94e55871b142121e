"""The confusion matrix: colors, numbers and names of its cells."""

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib")

from sequencer2d.analysis.evaluation_report import MOST_NUMBERS, confusion_figure
from sequencer2d.tasks.accuracy import AccuracyMeter, ClassificationResult


def result(counts: list[list[int]], names: tuple[str, ...]) -> ClassificationResult:
    """The result of so many images of each class (row) and prediction (column)."""
    meter = AccuracyMeter(names)
    pairs = [(t, g) for t, row in enumerate(counts) for g, number in enumerate(row) for _ in range(number)]
    meter.add(torch.eye(len(names))[[guess for _, guess in pairs]], torch.tensor([truth for truth, _ in pairs]))
    return meter.result([meter.state()], 0)


def test_a_cell_has_the_share_of_its_row_and_white_letters_on_dark_colors() -> None:
    figure = confusion_figure(result([[7, 3, 0], [4, 6, 0], [1, 0, 1]], ("cat", "dog", "a" * 30)), "model, data")
    axes, bar = figure.axes
    (image,) = axes.images
    np.testing.assert_allclose(image.get_array(), [[0.7, 0.3, 0], [0.4, 0.6, 0], [0.5, 0, 0.5]])
    assert image.get_clim() == (0, 1)
    texts = {tuple(map(int, text.get_position()[::-1])): (text.get_text(), text.get_color()) for text in axes.texts}
    assert texts == {
        (0, 0): ("7", "w"), (0, 1): ("3", "k"), (1, 0): ("4", "k"), (1, 1): ("6", "k"), (2, 0): ("1", "k"),
        (2, 2): ("1", "k"),
    }  # fmt: skip
    names = ["cat", "dog", "a" * 24]
    assert [label.get_text() for label in axes.get_xticklabels()] == names
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("predicted", "truth", "model, data")
    assert bar.get_ylabel() == "share of the images of a class"
    assert figure.get_size_inches().tolist() == [5, 4]


def test_many_classes_have_a_larger_figure_and_no_numbers() -> None:
    for count, numbers in ((MOST_NUMBERS, MOST_NUMBERS), (MOST_NUMBERS + 1, 0)):
        figure = confusion_figure(result(np.eye(count, dtype=int).tolist(), tuple(map(str, range(count)))), "")
        side = max(4, 0.28 * count + 2)
        assert figure.get_size_inches() == pytest.approx([side + 1, side])
        assert len(figure.axes[0].texts) == numbers
