"""Words for classes that are named by identifiers of WordNet, such as n01443537 for goldfish."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

WORDS = "words.txt"
"""A line for each identifier, then a tab, then its words, as Tiny-ImageNet has it."""
_IDENTIFIER = re.compile(r"n\d{8}")


def class_words(folders: Path | Iterable[Path], names: Sequence[str]) -> list[str] | None:
    """The first word for each identifier; all of its words where two classes share the first.

    Args:
        folders: the first that holds a `words.txt` with all of the names is taken; otherwise timm's table of WordNet.
        names: of the classes.

    Returns:
        Words for each class; None where the names are no identifiers that anything explains.
    """
    for folder in [folders] if isinstance(folders, Path) else folders:
        if (folder / WORDS).is_file():
            lines = (folder / WORDS).read_text(encoding="utf-8", errors="replace").splitlines()
            words = dict(line.split("\t", 1) for line in lines if "\t" in line)
            if set(names) <= words.keys():
                return _shortest([words[name] for name in names])
    if names and all(_IDENTIFIER.fullmatch(name) for name in names):
        from timm.data import ImageNetInfo

        info = ImageNetInfo("imagenet-22k")
        try:
            return _shortest([info.label_name_to_description(name) for name in names])
        except KeyError:
            return None
    return None


def _shortest(words: list[str]) -> list[str]:
    first = [text.split(",")[0].strip() for text in words]
    return [text if first.count(word) > 1 else word for text, word in zip(words, first, strict=True)]
