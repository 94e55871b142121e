"""Words for classes that are named by identifiers of WordNet, such as n01443537 for goldfish."""

import functools
import importlib.util
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sequencer2d.errors import UserError

WORDS = "words.txt"
"""A line for each identifier, then a tab, then its words, as Tiny-ImageNet has it."""
_IDENTIFIER = re.compile(r"n\d{8}")


def imagenet_wnids() -> tuple[str, ...]:
    """The 1000 classes of ImageNet-1K as WordNet identifiers, in the order of the models' outputs."""
    return tuple(_timm_lines("imagenet_synsets.txt"))


@functools.cache
def wordnet_words() -> Mapping[str, str]:
    """Words, separated by commas, of each of the 21,000 identifiers of ImageNet."""
    return dict(line.split("\t", 1) for line in _timm_lines("imagenet_synset_to_lemma.txt"))


def readable(class_name: str) -> str:
    """A class for people: WordNet identifiers such as n01440764 by their first word, other names as they are."""
    if not _IDENTIFIER.fullmatch(class_name):
        return class_name
    return wordnet_words().get(class_name, class_name).split(",")[0].strip()


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
        table = wordnet_words()
        return _shortest([table[name] for name in names]) if set(names) <= table.keys() else None
    return None


def _timm_lines(name: str) -> list[str]:
    """The lines of one of timm's tables of ImageNet. They are read as files, since importing timm takes seconds."""
    found = importlib.util.find_spec("timm")
    if found is None or found.origin is None:
        raise UserError("names of ImageNet's classes come from timm, which is not installed: pip install timm")
    path = Path(found.origin).parent / "data" / "_info" / name
    return path.read_text(encoding="utf-8").splitlines()


def _shortest(words: list[str]) -> list[str]:
    first = [text.split(",")[0].strip() for text in words]
    return [text if first.count(word) > 1 else word for text, word in zip(words, first, strict=True)]
