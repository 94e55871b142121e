"""What tasks draw on images with Pillow alone."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

_INK, _PAPER = "black", "white"
_LEAST_WIDTH = 200
"""Pixels: a smaller image is enlarged by a whole number, so that there is room for text."""


def with_caption(image: Image.Image, lines: Sequence[str], colors: Sequence[tuple[int, int, int]] = ()) -> Image.Image:
    """A copy of an RGB image with lines of text below it. Letters that the font lacks become boxes.

    Args:
        image: it is enlarged where there is no room for text.
        lines: of text.
        colors: of a square before each line; none: no squares. Lines with squares stand in as many columns as fit.
    """
    times = max(1, -(-_LEAST_WIDTH // image.width))
    image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    size = max(12, image.width // 30)
    font = ImageFont.load_default(size)
    encoding = "utf-8"
    if isinstance(font, ImageFont.ImageFont):  # Pillow without FreeType: one size, and Latin letters only
        encoding, size = "latin-1", 12
    lines = [line.encode(encoding, "replace").decode(encoding) for line in lines]
    margin, spacing = size // 2, size * 3 // 2
    indent = 2 * size if colors else 0
    width = max((round(font.getlength(line)) for line in lines), default=0) + indent + 2 * size
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
        pen.text((left + indent, top), line, fill=_INK, font=font)
    return picture
