"""Figures 1 and 3 show the published numbers where they belong, and the measured ones beside them."""

import numpy as np
import pytest

from sequencer2d.analysis.paper_figures import (
    Point,
    _name_points,
    accuracy_figure,
    accuracy_points,
    references,
    resolution_figure,
)
from sequencer2d.benchmark.contenders import build, parse_contender
from sequencer2d.benchmark.cost import count_parameters
from sequencer2d.benchmark.table1 import Accuracy
from sequencer2d.errors import ConfigError
from sequencer2d.evaluation.resolution import ResolutionResult

SIZES = (224, 448, 672, 896)
LABEL = "sequencer2d_s (cudnn)"
ROW = {"model": "sequencer2d_s", "library": "sequencer2d", "family": "Seq.", "implementation": "cudnn"}


def drawn(axis):
    """The points of each line of an axis, by its label."""
    return {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in axis.lines}


def test_figure_1_has_a_line_for_each_design_and_a_star_for_each_measured_model():
    measured = [Accuracy("sequencer2d_n", 192, 75.5, 4_123_456)]
    (axis,) = accuracy_figure(accuracy_points(measured)).axes
    lines = [line.get_data() for line in axis.lines if len(line.get_xdata())]
    published = [sorted(zip(*data, strict=True)) for data in lines if len(data[0]) > 1]
    assert [(28, 82.3), (38, 82.8), (54, 83.4)] in published
    assert [(29, 82.1), (50, 83.1)] in published
    assert len(published) == 8
    stars = [line.get_data() for line in axis.lines if line.get_marker() == "*" and len(line.get_xdata())]
    assert [tuple(float(value[0]) for value in star) for star in stars] == [(4.123456, 75.5)]
    names = {text.get_text() for text in axis.texts}
    assert {"Sequencer2D-L", "Mixer-B/16", "sequencer2d_n at 192²"} <= names
    assert len(axis.texts) == 24
    assert not any("↑" in name for name in names), "fine-tuned at another size"


def test_names_in_figure_1_cover_neither_each_other_nor_a_point():
    figure = accuracy_figure(accuracy_points())
    figure.draw_without_rendering()
    (axis,) = figure.axes
    boxes = [text.get_window_extent() for text in axis.texts]
    pairs = [(a, b) for i, a in enumerate(boxes) for b in boxes[i + 1 :] if a.overlaps(b)]
    assert not pairs
    points = axis.transData.transform([(point.parameters, point.top1) for point in accuracy_points()])
    assert not [box for box in boxes for x, y in points if box.contains(x, y)]


def test_a_name_in_figure_1_takes_the_first_free_place():
    """On an axis whose unit is a point of print. A letter is 3.9 points wide and a line 7 high; boxes may touch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 4), dpi=144)
    axis = figure.add_axes([0, 0, 1, 1])
    axis.set(xlim=(0, 288), ylim=(0, 288))
    crowded = [Point("cnn", 100, 100, "CNN", "CNN", "") for _ in range(5)]
    crowded += [Point("seq", 100, 100, "Seq.", "Seq.", ""), Point("own", 100, 100, "CNN", "", "")]
    blocked, blocking = Point("blocked", 200, 200, "CNN", "CNN", ""), Point("b", 207, 206, "CNN", "CNN", "")
    _name_points(figure, axis, [*crowded, blocked, blocking])
    left = -4 - 3 * 3.9
    found = [(text.get_text(), *(round(float(value), 6) for value in text.xyann)) for text in axis.texts]
    assert found == [
        ("own", 4, 3),
        ("seq", left, 3),
        ("cnn", 4, -9),
        ("cnn", left, -9),
        ("cnn", 4, 10),
        ("cnn", left, -16),
        ("cnn", 4, 3),  # none is free
        ("blocked", -4 - 7 * 3.9, 3),  # another point lies in the first place
        ("b", 4, 3),
    ]
    assert [text.xy for text in axis.texts[-2:]] == [(200, 200), (207, 206)]


def test_without_parameters_in_the_file_the_model_of_that_name_is_counted():
    (*_, point) = accuracy_points([Accuracy("sequencer2d_n", 224, 75.5)])
    assert point.parameters == count_parameters(build(parse_contender("sequencer2d_n"), 224)) / 1e6
    with pytest.raises(ConfigError, match="did you mean"):
        accuracy_points([Accuracy("sequencer2d_nn", 224, 75.5)])


def test_figure_3_shows_accuracy_absolute_and_relative_memory_and_rates():
    result = ResolutionResult("S", 224, np.asarray(SIZES), np.asarray([0.8, 0.84, 0.6, 0.4]), 100)
    memory, rates = {LABEL: [(224, 200.0), (448, 400.0)]}, {LABEL: [(224, 300.0), (448, 100.0)]}
    figure = resolution_figure([result], memory, rates, about="a GPU", batch=16, published=references([ROW]))
    a, b, c, d = figure.axes
    assert drawn(a)["S"] == [(224, 80.0), (448, 84.0), (672, 60.0), (896, 40.0)]
    assert list(b.lines[0].get_ydata()) == pytest.approx([100, 105, 75, 50])
    assert drawn(c)[LABEL] == memory[LABEL]
    assert drawn(d)[LABEL] == rates[LABEL]
    # Table 1: inference at 224² beside the model's curve.
    assert [(224, 196)] in drawn(c).values()
    assert [(224, 347)] in drawn(d).values()


def test_figure_3_leaves_out_what_was_not_measured():
    assert len(resolution_figure([], {}, {LABEL: [(224, 3.0)]}, about="a CPU", batch=2).axes) == 2
    (c, _) = resolution_figure([], {}, {LABEL: [(224, 3.0)]}, about="a CPU", batch=2).axes
    assert [text.get_text() for text in c.texts] == ["not counted on this device"]


def test_the_published_numbers_of_a_model_belong_to_its_first_curve():
    found = references([ROW, {**ROW, "library": "timm", "implementation": "timm"}, {**ROW, "model": "sequencer2d_n"}])
    assert {name: [row.name for row in rows] for name, rows in found.items()} == {LABEL: ["Sequencer2D-S"]}
