"""What tasks draw on images with Pillow alone."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from sequencer2d.tasks.fonts import Font

Color = tuple[int, int, int]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""

_INK, _PAPER = "black", "white"
_LEAST_WIDTH = 200
"""Pixels: a smaller image is enlarged by a whole number, so that there is room for text."""
_SHARP = 2
"""Boxes are drawn larger by this and reduced, so that corners are smooth."""
_MOST_PIXELS = 2**24
"""Of a picture whose boxes are drawn larger; a larger one has wide lines anyway, and its copy would fill gigabytes."""
_SHADE = (0, 0, 0, 110)
"""Around frames: they show on a ground of their own color too."""


def with_caption(image: Image.Image, lines: Sequence[str], colors: Sequence[Color] = ()) -> Image.Image:
    """A copy of an RGB image with lines of text below it. Letters that no font here has become boxes.

    Args:
        image: it is enlarged where there is no room for text.
        lines: of text; what is too long for the image ends in an ellipsis.
        colors: of a square before each line; none: no squares. Lines with squares stand in as many columns as fit.
    """
    image = _enlarged(image)
    font = Font.of(max(12, min(image.width, 4 * image.height) // 30), "".join(lines))
    size = font.size
    margin, spacing = size // 2, size * 3 // 2
    indent = 2 * size if colors else 0
    lines = [font.fitted(line, image.width - 2 * margin - indent) for line in lines]
    width = max((round(font.width(line)) for line in lines), default=0) + indent + 2 * size
    columns = max(1, (image.width - margin) // width) if colors else 1
    rows = -(-len(lines) // columns)
    picture = Image.new("RGB", (image.width, image.height + spacing * rows + margin), _PAPER)
    picture.paste(image)
    pen = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        column, row = divmod(number, rows)
        left, top = margin + column * width, image.height + size // 4 + row * spacing
        if colors:
            pen.rectangle((left, top, left + size, top + size), fill=colors[number])
        pen.text((left + indent, top), line, fill=_INK, font=font.font)
    return picture


def with_boxes(
    image: Image.Image, boxes: Sequence[Box], names: Sequence[str], notes: Sequence[str], colors: Sequence[Color]
) -> Image.Image:
    """A copy of an RGB image with a frame around each box and a label at it.

    A label stands above its box, or at the next place along the box that is in the image and covers no label of an
    earlier box. Where there is none, the box has a frame alone.

    Args:
        image: it is enlarged where there is no room for text.
        boxes: in pixels of the image, the most important first: it lies above the others.
        names: of the labels; one that would make a label wider than half of the image ends in an ellipsis.
        notes: after the names, never shortened.
        colors: of the frames and the labels.
    """
    picture = _enlarged(image).convert("RGBA")
    sharp = _SHARP if picture.width * picture.height <= _MOST_PIXELS else 1
    scale = sharp * picture.width // image.width
    line = max(2, round(min(picture.size) / 220)) * sharp
    font = Font.of(max(11, min(picture.size) // 36) * sharp, "".join(names))
    overlay = Image.new("RGBA", (picture.width * sharp, picture.height * sharp), (255, 255, 255, 0))
    pen = ImageDraw.Draw(overlay)
    scaled = [_framed(tuple(side * scale for side in box), line) for box in boxes]  # type: ignore[arg-type]
    for box, color in [*zip(scaled, colors, strict=True)][::-1]:
        _frame(pen, box, color, line)
    taken: list[Box] = []
    for box, name, note, color in zip(scaled, names, notes, colors, strict=True):
        room = overlay.width / 2 - 3 * line - font.width(f" {note}")
        label = Label.of(pen, font, f"{font.fitted(name, room)} {note}", line)
        place = next((place for place in label.places(box, overlay.size) if not _meets(place, taken)), None)
        if place is not None:
            taken.append(place)
            label.draw(pen, font, place, color)
    reduced = overlay if sharp == 1 else overlay.resize(picture.size, Image.Resampling.BOX)
    return Image.alpha_composite(picture, reduced).convert("RGB")


class Label(NamedTuple):
    """A text on a colored ground, in pixels."""

    text: str
    width: float
    height: float
    offset: tuple[float, float]
    """Of the text from the upper left of the ground."""
    line: int
    """Width of the frames."""

    @classmethod
    def of(cls, pen: ImageDraw.ImageDraw, font: Font, text: str, line: int) -> "Label":
        """A label with margins of 1.5 lines at the sides, and of one above and below."""
        left, top, right, bottom = pen.textbbox((0, 0), text, font=font.font)
        return cls(text, right - left + 3 * line, bottom - top + 2 * line, (1.5 * line - left, line - top), line)

    def places(self, box: Box, size: tuple[int, int]) -> Iterator[Box]:
        """Where it may stand at a box in an image of a (width, height), the best place first."""
        left, top, right, bottom = box
        low, high = max(0.0, size[0] - self.width), max(0.0, size[1] - self.height)
        above, below = top - self.height + self.line, bottom - self.line
        inside, at_foot = max(0.0, top), min(bottom, size[1]) - self.height
        at_right = min(right, size[0]) - self.width
        for x in (left, at_right):
            x = min(max(0.0, x), low)
            for y in (above, inside, below, at_foot):
                if (0 <= y <= high) or (y == inside and not high):
                    yield x, y, x + self.width, y + self.height

    def draw(self, pen: ImageDraw.ImageDraw, font: Font, place: Box, color: Color) -> None:
        """Draw it, in black or white, whichever shows."""
        is_dark = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] < 150
        pen.rectangle(place, fill=(*color, 235))
        corner = (place[0] + self.offset[0], place[1] + self.offset[1])
        pen.text(corner, self.text, fill="white" if is_dark else "black", font=font.font)


def _enlarged(image: Image.Image) -> Image.Image:
    """The image at least `_LEAST_WIDTH` pixels wide, its pixels repeated."""
    times = max(1, -(-_LEAST_WIDTH // image.width))
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


def _framed(box: Box, line: int) -> Box:
    """The box, at least as large as the lines of its frame."""
    return box[0], box[1], max(box[2], box[0] + 2 * line), max(box[3], box[1] + 2 * line)


def _frame(pen: ImageDraw.ImageDraw, box: Box, color: Color, line: int) -> None:
    """A frame within the box, and around it a dark edge of a third of its width."""
    rounded = min(box[2] - box[0], box[3] - box[1]) > 6 * line
    dark = max(_SHARP, line // 3)
    edge = (box[0] - dark, box[1] - dark, box[2] + dark, box[3] + dark)
    for sides, ink, width in ((edge, _SHADE, dark), (box, (*color, 255), line)):
        if rounded:
            pen.rounded_rectangle(sides, 2 * line, outline=ink, width=width)
        else:
            pen.rectangle(sides, outline=ink, width=width)


def _meets(place: Box, taken: Sequence[Box]) -> bool:
    """Whether a place covers a part of one that is taken."""
    return any(
        place[0] < other[2] and other[0] < place[2] and place[1] < other[3] and other[1] < place[3] for other in taken
    )
