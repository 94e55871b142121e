"""Figures and charts say what was measured: percent of shares, levels of radii, pixels of tokens, and their labels."""

import json

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from benchmarks.contents import contents
from sequencer2d.analysis.charts import DARK, attack_chart, calibration_chart, corruption_chart, resolution_chart
from sequencer2d.evaluation.attacks import AttackResult
from sequencer2d.evaluation.intervals import wilson
from sequencer2d.evaluation.resolution import ResolutionResult
from tests.analysis import drawn


@pytest.mark.parametrize("name", drawn.FIGURES)
def test_a_figure_holds_what_is_on_record(name: str) -> None:
    """`python -m tests.analysis.drawn` writes the record anew."""
    record = json.loads(drawn.RECORD.read_text(encoding="utf-8"))
    assert json.loads(json.dumps(contents(drawn.FIGURES[name]()))) == record[name]


def lines(axis: object) -> dict[str, list[float]]:
    """The y values of an axis' lines by their labels."""
    return {line.get_label(): list(line.get_ydata()) for line in axis.lines}  # type: ignore[attr-defined]


def test_resolution_is_in_percent_of_images_and_of_the_native_size() -> None:
    result = ResolutionResult("m", 32, np.asarray([16, 32]), np.asarray([0.125, 0.5]), 9)
    left, right = resolution_chart([result]).axes
    assert lines(left)["m"] == [12.5, 50]
    assert right.lines[0].get_ydata().tolist() == [25, 100]
    assert [list(line.get_xdata()) for line in left.lines] == [[16, 32], [32, 32]]  # the dashed line: the native size
    assert (left.get_ylabel(), right.get_ylabel()) == (
        "top-1 accuracy, %",
        "top-1 accuracy, % of that at the native size",
    )


def test_errors_under_corruption_are_in_percent_and_dark_cells_have_light_numbers() -> None:
    figure = corruption_chart(drawn.corruptions())
    axis, bar = figure.axes
    expected = [[12.5, 20, 54, 90], [12.5, 10, 55.5, 70]]
    np.testing.assert_allclose(axis.images[0].get_array(), expected)
    assert [text.get_text() for text in axis.texts] == [f"{value:.0f}" for row in expected for value in row]
    dark = 10 + DARK * (90 - 10)
    assert [text.get_color() for text in axis.texts] == [
        "w" if value > dark else "k" for row in expected for value in row
    ]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["clean", "1", "3", "5"]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["fog", "jpeg compression"]
    assert axis.get_title() == "m\nmean error 49.9 %"
    assert bar.get_ylabel() == "top-1 error, %"
    assert axis.images[0].get_clim() == (10, 90), "the colors are for the errors that occur"


def test_calibration_shows_accuracy_confidence_and_their_distance_in_percent() -> None:
    left, right = calibration_chart(drawn.corruptions()).axes
    found = lines(left)
    np.testing.assert_allclose(found["m: accuracy"], [87.5, 85, 45.25, 20])
    np.testing.assert_allclose(found["m: confidence"], [75, 7.5, 27.375, 40])
    np.testing.assert_allclose(lines(right)["m"], [5, 3.75, 13.6875, 20])
    assert list(left.lines[0].get_xdata()) == [0, 1, 3, 5]


def test_attacks_are_over_levels_of_255_and_say_how_they_ran() -> None:
    figure = drawn.attacks()
    (axis,) = figure.axes
    assert lines(axis) == {"m, FGSM": [75, 50, 12.5], "m, PGD (5 steps)": [75, 50, 12.5]}
    low, high = wilson(0.125 * 13, 13)
    band = axis.collections[0].get_paths()[0].vertices
    assert sorted({y for x, y in band if x == pytest.approx(4)}) == pytest.approx([100 * low, 100 * high])
    assert axis.get_ylim()[0] == 0
    np.testing.assert_allclose(axis.lines[0].get_xdata(), [0, 1, 4])
    caption = figure.get_supxlabel().replace("\n", " ")
    assert "(PGD: 5 steps of 0.5/255 to 2/255 as ε grows, from a random start), 13 images" in caption


def test_one_step_size_is_said_once_and_no_pgd_says_nothing() -> None:
    one = np.asarray([1 / 255])
    pgd = attack_chart([AttackResult("m", "pgd", one, one, 0.5, 3, one / 2, False, 4)])
    assert "(PGD: 3 steps of 0.5/255, from the image)" in pgd.get_supxlabel().replace("\n", " ")
    fgsm = attack_chart([AttackResult("m", "fgsm", one, one, 0.5, 1, one, False, 4)])
    assert "or several (PGD), 4 images" in fgsm.get_supxlabel().replace("\n", " ")


def test_half_lives_are_drawn_in_pixels() -> None:
    """Tokens of 4 pixels and of 8; the scan from the top has half-lives of 1 to 5 tokens, the next twice that."""
    top, bottom = drawn.FIGURES["memory"]().axes[:2]
    medians = [line.get_ydata().tolist() for line in top.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(medians, [[12, 24], [24, 48], [48, 96], [96, 192]])
    (low, high), _ = top.collections[0].get_segments()
    np.testing.assert_allclose([low[1], high[1]], [4 * 1.4, 4 * 4.6])  # 10 % and 90 % of 1 to 5
    dashed = next(line for line in top.lines if line.get_linestyle() == "--")
    assert dashed.get_ydata() == [32, 32]  # 8 tokens of 4 pixels
    density = np.asarray(bottom.images[0].get_array())
    assert density.sum(axis=0) / drawn.BINS == pytest.approx([1, 1])  # a density: its mean over 0 to 1 is 1


def test_scales_of_states_leave_out_the_strongest_half_percent_and_are_one_a_row() -> None:
    figure = drawn.FIGURES["hidden states"]()
    maps = [axis.images[0] for axis in figure.axes if axis.get_title().startswith("channel")]
    vertical = np.concatenate([drawn.states().states[0], drawn.states().states[1]], axis=-1)
    limit = np.quantile(np.abs(vertical), 0.995)
    assert maps[0].get_clim() == pytest.approx((-limit, limit), rel=0.05)
    assert maps[0].get_clim() == maps[1].get_clim()
