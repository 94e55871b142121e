"""Text of the command line, or JSON, as the type of a configuration's field."""

import ast
import json
import reprlib
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, Union

from sequencer2d.errors import ConfigError, did_you_mean

_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")
_NONE = ("none", "null")


def literal(value: Any) -> Any:
    """A string as the Python or JSON literal that it spells ("2,2,1,1" is a tuple); any other text as itself."""
    if not isinstance(value, str):
        return value
    lowered = value.strip().lower()
    if lowered in _NONE:
        return None
    if lowered in ("true", "false"):
        return lowered == "true"
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return value


def convert(value: Any, hint: Any, path: str) -> Any:
    """`value` as the type `hint`; raises `ConfigError` naming the field, the expected type and the value."""
    try:
        return _to(value, hint, path)
    except ConfigError:
        raise
    except (ValueError, TypeError, SyntaxError, OverflowError, RecursionError, MemoryError):
        raise ConfigError(f"{path}: expected {_type_name(hint)}, got {reprlib.repr(value)}") from None


def _to(value: Any, hint: Any, path: str) -> Any:
    origin = typing.get_origin(hint)
    if hint is Any:
        return literal(value)
    if origin in (Union, types.UnionType):
        return _to_union(value, hint, path)
    if origin is Literal:
        return _to_choice(value, hint, path)
    if origin in (tuple, list):
        return _to_tuple(value, hint, path)
    if origin in (dict, Mapping) or hint is dict:
        return _to_mapping(value)
    return _to_scalar(value, hint)


def _to_scalar(value: Any, hint: Any) -> Any:
    text = isinstance(value, str)
    if hint is bool:
        if text and value.strip().lower() in _TRUE + _FALSE:
            return value.strip().lower() in _TRUE
        if isinstance(value, bool):
            return value
    elif hint is int:
        if text or (isinstance(value, int) and not isinstance(value, bool)):
            return int(value)
    elif hint is float:
        if text or (isinstance(value, (int, float)) and not isinstance(value, bool)):
            return float(value)
    elif isinstance(value, hint):
        return value
    raise TypeError


def _to_union(value: Any, hint: Any, path: str) -> Any:
    members = typing.get_args(hint)
    if type(None) in members and (value is None or (isinstance(value, str) and value.strip().lower() in _NONE)):
        return None
    choices = [member for member in members if member is not type(None)]
    if len(choices) == 1:
        return _to(value, choices[0], path)
    for member in sorted(choices, key=lambda kind: kind is str):
        try:
            return _to(value, member, path)
        except (ValueError, TypeError, SyntaxError, OverflowError):
            continue
    raise TypeError


def _to_choice(value: Any, hint: Any, path: str) -> Any:
    choices = typing.get_args(hint)
    for choice in choices:
        if value == choice or (isinstance(value, str) and value == str(choice)):
            return choice
    hint = did_you_mean(str(value), map(str, choices), otherwise="")
    expected = f"{path}: expected one of {', '.join(map(str, choices))}, got {reprlib.repr(value)}"
    raise ConfigError("; ".join(filter(None, (expected, hint))))


def _to_tuple(value: Any, hint: Any, path: str) -> tuple[Any, ...]:
    if isinstance(value, str):
        stripped = value.strip().removeprefix("(").removeprefix("[").removesuffix(")").removesuffix("]")
        value = [item.strip().strip("'\"") for item in stripped.split(",") if item.strip()]
    if not isinstance(value, (tuple, list)):
        raise TypeError
    members = typing.get_args(hint) or (Any, ...)
    if len(members) == 1 or members[-1] is Ellipsis:
        return tuple(_to(item, members[0], path) for item in value)
    if len(members) != len(value):
        raise TypeError
    return tuple(_to(item, member, path) for item, member in zip(value, members, strict=True))


def _to_mapping(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        value = ast.literal_eval(value) if not value.lstrip().startswith("{") else _json_or_literal(value)
    if not isinstance(value, Mapping):
        raise TypeError
    return {str(key): item for key, item in value.items()}


def _json_or_literal(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return ast.literal_eval(value)


def _type_name(hint: Any) -> str:
    names = {int: "an integer", float: "a number", bool: "true or false", str: "text", dict: "a dictionary"}
    if hint in names:
        return names[hint]
    origin, members = typing.get_origin(hint), typing.get_args(hint)
    if hint is type(None):
        return "none"
    if origin in (Union, types.UnionType):
        return " or ".join(_type_name(member) for member in members)
    if origin in (tuple, list):
        if len(members) == 2 and members[-1] is Ellipsis:
            return f"comma-separated values ({_type_name(members[0])} each)"
        return f"{len(members)} comma-separated values ({', '.join(_type_name(member) for member in members)})"
    if origin is Literal:
        return f"one of {', '.join(map(str, members))}"
    return names[dict] if origin in (dict, Mapping) else getattr(hint, "__name__", str(hint))
