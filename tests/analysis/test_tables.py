"""Tables, cells and pictures of reports: what is divided by what, which cells have numbers, how long a frame stays."""

import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("matplotlib")

from matplotlib.colors import to_rgba

from sequencer2d.analysis.animation import GAP, GRAY, HELD, write_animation
from sequencer2d.analysis.comparison import draw_comparison
from sequencer2d.analysis.drawing import caption, label_axes, new_figure, share_line, show_map
from sequencer2d.analysis.erf import Shape, _token_side, measure
from sequencer2d.analysis.erf_methods import METHODS
from sequencer2d.analysis.evaluation_report import class_table, confusion_figure, write_confusion
from sequencer2d.analysis.figure_files import DPI, FORMATS, save_figure
from sequencer2d.analysis.hidden_states import HiddenStates
from sequencer2d.analysis.report_page import _cell, _class, _table, _uncertainty
from sequencer2d.analysis.samples import _spaced
from sequencer2d.errors import ConfigError
from sequencer2d.evaluation.intervals import wilson
from sequencer2d.tasks import CLASSIFICATION
from sequencer2d.tasks.accuracy import ClassificationResult
from tests.models.small import small_model


def result(names: tuple[str, ...], pairs: tuple[tuple[int, int, int], ...]) -> ClassificationResult:
    return ClassificationResult(50, 100, 0.5, 1, (None,) * len(names), names, 9, 0, pairs)


CATS = result(("cat", "dog", "eel"), ((0, 0, 2), (0, 1, 1), (1, 0, 4)))


def test_shares_of_a_class_are_of_its_images_and_of_its_predictions(tmp_path: Path) -> None:
    cat, dog, eel = class_table(CATS)
    assert cat == {
        "class": "cat", "images": 3, "right": 2, "accuracy_percent": 66.67, "predicted": 6, "precision_percent": 33.33,
    }  # fmt: skip
    assert [row["accuracy_percent"] for row in (dog, eel)] == [0, ""]
    assert [row["precision_percent"] for row in (dog, eel)] == [0, ""]
    write_confusion(CATS, tmp_path, "x")
    assert (tmp_path / "confusion.csv").read_text() == "truth,predicted,images\ndog,cat,4\ncat,cat,2\ncat,dog,1\n"
    assert (tmp_path / "confusion.png").exists()


def test_a_confusion_matrix_is_colored_by_shares_and_light_on_dark_cells() -> None:
    (axes, _) = confusion_figure(CATS, "a title").axes
    np.testing.assert_allclose(axes.images[0].get_array(), [[2 / 3, 1 / 3, 0], [1, 0, 0], [0, 0, 0]])
    assert axes.images[0].get_clim() == (0, 1)
    found = {text.get_position(): (text.get_text(), text.get_color()) for text in axes.texts}
    assert found == {(0, 0): ("2", "w"), (1, 0): ("1", "k"), (0, 1): ("4", "w")}
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("predicted", "truth", "a title")
    even = result(("a", "b"), ((0, 0, 3), (0, 1, 2)))  # 0.6 is not dark
    assert [text.get_color() for text in confusion_figure(even, "").axes[0].texts] == ["k", "k"]
    for count, numbers in ((20, 1), (21, 0)):
        drawn = confusion_figure(result(tuple(map(str, range(count))), ((0, 0, 1),)), "")
        assert len(drawn.axes[0].texts) == numbers
    assert confusion_figure(CATS, "").get_size_inches().tolist() == [5, 4]
    assert confusion_figure(result(("a",) * 20, ()), "").get_size_inches().tolist() == pytest.approx([8.6, 7.6])


@pytest.mark.parametrize("count, drawn", [(60, True), (61, False)])
def test_a_matrix_of_more_than_sixty_classes_is_not_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, drawn: bool
) -> None:
    made: list[Path] = []
    module = "sequencer2d.analysis.evaluation_report"
    monkeypatch.setattr(f"{module}.confusion_figure", lambda *_: None)
    monkeypatch.setattr(f"{module}.save_figure", lambda figure, path, formats: made.append(path) or [path])
    files = write_confusion(result(tuple(f"c{k}" for k in range(count)), ((0, 0, 1),)), tmp_path, "x")
    assert (bool(made), len(files)) == (drawn, 2 + drawn)


def test_cells_of_a_reports_tables() -> None:
    assert [_cell(value) for value in (1.25, 3, "x", math.nan, math.inf)] == ["1.2", "3", "x", "–", "–"]
    assert [_class(value) for value in (1, 1.5, "x")] == [' class="number"'] * 2 + [""]
    assert _table([]) == ""
    assert "<th>a&lt;</th>" in _table([{"a<": "b&"}])
    assert "<td>b&amp;</td>" in _table([{"a<": "b&"}])
    assert _uncertainty(100) == pytest.approx(9.8)


def test_images_are_evenly_spaced() -> None:
    assert [_spaced(*numbers) for numbers in ((3, 8), (8, 3), (9, 3), (1, 4), (5, 5))] == [
        [0, 1, 2], [0, 3, 7], [0, 4, 8], [0], [0, 1, 2, 3, 4],
    ]  # fmt: skip


