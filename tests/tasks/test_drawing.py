"""The caption below an image: where its squares and its text stand."""

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from sequencer2d.tasks.drawing import Box, Label, _frame, _framed, _meets, with_boxes, with_caption
from sequencer2d.tasks.fonts import Font

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
    assert with_caption(Image.new("RGB", (600, 400)), ["H"]).size == (600, 400 + 30 + 10)
    columns = np.nonzero((np.asarray(drawn)[120:] < 100).all(-1))[1]
    assert columns.min() == pytest.approx(6, abs=2), "without colors the text begins at the left"


def test_text_in_a_low_wide_image_does_not_outgrow_it():
    assert with_caption(Image.new("RGB", (1600, 100)), ["H"]).size == (1600, 100 + 19 + 6)


def test_a_line_that_is_too_long_ends_in_an_ellipsis_within_the_image():
    font = Font.of(12)
    cut = font.fitted("a very long name of a class, longer than the image", 100)
    assert cut.endswith("…")
    assert len(cut) > 8
    assert font.width(cut) <= 100
    assert font.fitted("short", 100) == "short"
    drawn = np.asarray(with_caption(Image.new("RGB", (240, 40), "green"), ["W" * 99], [RED]))[40:]
    assert (drawn[:, -6:] == 255).all()


def test_no_label_covers_another_and_all_are_in_the_image():
    """Twenty boxes on the same spot: as many labels as there are places, the first above its box."""
    boxes = [(60.0, 50.0, 140.0, 110.0)] * 20
    image = Image.new("RGB", (300, 200), "gray")
    colors = [(k, 255, 0) for k in range(20)]
    drawn = np.asarray(with_boxes(image, boxes, ["disc"] * 20, ["90%"] * 20, colors))
    assert drawn.shape == (200, 300, 3)
    label = Label("disc 90%", 80, 20, (0, 0), 4)
    places = list(label.places((60, 50, 140, 110), (300, 200)))
    assert places[0] == (60, 34, 140, 54)
    assert all(x >= 0 and y >= 0 and right <= 300 and bottom <= 200 for x, y, right, bottom in places)
    one = np.asarray(with_boxes(image, boxes[:1], ["disc"], ["90%"], [(0, 255, 0)]))
    above = slice(0, 48)
    assert np.array_equal(drawn[above], one[above]), "the first box keeps the best place, and no other label is there"


def test_a_long_name_takes_half_of_the_picture_at_most():
    white = Image.new("RGB", (300, 200), "white")
    drawn = np.asarray(with_boxes(white, [(100.0, 100.0, 120.0, 120.0)], ["word " * 30], ["90%"], [RED]))
    (columns,) = (drawn[:95] != 255).any(-1).any(0).nonzero()  # above the frame
    assert 120 <= columns.max() - columns.min() + 1 <= 151


def test_labels_of_boxes_at_the_borders_and_beyond_stay_in_the_image():
    label = Label("disc 90%", 80, 20, (0, 0), 4)
    for box in ((-30, -30, 20, 10), (290, 190, 320, 230), (0, 0, 300, 200), (280, 0, 300, 5)):
        places = list(label.places(box, (300, 200)))
        assert places, box
        for x, y, right, bottom in places:
            assert x >= 0
            assert y >= 0
            assert right <= 300
            assert bottom <= 200


def test_letters_beyond_english_are_written_where_a_font_here_has_them() -> None:
    pytest.importorskip("matplotlib")
    text = "Straße été ñandú дом"
    font = Font.of(20, text).font
    missing = bytes(font.getmask("\U0010ffff"))
    assert [letter for letter in text if bytes(font.getmask(letter)) == missing] == []
    english = Font.of(20, "street").font
    assert english.getname() == Font.of(20).font.getname() != font.getname()


