"""What a configuration field takes, written beside the field.

A frozen dataclass that derives from `Checked` annotates its fields:

    lr: Annotated[float, Range(above=0, at_most=1000)] = 5e-4
    output: Annotated[str, Text(empty=False, path=True)] = "runs/train"

An instance with a value outside of its field's type and range cannot be made. The command line's list of fields and the
tests over generated input read the same annotations.
"""

import dataclasses
import functools
import math
import numbers
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Union

from sequencer2d.errors import ConfigError

LONGEST_TEXT = 4096
"""Characters of a text field: as many as a path may have on Linux."""
_MOST_ENTRIES = 10_000
_DEEPEST = 16


@dataclass(frozen=True)
class Range:
    """The numbers that a field takes; for a tuple, each of its items. Infinities and NaN are outside of every range."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    unit: str = ""

    def __contains__(self, value: float) -> bool:
        return (
            -math.inf < value < math.inf
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        lower = _bound("at least", self.at_least) or _bound("above", self.above)
        upper = _bound("at most", self.at_most) or _bound("below", self.below)
        return " and ".join(part for part in (lower, upper) if part) + (f" {self.unit}" if self.unit else "")


@dataclass(frozen=True)
class Text:
    """The texts that a field takes. In a path, `~` stands for the home folder."""

    empty: bool = True
    path: bool = False

    def __contains__(self, value: str) -> bool:
        return (self.empty or bool(value.strip())) and len(value) <= LONGEST_TEXT and "\0" not in value

    def __str__(self) -> str:
        return f"{'' if self.empty else 'not empty, '}at most {LONGEST_TEXT:,} characters"


Probability = Annotated[float, Range(at_least=0, at_most=1)]


class Checked:
    """Base of a frozen dataclass whose fields are checked when it is made. Raises `ConfigError`.

    Lists become tuples, numbers of other libraries Python's own, and `~` in paths the home folder.
    """

    section: ClassVar[str] = ""
    """What stands before the fields' names in messages, "optimizer." for example."""

    def __post_init__(self) -> None:
        cls: Any = type(self)
        for name, hint in _hints(cls).items():
            value = getattr(self, name)
            plain = _plain(value, hint, self.section + name)
            if plain is not value:
                object.__setattr__(self, name, plain)
            if not fits(plain, hint):
                raise ConfigError(f"{self.section}{name} must be {describe(hint)}, got {_shown(plain)}")


