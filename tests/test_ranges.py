import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import pytest

from sequencer2d.errors import ConfigError
from sequencer2d.ranges import Checked, Range, Text, describe, leaves
from sequencer2d.training.config import TrainConfig


@dataclass(frozen=True)
class Example(Checked):
    section: ClassVar[str] = "example."
    count: Annotated[int | None, Range(at_least=1, at_most=9, unit="cats")] = 3
    rate: Annotated[float, Range(above=0, below=1)] = 0.5
    pair: Annotated[tuple[float, float], Range(at_least=0, at_most=2)] = (0.0, 1.0)
    side: Annotated[int | tuple[int, int], Range(at_least=1, at_most=99)] = 7
    mode: bool | Literal["slow", "fast"] = False
    path: Annotated[str, Text(empty=False, path=True)] = "here"
    options: dict[str, object] = dataclasses.field(default_factory=dict)


GOOD = [
    ("count", 1),
    ("count", 9),
    ("count", None),
    ("rate", 1e-300),
    ("pair", [2, 0]),
    ("side", (1, 99)),
    ("mode", True),
    ("mode", "fast"),
    ("options", {"a": (1, [2.5, {"b": None}])}),
]
BAD = [
    ("count", 0),
    ("count", 10),
    ("count", 10**400),
    ("count", 1.0),
    ("count", "3"),
    ("count", True),
    ("rate", 0.0),
    ("rate", 1),
    ("rate", math.nan),
    ("rate", None),
    ("pair", (0.0, math.inf)),
    ("pair", (0.0,)),
    ("pair", 1.0),
    ("side", (1, 100)),
    ("side", (1, 2, 3)),
    ("mode", "quick"),
    ("mode", 1),
    ("path", ""),
    ("path", "  "),
    ("path", "a\0b"),
    ("path", "a" * 5000),
    ("options", {"a": math.inf}),
    ("options", {1: 2}),
    ("options", {"a": object()}),
    ("options", [1]),
]


@pytest.mark.parametrize("name, value", GOOD)
def test_what_fits(name, value):
    assert getattr(Example(**{name: value}), name) == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize("name, value", BAD)
def test_what_does_not_fit_names_the_field_and_what_it_takes(name, value):
    with pytest.raises(ConfigError, match=rf"^example\.{name} must be ") as error:
        Example(**{name: value})
    assert len(str(error.value)) < 400


def test_a_range_in_words():
    assert describe(dict(leaves(Example))["count"]) == "an integer, at least 1 and at most 9 cats or none"


def test_numbers_of_other_libraries_become_pythons_own():
    example = Example(count=np.int64(4), rate=np.float32(0.25))
    assert (type(example.count), type(example.rate)) == (int, float)


def test_a_path_may_begin_with_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert Example(path="~/runs").path == str(Path("/home/someone/runs"))
    assert Example(path="wds:~/shards").path == "wds:/home/someone/shards"
    assert Example(path="a/~").path == "a/~"
    with pytest.raises(ConfigError, match="no such home folder"):
        Example(path="~nobody-of-this-name/runs")


def test_every_number_of_a_run_has_both_ends_and_the_defaults_fit():
    for path, hint in leaves(TrainConfig):
        text = describe(hint)
        if "number" in text or "integer" in text:
            assert "at least" in text or "above" in text, path
            assert "at most" in text or "below" in text, path
    assert len(dict(leaves(TrainConfig))) > 70


def nested(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


def test_limits_of_texts_and_dictionaries():
    assert Example(path="a" * 4096).path == "a" * 4096
    Example(options={"a" * 4096: "b" * 4096})
    Example(options=dict.fromkeys(map(str, range(10_000)), 1))
    Example(options={"a": [0] * 10_000})
    Example(options={"a": nested(15)})
    for wrong in (
        {"a" * 4097: 1},
        {"a": "b" * 4097},
        dict.fromkeys(map(str, range(10_001)), 1),
        {"a": [0] * 10_001},
        {"a": nested(16)},
    ):
        with pytest.raises(ConfigError, match=r"example\.options must be a dictionary of plain values"):
            Example(options=wrong)
    with pytest.raises(ConfigError, match=r"example\.path must be text, not empty, at most 4,096 characters"):
        Example(path="a" * 4097)


def test_values_are_shown_up_to_200_characters():
    for value, shown in (("x" * 198, f"'{'x' * 198}'"), ("x" * 199, f"'{'x' * 199}…"), (2**256, "a huge integer")):
        with pytest.raises(ConfigError, match="must be") as error:
            Example(rate=value)
        assert str(error.value).endswith(f"got {shown}")
    with pytest.raises(ConfigError, match=f"got {2**255 - 1}$"):
        Example(count=2**255 - 1)


def test_types_in_words():
    hints = dict(leaves(Example))
    assert describe(hints["rate"]) == "a number, above 0 and below 1"
    assert describe(hints["pair"]) == "2 values, each a number, at least 0 and at most 2"
    assert describe(hints["side"]) == (
        "an integer, at least 1 and at most 99 or 2 values, each an integer, at least 1 and at most 99"
    )
    assert describe(hints["mode"]) == "true or false or one of slow, fast"
    assert describe(tuple[int, ...]) == "several values, each an integer"
    assert describe(Literal["", "a"]) == "one of '' (empty), a"
    assert describe(Annotated[float, Range(at_least=0.25, at_most=1_000_000)]) == (
        "a number, at least 0.25 and at most 1,000,000"
    )
    assert describe(Annotated[str, Text()]) == "text, at most 4,096 characters"


def test_ends_of_ranges():
    both, neither = Range(at_least=1, at_most=2), Range(above=1, below=2)
    assert [value in both for value in (0.99, 1, 2, 2.01)] == [False, True, True, False]
    assert [value in neither for value in (1, 1.01, 1.99, 2)] == [False, True, True, False]
    assert [value in Range() for value in (math.inf, -math.inf, math.nan, 1e308)] == [False, False, False, True]
