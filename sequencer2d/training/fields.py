"""Frozen dataclasses as trees of named fields: set one by its dotted path, convert to JSON and back, print.

A path names a field ("optimizer.lr") or a key of a dictionary field ("model.overrides.patch_sizes").
"""

import dataclasses
import json
import reprlib
import typing
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from sequencer2d.errors import ConfigError, did_you_mean
from sequencer2d.training.values import convert, literal

Config = TypeVar("Config")


def with_overrides(config: Config, overrides: Mapping[str, Any]) -> Config:
    """A copy of `config` with fields set by their dotted paths, e.g. {"optimizer.lr": "1e-3"}.

    Strings are converted to the field's type: int, float, bool (true/false, yes/no, on/off, 1/0), tuples ("2,2,1,1"),
    "none" for optional fields, JSON or Python literals for dictionaries and their keys. All are set at once, so that
    checks between fields see the result only.

    Raises `ConfigError` for a path that does not exist (with close matches) or a value of the wrong type.
    """
    known = paths(config)
    for path in overrides:
        if path not in known and not _is_dictionary_key(config, path):
            raise ConfigError(_unknown_path(path, known))
    return _replace(config, _nest(overrides), prefix="")


def paths(config: Any, prefix: str = "") -> tuple[str, ...]:
    """The dotted path of every leaf field, in the order of declaration."""
    return tuple(path for path, _ in _leaves(config, prefix))


def to_dict(config: Any) -> dict[str, Any]:
    """The fields as nested dictionaries of JSON values (tuples become lists)."""
    result: dict[str, Any] = _plain(config)
    return result


def from_dict(cls: type[Config], values: Mapping[str, Any], prefix: str = "") -> Config:
    """The inverse of `to_dict`; absent fields take their default. Raises `ConfigError` as `with_overrides` does."""
    if not isinstance(values, Mapping):
        name = prefix.rstrip(".") or "a configuration"
        raise ConfigError(f"{name}: expected a dictionary, got {reprlib.repr(values)}")
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for name in values:
        if name not in names:
            raise ConfigError(_unknown_path(prefix + name, [prefix + known for known in names]))
    return cls(**{name: _field(value, hints[name], prefix + name) for name, value in values.items()})


def _field(value: Any, hint: Any, path: str) -> Any:
    if not dataclasses.is_dataclass(hint):
        return convert(value, hint, path)
    return value if isinstance(value, hint) else from_dict(hint, value, f"{path}.")  # type: ignore[arg-type]


def describe(config: Any) -> str:
    """The resolved configuration as aligned lines `path = value`, grouped by section."""
    rows = list(_leaves(config, ""))
    width = max(len(path) for path, _ in rows)
    lines: list[str] = []
    section = None
    for path, value in rows:
        if lines and path.rpartition(".")[0] != section:
            lines.append("")
        section = path.rpartition(".")[0]
        lines.append(f"{path:<{width}} = {show_value(value)}")
    return "\n".join(lines)


def differences(a: Any, b: Any) -> tuple[str, ...]:
    """Paths of the leaf fields in which two configurations of one class differ."""
    other = dict(_leaves(b, ""))
    return tuple(path for path, value in _leaves(a, "") if _plain(value) != _plain(other.get(path)))


def value_at(config: Any, path: str) -> Any:
    """The value of the leaf field `path`."""
    return dict(_leaves(config, ""))[path]


def _leaves(config: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def show_value(value: Any) -> str:
    """A field's value as text, as the command line takes it."""
    if isinstance(value, (tuple, list)):
        return ",".join(str(item) for item in value) or "()"
    if isinstance(value, Mapping):
        return json.dumps(_plain(value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _is_dictionary_key(config: Any, path: str) -> bool:
    node = config
    names = path.split(".")
    for depth, name in enumerate(names):
        if isinstance(node, Mapping):
            return all(names[depth:])
        if not dataclasses.is_dataclass(node) or name not in {field.name for field in dataclasses.fields(node)}:
            return False
        node = getattr(node, name)
    return False


def _unknown_path(path: str, known: typing.Sequence[str]) -> str:
    if any(name.startswith(f"{path}.") for name in known):
        inside = ", ".join(name for name in known if name.startswith(f"{path}."))
        return f"{path} is a section, not a field; set one of its fields: {inside}"
    last = path.rpartition(".")[2]
    namesakes = [name for name in known if name.rpartition(".")[2] == last]
    sections = sorted({name.partition(".")[0] for name in known})
    hint = did_you_mean(
        path,
        namesakes or known,
        otherwise=f"the top level has: {', '.join(sections)}",
        cutoff=0.0 if namesakes else 0.8,
    )
    return f"unknown configuration field {path!r}; {hint}"


def _nest(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """{"a.b": 1} → {"a": {"b": 1}}; a leaf is wrapped so that a dictionary value is not taken for a level."""
    tree: dict[str, Any] = {}
    for path, value in overrides.items():
        *parents, last = path.split(".")
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                raise ConfigError(f"{path!r} is set together with {'.'.join(parents)!r}, which holds it: give one")
        if last in node:
            raise ConfigError(f"{path!r} is set together with a key inside it: give one")
        node[last] = _Leaf(value)
    return tree


@dataclasses.dataclass(frozen=True)
class _Leaf:
    value: Any


def _replace(config: Any, tree: Mapping[str, Any], prefix: str) -> Any:
    hints = typing.get_type_hints(type(config))
    changes = {}
    for name, item in tree.items():
        path = prefix + name
        current = getattr(config, name)
        if isinstance(item, _Leaf):
            changes[name] = convert(item.value, hints[name], path)
        elif dataclasses.is_dataclass(current):
            changes[name] = _replace(current, item, path + ".")
        else:
            changes[name] = _merge(current, item)
    return dataclasses.replace(config, **changes)


def _merge(current: Any, tree: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(current) if isinstance(current, Mapping) else {}
    for key, item in tree.items():
        merged[key] = literal(item.value) if isinstance(item, _Leaf) else _merge(merged.get(key), item)
    return merged