def test_a_frame_stays_160_ms_and_the_last_one_seven_times_as_long() -> None:
    """Two rows and three columns of tokens, 80 pixels a token: three steps; every second one ends with the last."""
    values = np.random.default_rng(0).normal(size=(4, 2, 3, 2)).astype(np.float32)
    states = HiddenStates("m", "b", np.zeros((4, 6, 3), np.uint8), values, values[0], (0, 1, 2, 3))
    for every, frames in ((1, 3), (2, 2)):
        file = io.BytesIO()
        write_animation(states, file, every=every)
        with Image.open(file) as found:
            times = []
            for number in range(found.n_frames):
                found.seek(number)
                times.append(found.info["duration"])
            assert found.size == (5 * 240 + 4 * GAP, 20 + 160)
            found.seek(0)
            first = np.asarray(found.convert("RGB"))
        assert sum(times) == 160 * (frames + HELD)
        assert times[-1] == 160 * (1 + HELD)
    assert HELD == 6
    assert first[20, 240 + GAP].tolist() != GRAY.tolist(), "the scan from the top has begun"
    assert first[20 + 159, 240 + GAP].tolist() == GRAY.tolist(), "and has not reached the second row"
    assert first[21, -1].tolist() != GRAY.tolist(), "the scan from the right began there"
    assert first[21, -240].tolist() == GRAY.tolist(), "and has not reached the left"


def test_a_field_whose_arms_hold_twice_as_much_is_a_cross() -> None:
    shape = Shape(0, 0, 0, 2.0, 0, 0, 0, 0)
    assert shape.cruciform
    assert not replace(shape, arm_ratio=1.99).cruciform
    values = np.zeros((9, 9))
    values[4, 4] = 1
    assert np.isnan(measure(values, (4, 4, 5, 5)).arm_ratio)
    values[4, 2] = 1
    assert measure(values, (4, 4, 5, 5)).arm_ratio == math.inf


def test_the_two_methods_and_their_numbers() -> None:
    numbers = {
        name: (method.gamma, method.images, method.augmented, method.averaged) for name, method in METHODS.items()
    }
    assert numbers == {"energy": (0.5, 50, False, True), "paper": (1.0, 34, True, False)}
    assert [METHODS["paper"].token(count) for count in (1, 2, 3, 8)] == [0, 0, 0, 3]
    assert [METHODS["energy"].token(count) for count in (1, 2, 3, 8)] == [0, 1, 1, 4]


def test_tokens_of_unknown_models_reach_beyond_the_image() -> None:
    assert [_token_side(object(), *numbers) for numbers in ((41, 3), (40, 4), (224, 7))] == [14, 10, 32]  # type: ignore[arg-type]
    assert _token_side(small_model(), 56, 4) == 14


def test_lines_of_shares_are_in_percent_with_their_intervals() -> None:
    figure = new_figure(4, 3)
    assert figure.get_size_inches().tolist() == [4, 3]
    axis = figure.subplots()
    share_line(axis, [0, 1], [0.25, 0.5], 16, whole=0.5, color="red")
    assert axis.lines[0].get_ydata().tolist() == [50, 100]
    band = axis.collections[0]
    low, high = wilson(4, 16)
    assert sorted({y for x, y in band.get_paths()[0].vertices if x == 0}) == pytest.approx([200 * low, 200 * high])
    assert band.get_facecolor()[0].tolist() == pytest.approx([*to_rgba("red")[:3], 0.15])
    label_axes(axis, "x", "y")
    assert (axis.get_xlabel(), axis.get_ylabel(), axis.xaxis.get_ticklabels()[0].get_size()) == ("x", "y", 7)
    caption(figure, "word " * 40)
    assert max(map(len, figure.get_supxlabel().splitlines())) in range(64, 69), "17 characters an inch"
    shown = show_map(new_figure(1, 1).subplots(), np.eye(2))
    assert (shown.get_interpolation(), len(shown.axes.get_xticks()), len(shown.axes.get_yticks())) == ("nearest", 0, 0)


def test_figures_are_written_in_the_formats_asked_for(tmp_path: Path) -> None:
    def drawn() -> Any:
        figure = new_figure(2, 1)
        figure.subplots().plot([0, 1])
        return figure

    files = save_figure(drawn(), tmp_path / "a.x.ignored")
    assert [path.name for path in files] == ["a.x.pdf", "a.x.svg", "a.x.png"]
    assert list(FORMATS) == ["pdf", "svg", "png"]
    assert DPI == 130
    with Image.open(files[2]) as image:
        assert image.mode == "P", "few colors"
    again = save_figure(drawn(), tmp_path / "again.png")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in files], "the same figure"
    with pytest.raises(ConfigError, match="no figure format 'jpg'; choose among pdf, svg, png"):
        save_figure(drawn(), tmp_path / "a", ("png", "jpg"))


def test_runs_are_compared_in_a_color_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs without an evaluation have no points of it, and a loss that is not finite is a gap."""
    figures = []
    monkeypatch.setattr("sequencer2d.analysis.comparison.figure_bytes", lambda figure: figures.append(figure) or b"x")
    epochs = [{"kind": "epoch", "epoch": k + 1, "train_loss": 1.0 / (k + 1)} for k in range(41)]
    epochs[1] |= {"val_loss": None, "top1": 50.0}
    logs = {"long": [{"kind": "start"}, *epochs], "$short$": epochs[:40]}
    assert draw_comparison(logs, CLASSIFICATION.decides, tmp_path / "a.png", loss="nats") == tmp_path / "a.png"
    left, middle, right = figures[0].axes
    assert [axis.get_title() for axis in (left, middle, right)] == ["training: nats", "validation: nats", "accuracy, %"]
    assert [(line.get_marker(), line.get_color(), len(line.get_xdata())) for line in left.lines] == [
        ("", "C0", 41), ("o", "C1", 40),
    ]  # fmt: skip
    assert [line.get_ydata().tolist() for line in right.lines] == [[50.0], [50.0]]
    assert np.isnan(middle.lines[0].get_ydata()).all()
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["long", r"\$short\$"]
