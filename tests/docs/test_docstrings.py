"""The docstrings of data classes name every field of their own, and no other.

The linter compares the arguments of functions with their docstrings (rules D417 and DOC102); it does not read
`Attributes:`.
"""

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator

import pytest

import sequencer2d

SECTION = re.compile(r"^Attributes:\n(?P<text>(?:(?: {4}.*)?\n)*(?: {4}.*)?)", re.MULTILINE)
ENTRY = re.compile(r"^ {4}(?P<names>[\w*]+(?:, \w+)*)(?: \([^)]*\))?:", re.MULTILINE)
NEEDS_TRITON = re.compile(r"sequencer2d\.ops\.(gluon|triton|kernels)")


def documented(docstring: str) -> set[str]:
    """The names in the section `Attributes:` of a docstring."""
    section = SECTION.search(docstring)
    names = ENTRY.findall(section["text"]) if section else []
    return {name for entry in names for name in entry.split(", ")}


def data_classes() -> Iterator[type]:
    for module in pkgutil.walk_packages(sequencer2d.__path__, "sequencer2d."):
        if module.name.endswith("__main__") or NEEDS_TRITON.match(module.name):
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(value) and value.__module__ == module.name and dataclasses.is_dataclass(value):
                yield value


CLASSES = [each for each in data_classes() if documented(inspect.getdoc(each) or "")]


def test_there_are_classes_to_compare() -> None:
    assert len(CLASSES) > 20


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_attributes_are_the_fields(cls: type) -> None:
    own = inspect.get_annotations(cls)
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    fields = {name for name in names if name in own and not name.startswith("_")}
    assert documented(inspect.getdoc(cls) or "") == fields


def test_a_missing_and_a_wrong_name_are_found() -> None:
    text = (
        "Sizes.\n\nAttributes:\n    height, width: px,\n        as given: always.\n\n    name: of it.\n\nMore: text.\n"
    )
    assert documented(text) == {"height", "width", "name"}
