"""Figures show names as they are."""

import io
import logging

import pytest

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure
from PIL import Image

from sequencer2d.figure_text import save


def drawn(title: str, *, log: bool = False) -> Image.Image:
    figure = Figure(figsize=(3, 2))
    axes = figure.add_subplot()
    axes.set_title(title)
    if log:
        axes.set_yscale("log")
        axes.set_ylim(1, 1e4)
    save(figure, file := io.BytesIO(), format="png")
    return Image.open(file).convert("L")


@pytest.mark.parametrize("name", [r"$\frac$", "$x", "a_b^c $"])
def test_a_dollar_is_no_formula(name: str) -> None:
    assert drawn(name).tobytes() != drawn("").tobytes()


def test_a_name_between_dollars_is_not_set_as_a_formula() -> None:
    assert drawn("$x$").tobytes() != drawn("x").tobytes()


def test_ticks_of_a_scale_of_powers_stay_powers() -> None:
    figure = Figure(figsize=(3, 2))
    axes = figure.add_subplot()
    axes.set_yscale("log")
    axes.set_ylim(1, 1e4)
    figure.savefig(expected := io.BytesIO(), format="png")
    assert drawn("", log=True).tobytes() == Image.open(expected).convert("L").tobytes()


def test_characters_that_no_font_has_are_named_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="sequencer2d"):
        drawn("\U0001faf8 and \U0001faf7")  # too new for the fonts of most systems
    assert [record.getMessage() for record in caplog.records] in (
        [],
        ["a picture shows boxes for characters that no installed font has: \U0001faf7\U0001faf8"],
    )
