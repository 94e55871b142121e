"""The reference in docs/api names what is public, and its docstrings mean in Markdown what they mean as text.

The site itself is built by `./dev docs`, which fails on a name that does not exist.
"""

import ast
import importlib
import inspect
import itertools
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sequencer2d

FOLDER = Path(__file__).parents[2] / "docs" / "api"
NAMES = [
    line.removeprefix("::: ")
    for page in sorted(FOLDER.glob("*.md"))
    for line in page.read_text(encoding="utf-8").splitlines()
    if line.startswith("::: ")
]
PACKAGES = ("", ".models", ".nn", ".ops", ".dense", ".export", ".peers")
"""Packages whose public names stand in their `__all__`."""
TABLES = {"__version__", "CELLS", "FORMATS", "IMPLEMENTATIONS", "PEERS"}
CODE = re.compile(r"`[^`]*`")
MARKUP = re.compile(r"<[A-Za-z/]|(?<![\s(])\*\S|\S\*(?=\w)|\*\*")
JOINED = re.compile(r"^ +\*{0,2}\w+(, \w+)+( \([^)]*\))?: ", re.MULTILINE)


def found(name: str) -> Any:
    """The object of a dotted name."""
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(module), last)


def public(package: str) -> Iterator[str]:
    yield from set(importlib.import_module(f"sequencer2d{package}").__all__) - TABLES


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_of_a_package_has_its_entry(package: str) -> None:
    entries = {name.rpartition(".")[2] for name in NAMES}
    assert sorted(set(public(package)) - entries) == []


def test_no_entry_stands_twice() -> None:
    assert len(NAMES) == len(set(NAMES)) > 60


def fields(thing: type) -> Iterator[str]:
    """The strings below the fields of a class."""
    body = ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0].body  # type: ignore[attr-defined]
    for field, after in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            yield str(after.value.value)


def docstrings(thing: Any) -> Iterator[str]:
    """Those that the reference shows: of a function, or of a class and its own public members."""
    yield inspect.getdoc(thing) or ""
    if inspect.isclass(thing):
        yield from fields(thing)
        for name, member in vars(thing).items():
            if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
                yield inspect.getdoc(member) or ""


@pytest.mark.parametrize("name", NAMES)
def test_its_docstring_is_there_and_has_no_markup_by_accident(name: str) -> None:
    """Signs that Markdown takes for markup stand in backticks, and each attribute has a line of its own."""
    thing = found(name)
    assert inspect.getdoc(thing)
    assert thing.__module__.startswith(sequencer2d.__name__)
    for text in docstrings(thing):
        assert not MARKUP.findall(CODE.sub("", re.sub(r"^ *\*\*\w+:", "", text, flags=re.MULTILINE)))
        assert not JOINED.search(text), JOINED.search(text)
