"""Figures with names of users in them: written as they are, in any script that an installed font has."""

import logging
import re
import warnings
from typing import Any

logger = logging.getLogger(__name__)

FALLBACKS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Micro Hei", "PingFang SC", "Hiragino Sans", "Microsoft YaHei",
    "Yu Gothic", "Malgun Gothic", "Apple SD Gothic Neo", "Noto Sans Devanagari", "Noto Sans Arabic", "Noto Sans Thai",
    "Arial Unicode MS", "Noto Emoji", "Segoe UI Emoji", "Segoe UI Symbol",
)  # fmt: skip
"""Fonts that common systems have for what matplotlib's own lacks, in the order in which they are asked."""
_FORMULA = "$\\mathdefault"
"""How matplotlib itself begins a label that is a formula, such as 10² at a tick."""
_BEYOND = re.compile(r"[^\u0000-\u024f]")
_MISSING = re.compile(r"Glyph (\d+) .* missing from font")


def save(figure: Any, file: Any, **options: Any) -> None:
    """`figure.savefig(file, **options)`, in which $ is a character like any other and names keep their script.

    Characters that no installed font has become boxes; one warning in the log says which.
    """
    from matplotlib import font_manager
    from matplotlib.text import Text

    installed = {font.name for font in font_manager.fontManager.ttflist}
    others = [name for name in FALLBACKS if name in installed]
    for text in figure.findobj(Text):
        said = text.get_text()
        if said and not said.startswith(_FORMULA):
            text.set_parse_math(False)
        if others and _BEYOND.search(said):
            text.set_fontfamily([*text.get_fontfamily(), *others])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure.savefig(file, **options)
    missing = set()
    for warning in caught:
        if found := _MISSING.search(str(warning.message)):
            missing.add(chr(int(found[1])))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if missing:
        logger.warning("a picture shows boxes for characters that no installed font has: %s", "".join(sorted(missing)))
