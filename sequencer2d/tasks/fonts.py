"""A font for pictures, with the letters that a text needs."""

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from PIL import ImageFont

_NO_LETTER = "\U0010ffff"
"""A font draws its sign for missing letters in place of it."""
_SYSTEM = ("DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "msyh.ttc", "malgun.ttf", "YuGothM.ttc")
"""Names of files with many letters on Linux, macOS and Windows, which Pillow looks for in the system's folders."""


class Font(NamedTuple):
    """A font of Pillow's in one size."""

    font: Any
    size: int
    """Pixels."""
    encoding: str

    @classmethod
    def of(cls, size: int, text: str = "") -> "Font":
        """A font in a size, in pixels, that has all letters of a text, or the one that lacks the fewest.

        Pillow's own needs no file, but it has the letters of English alone. For others, the fonts of matplotlib and of
        the system are tried. Without FreeType, Pillow has one size, and Latin letters.
        """
        font = ImageFont.load_default(size)
        if isinstance(font, ImageFont.ImageFont):
            return cls(font, 12, "latin-1")
        text = text.encode(errors="replace").decode()
        lacking = _lacking(font, text)
        for other in _others(size) if lacking else ():
            missing = _lacking(other, text)
            if missing < lacking:
                font, lacking = other, missing
            if not lacking:
                break
        return cls(font, size, "utf-8")

    def width(self, text: str) -> float:
        """Pixels of a text that the font can write."""
        return float(self.font.getlength(text))

    def fitted(self, text: str, width: float) -> str:
        """The text with a question mark for what cannot be encoded, cut to a width in pixels with an ellipsis."""
        text = text.encode(self.encoding, "replace").decode(self.encoding)
        if self.width(text) <= width:
            return text
        dots = "…" if self.encoding == "utf-8" else "..."
        kept = next((n for n in range(len(text) - 1, 0, -1) if self.width(text[:n].rstrip() + dots) <= width), 0)
        return text[:kept].rstrip() + dots


def _lacking(font: Any, text: str) -> int:
    """How many different letters of a text the font lacks."""
    missing = bytes(font.getmask(_NO_LETTER))
    return sum(not letter.isspace() and bytes(font.getmask(letter)) == missing for letter in set(text))


def _others(size: int) -> Iterator[Any]:
    """Fonts with more letters, as far as there are some here."""
    spec = importlib.util.find_spec("matplotlib")
    own = [str(Path(spec.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf")] if spec and spec.origin else []
    for name in (*own, *_SYSTEM):
        with contextlib.suppress(OSError):
            yield ImageFont.truetype(name, size)