def test_boxes_on_a_very_large_photo_are_drawn_in_its_own_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy that smooths corners has four times the pixels: gigabytes for a photo of 100 megapixels."""
    image = Image.new("RGB", (400, 300), "gray")
    made: list[tuple[int, int]] = []
    new = Image.new
    monkeypatch.setattr("PIL.Image.new", lambda mode, size, *rest: made.append(size) or new(mode, size, *rest))
    for most, expected in ((400 * 300, (800, 600)), (400 * 300 - 1, (400, 300))):
        monkeypatch.setattr("sequencer2d.tasks.drawing._MOST_PIXELS", most)
        drawn = np.asarray(with_boxes(image, [(100.0, 100.0, 200.0, 200.0)], ["disc"], ["90%"], [RED]))
        assert made[0] == expected
        assert drawn.shape == (300, 400, 3)
        assert drawn[150, 101].tolist() == [*RED]
        made.clear()


def test_places_of_a_label_by_hand() -> None:
    """Above the box, in its upper corner, below it and in its lower corner: at the left, then at the right."""
    label = Label("disc 90%", 80, 20, (0, 0), 4)

    def corners(box: Box, size: tuple[int, int]) -> list[tuple[float, float]]:
        return [place[:2] for place in label.places(box, size)]

    rows = (34, 50, 106, 90)
    assert corners((60, 50, 170, 110), (300, 200)) == [(x, y) for x in (60, 90) for y in rows]
    assert corners((-30, -30, 20, 10), (300, 200)) == [(0, 0), (0, 6)] * 2
    assert corners((290, 190, 320, 230), (300, 200)) == [(220, 174), (220, 180)] * 2, "180 is the last place"
    assert corners((10, 16, 95, 60), (300, 200))[:2] == [(10, 0), (10, 16)], "0 is the first"
    assert corners((10, 2, 95, 8), (300, 15)) == [(10, 2), (15, 2)], "an image lower than the label"
    assert corners((10, 0, 95, 40), (40, 60)) == [(0, 0), (0, 36), (0, 20)] * 2, "one narrower than it"


def test_labels_that_touch_do_not_meet() -> None:
    place = (10.0, 10.0, 20.0, 20.0)
    for other in ((20, 10, 30, 20), (0, 10, 10, 20), (10, 20, 20, 30), (10, 0, 20, 10)):
        assert not _meets(place, [other])
    assert _meets(place, [(0, 0, 5, 5), (19, 19, 30, 30)])


class Pen:
    """Notes what is drawn."""

    def __init__(self) -> None:
        self.drawn: list[tuple[Any, ...]] = []

    def rounded_rectangle(self, sides: Box, radius: int, outline: Any, width: int) -> None:
        self.drawn.append((sides, radius, outline, width))

    def rectangle(self, sides: Box, outline: Any = None, width: int = 0) -> None:
        self.drawn.append((sides, 0, outline, width))


@pytest.mark.parametrize(
    ("side", "line", "radius", "dark"), [(40, 4, 8, 2), (24, 4, 0, 2), (25, 4, 8, 2), (99, 9, 18, 3)]
)
def test_a_frame_has_a_dark_edge_and_round_corners_where_it_is_large(
    side: int, line: int, radius: int, dark: int
) -> None:
    pen: Any = Pen()
    _frame(pen, (10, 20, 10 + side, 220), RED, line)
    edge = (10 - dark, 20 - dark, 10 + side + dark, 220 + dark)
    box = (10, 20, 10 + side, 220)
    assert pen.drawn == [(edge, radius, (0, 0, 0, 110), dark), (box, radius, (*RED, 255), line)]


def test_a_box_is_at_least_as_large_as_its_lines() -> None:
    assert _framed((5, 6, 5, 6), 2) == (5, 6, 9, 10)
    assert _framed((5, 6, 25, 46), 2) == (5, 6, 25, 46)


@pytest.mark.parametrize(
    ("color", "ink"),
    [
        (RED, 255), ((0, 160, 255), 255), ((0, 200, 0), 255), ((149, 149, 149), 255), ((150, 150, 150), 0),
        ((255, 255, 0), 0),
    ],
)  # fmt: skip
def test_a_label_is_written_in_white_on_dark_colors(color: tuple[int, int, int], ink: int) -> None:
    font, image = Font.of(24), Image.new("RGBA", (99, 40))
    pen = ImageDraw.Draw(image)
    label = Label.of(pen, font, "H", 2)
    label.draw(pen, font, (0, 0, label.width, label.height), color)
    drawn = np.asarray(image)
    assert drawn[0, 0].tolist() == [*color, 235]
    assert [ink] * 3 in drawn[..., :3].reshape(-1, 3).tolist()


@pytest.mark.parametrize(("side", "size"), [(300, 22), (431, 22), (467, 24), (755, 40)])
def test_labels_have_letters_of_a_36th_of_the_image(monkeypatch: pytest.MonkeyPatch, side: int, size: int) -> None:
    """They are drawn in the double size, and have 11 pixels at least."""
    asked: list[int] = []
    made = Font.of
    monkeypatch.setattr(Font, "of", lambda size, text="": asked.append(size) or made(size, text))
    with_boxes(Image.new("RGB", (side, side)), [], [], [], [])
    assert asked == [size]


def test_text_is_cut_at_the_last_letter_that_fits() -> None:
    font = Font.of(12)
    assert font.fitted("short", font.width("short")) == "short"
    cut = font.fitted("abcdefghij", 50)
    assert font.width(cut) <= 50 < font.width("abcdefghij"[: len(cut)] + "…")
    assert font.fitted("abc", 1) == "…"


def test_without_freetype_letters_are_latin_and_12_pixels_high(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFont, "load_default", lambda size: ImageFont.load_default_imagefont())
    font = Font.of(40, "дом")
    assert (font.size, font.encoding) == (12, "latin-1")
    assert font.fitted("été дом", 99) == "été ???"
    assert font.fitted("a long name of a class", 60) == "a long..."