def leaves(cls: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, type with its annotations) of every field of a tree of dataclasses, in the order of declaration."""
    for name, hint in _hints(cls).items():
        if dataclasses.is_dataclass(hint):
            yield from leaves(hint, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            yield prefix + name, hint


def fits(value: Any, hint: Any, limits: tuple[Any, ...] = ()) -> bool:
    """Whether `value` is of the annotated type `hint` and within its ranges."""
    origin, members = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return fits(value, members[0], (*limits, *members[1:]))
    if origin in (Union, types.UnionType):
        return any(fits(value, member, limits) for member in members)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in members)
    if origin is tuple:
        return isinstance(value, tuple) and _items_fit(value, members, limits)
    if hint is dict or origin is dict:
        return isinstance(value, Mapping) and _is_plain(value)
    if dataclasses.is_dataclass(hint):
        return isinstance(value, hint)  # type: ignore[arg-type]
    return _scalar_fits(value, hint) and all(value in limit for limit in _of_kind(limits, hint))


def describe(hint: Any, limits: tuple[Any, ...] = ()) -> str:
    """The annotated type in words, as it stands after "must be"."""
    origin, members = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return describe(members[0], (*limits, *members[1:]))
    if origin in (Union, types.UnionType):
        return " or ".join(describe(member, limits) for member in members)
    if origin is Literal:
        return "one of " + ", ".join(str(choice) or "'' (empty)" for choice in members)
    if origin is tuple:
        each = describe(members[0], limits)
        return f"{'several' if members[-1] is Ellipsis else len(members)} values, each {each}"
    words = {int: "an integer", float: "a number", str: "text", bool: "true or false", type(None): "none"}
    name = words.get(hint, "a dictionary of plain values" if dict in (hint, origin) else "")
    said = [str(limit) for limit in _of_kind(limits, hint)]
    return ", ".join([name or f"a {getattr(hint, '__name__', hint)}", *said])


def expand_home(path: str, name: str) -> str:
    """`path` with `~` in front as the home folder. Raises `ConfigError` if there is no such user."""
    kind, colon, rest = path.partition(":")
    prefix = kind + colon if colon and kind in ("wds", "hfds") else ""
    if not path.removeprefix(prefix).startswith("~"):
        return path
    try:
        return prefix + str(Path(rest if prefix else path).expanduser())
    except RuntimeError:
        raise ConfigError(f"{name} is {path!r}: there is no such home folder; give the whole path") from None


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _items_fit(value: tuple[Any, ...], members: tuple[Any, ...], limits: tuple[Any, ...]) -> bool:
    if members[-1] is Ellipsis:
        return all(fits(item, members[0], limits) for item in value)
    return len(value) == len(members) and all(map(lambda item, hint: fits(item, hint, limits), value, members))


def _scalar_fits(value: Any, hint: Any) -> bool:
    if hint is type(None):
        return value is None
    if hint is bool or isinstance(value, bool):
        return hint is bool and isinstance(value, bool)
    if hint is float:
        return isinstance(value, (int, float)) and _is_finite(value)
    if hint is str:
        return isinstance(value, str) and value in Text()
    return isinstance(value, hint)


def _of_kind(limits: tuple[Any, ...], hint: Any) -> list[Any]:
    """The limits that apply to a type."""
    kind: tuple[type, ...] = (Range,) if hint in (int, float) else (Text,) if hint is str else ()
    return [limit for limit in limits if isinstance(limit, kind)]


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def _is_plain(value: Any, depth: int = 0) -> bool:
    """Whether a value can be written as JSON and read again, within reason."""
    if depth > _DEEPEST:
        return False
    if isinstance(value, Mapping):
        keys = all(isinstance(key, str) and key in Text() for key in value)
        return keys and len(value) <= _MOST_ENTRIES and all(_is_plain(item, depth + 1) for item in value.values())
    if isinstance(value, (list, tuple)):
        return len(value) <= _MOST_ENTRIES and all(_is_plain(item, depth + 1) for item in value)
    if isinstance(value, str):
        return value in Text()
    return value is None or isinstance(value, bool) or (isinstance(value, (int, float)) and _is_finite(value))


def _plain(value: Any, hint: Any, name: str) -> Any:
    if isinstance(value, list):
        return tuple(_plain(item, Any, name) for item in value)
    if isinstance(value, str):
        return expand_home(value, name) if Text in map(type, _limits(hint)) and _is_path(hint) else value
    if isinstance(value, numbers.Integral) and not isinstance(value, int):
        return int(value)
    if isinstance(value, numbers.Real) and not isinstance(value, (int, float)):
        return float(value)
    return value


def _limits(hint: Any) -> tuple[Any, ...]:
    own = hint.__metadata__ if typing.get_origin(hint) is Annotated else ()
    members = typing.get_args(hint) if typing.get_origin(hint) in (Annotated, Union, types.UnionType) else ()
    return (*own, *(limit for member in members for limit in _limits(member)))


def _is_path(hint: Any) -> bool:
    return any(isinstance(limit, Text) and limit.path for limit in _limits(hint))


def _bound(word: str, value: float | None) -> str:
    return "" if value is None else f"{word} {value:,}" if isinstance(value, int) else f"{word} {value:g}"


def _shown(value: Any) -> str:
    text = repr(value) if not isinstance(value, int) or value.bit_length() < 256 else "a huge integer"
    return text if len(text) <= 200 else f"{text[:200]}…"
