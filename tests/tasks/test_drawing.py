"""The caption below an image: where its squares and its text stand."""

import numpy as np
import pytest
from PIL import Image

from sequencer2d.tasks.drawing import with_caption

RED, BLUE = (255, 0, 0), (0, 0, 255)


def test_a_caption_has_a_square_and_a_text_in_each_line() -> None:
    """Text of 12 pixels in lines of 18, 6 pixels from the left, 3 below the image; text is 24 pixels further right."""
    drawn = np.asarray(with_caption(Image.new("RGB", (300, 40), "green"), ["H" * 20, "H" * 20], [RED, BLUE]))
    assert drawn.shape == (40 + 2 * 18 + 6, 300, 3)
    assert (drawn[:40] == (0, 128, 0)).all(), "the image is left as it is"
    for color, top in ((RED, 43), (BLUE, 61)):
        rows, columns = np.nonzero((drawn == color).all(-1))
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (top, top + 12, 6, 18)
        rows, columns = np.nonzero((drawn[top : top + 15] < 100).all(-1))
        assert columns.min() == pytest.approx(6 + 24, abs=2)
        assert 0 <= rows.min() < rows.max() <= 12


def test_short_lines_with_squares_stand_in_columns() -> None:
    drawn = np.asarray(with_caption(Image.new("RGB", (300, 40), "green"), ["H", "H"], [RED, BLUE]))
    assert drawn.shape == (40 + 18 + 6, 300, 3)
    lefts = [np.nonzero((drawn == color).all(-1))[1].min() for color in (RED, BLUE)]
    assert lefts == [6, pytest.approx(6 + 2 * 24 + 9, abs=2)]


def test_a_small_image_is_enlarged_by_a_whole_number_and_a_large_one_has_larger_text() -> None:
    drawn = with_caption(Image.new("RGB", (90, 40), "green"), ["H"])
    assert drawn.size == (270, 3 * 40 + 18 + 6)
    assert with_caption(Image.new("RGB", (200, 40)), ["H"]).size == (200, 40 + 18 + 6)
    assert with_caption(Image.new("RGB", (600, 40)), ["H"]).size == (600, 40 + 30 + 10)
    columns = np.nonzero((np.asarray(drawn)[120:] < 100).all(-1))[1]
    assert columns.min() == pytest.approx(6, abs=2), "without colors the text begins at the left"
