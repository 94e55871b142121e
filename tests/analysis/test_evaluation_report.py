"""The confusion matrix: colors, numbers and names of its cells."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib")

from sequencer2d.analysis import evaluation_report
from sequencer2d.analysis.evaluation_report import MOST_NUMBERS, confusion_figure
from sequencer2d.evaluation.mistakes import Judged
from sequencer2d.evaluation.predict import Prediction
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


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_pairs_and_classes_are_written_as_tables(tmp_path: Path) -> None:
    found = result([[7, 3, 0], [4, 6, 0], [0, 0, 0]], ("cat", "dog", "owl"))
    files = evaluation_report.write_confusion(found, tmp_path, "title")
    assert [path.name for path in files] == ["confusion.csv", "classes.csv", "confusion.png"]
    assert lines(tmp_path / "confusion.csv") == [
        "truth,predicted,images", "cat,cat,7", "dog,dog,6", "dog,cat,4", "cat,dog,3",
    ]  # fmt: skip
    assert lines(tmp_path / "classes.csv") == [
        "class,images,right,accuracy_percent,predicted,precision_percent",
        "cat,10,7,70.0,11,63.64", "dog,10,6,60.0,9,66.67", "owl,0,0,,0,",
    ]  # fmt: skip


@pytest.mark.parametrize(("wrong", "shown", "columns"), [(3, 3, 3), (24, 24, 6), (25, 24, 6)])
def test_the_most_confident_mistakes_are_drawn(
    wrong: int, shown: int, columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(
        evaluation_report, "draw_predictions", lambda *given, **named: drawn.append((*given, named)) or given[2]
    )

    def judged(number: int, guess: str) -> Any:
        found: Any = SimpleNamespace(guesses=[SimpleNamespace(name=guess, probability=number / 100)])
        return Judged(Prediction(f"{number}.png", found), "cat")

    every = [judged(99, "cat"), *(judged(number + 1, "dog") for number in range(wrong))]
    files = evaluation_report.write_mistakes(every, tmp_path, "m")
    assert [path.name for path in files] == ["mistakes.csv", "mistakes.png"]
    rows = lines(tmp_path / "mistakes.csv")
    assert rows[0] == "path,truth,predicted,probability"
    assert rows[1] == f"{wrong}.png,cat,dog,{wrong / 100}"
    assert len(rows) == 1 + wrong
    ((predictions, truths, _, named),) = drawn
    assert [one.path for one in predictions] == [f"{number}.png" for number in range(wrong, wrong - shown, -1)]
    assert truths == ["cat"] * shown
    which = "the 24 most confident" if wrong > 24 else "the most confident first"
    assert named == {"columns": columns, "title": f"m\n{wrong} of {wrong + 1} images are wrong, {which}"}
    assert [path.name for path in evaluation_report.write_mistakes(every[:1], tmp_path, "m")] == ["mistakes.csv"]
