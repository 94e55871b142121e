"""The package's defaults and tables as they stand, one file of JSON for each of its folders.

Callers rely on a default without naming it, and results were made with the numbers in the tables. A changed one breaks
no call, so a test of each would repeat the number. They are recorded instead: `tests/test_recorded.py` compares, and

    python -m tests.recorded

records anew what was changed on purpose. The difference belongs in the same commit.
"""

import dataclasses
import enum
import functools
import importlib
import inspect
import json
import math
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import sequencer2d
from sequencer2d.terminal import to_json

PACKAGE = Path(sequencer2d.__file__).parent
FOLDERS = ("", *sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")))
"""The package's folders; "" stands for the modules at its top."""
HERE = Path(__file__).parent
_LONG = 5
"""Entries of the longest table without a name."""
_LONGEST_NAME = 60
"""A longer string is a text, such as a message."""
_WIDTH = 120


def recorded(folder: str) -> dict[str, Any]:
    """What was recorded of a folder, by module, without the modules that cannot be imported here."""
    found: dict[str, Any] = json.loads(_file(folder).read_text(encoding="utf-8"))
    missing = {_short(name) for name in modules(folder)} - set(_import_all(folder))
    return {name: entry for name, entry in found.items() if name not in missing}


def present(folder: str) -> dict[str, Any]:
    """The defaults and tables of a folder's modules as they are now. Modules without any are left out."""
    found = {}
    for name, module in _import_all(folder).items():
        entry = {"defaults": defaults(module), "tables": tables(module)}
        found[name] = {kind: values for kind, values in entry.items() if values}
    return {name: entry for name, entry in found.items() if entry}


def modules(folder: str) -> list[str]:
    """The names of a folder's modules, packages in it included."""
    base = PACKAGE / folder
    names = []
    for path in sorted(base.rglob("*.py") if folder else base.glob("*.py")):
        parts = ("sequencer2d", *path.relative_to(PACKAGE).with_suffix("").parts)
        if parts[-1] != "__main__":
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def defaults(module: ModuleType) -> dict[str, Any]:
    """The defaults of a module's public functions and methods and the fields of its public classes."""
    found = {}
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(value):
            found |= {f"{name}{inner}": each for inner, each in _of_class(value).items()}
        elif callable(value):
            found[name] = _of_function(value)
    return {name: each for name, each in found.items() if each not in ({}, None)}


def tables(module: ModuleType) -> dict[str, Any]:
    """The constants that a module defines: its names in capitals, also those that begin with an underscore.

    Messages and other long texts are left out, and what is empty at first fills up while the package is used.
    """
    defined = re.findall(
        r"^(_?[A-Z][A-Z0-9_]*)\b.*= *(?!\{\}|set\(\)|\"\"\")\S", inspect.getsource(module), flags=re.MULTILINE
    )
    values = {name: vars(module)[name] for name in defined if name in vars(module)}
    return {
        name: plain(value, whole=True)
        for name, value in values.items()
        if not _is_text(value) and not inspect.isclass(value)
    }


def plain(value: Any, *, whole: bool = False) -> Any:
    """A value as JSON shows it: what has no such form, and unless `whole` a table with a name, by its name."""
    if id(value) in _names() and not whole:
        return _names()[id(value)]
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if _is_text(value):
        return "(text)"
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"": type(value).__name__, **_row(value)}
    if isinstance(value, Mapping):
        return {_key(key): plain(each) for key, each in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((plain(each) for each in value), key=str)
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, functools.partial):
        return {"": plain(value.func), "arguments": plain(value.args), **plain(value.keywords)}
    if isinstance(value, re.Pattern):
        return value.pattern
    if isinstance(value, ModuleType):
        return value.__name__
    if type(value).__name__ == "constexpr":
        return plain(value.value)
    if isinstance(value, type) or callable(value):
        name = "__name__" if inspect.isbuiltin(value) else "__qualname__"
        return getattr(value, name, type(value).__name__)
    text = repr(value)
    return type(value).__name__ if " at 0x" in text or str(PACKAGE.parent) in text else text


def _of_class(made: type) -> dict[str, Any]:
    """The defaults of a class's own fields, under "", and those of its public methods, by ".name"."""
    own = {name: value for name, value in vars(made).items() if not name.startswith("_")}
    if dataclasses.is_dataclass(made):
        values = {field.name: _field(field) for field in dataclasses.fields(made)}
        fields = {name: plain(value) for name, value in values.items() if value is not dataclasses.MISSING}
    else:
        fields = {name: plain(value) for name, value in own.items() if _is_plain(value)}
        initial = vars(made).get("__init__")
        fields |= (_of_function(initial) or {}) if initial else {}
    found = {"": fields}
    for name, value in own.items():
        function = value.__func__ if isinstance(value, staticmethod | classmethod) else value
        if inspect.isfunction(function):
            found[f".{name}"] = _of_function(function)
    return found


def _row(value: Any) -> dict[str, Any]:
    """The fields of a row in a table that differ from their defaults."""
    values = {field.name: (getattr(value, field.name), _field(field)) for field in dataclasses.fields(value)}
    return {name: plain(given) for name, (given, usual) in values.items() if given is not usual and given != usual}


@functools.cache
def _names() -> dict[int, str]:
    """The names of the package's rows and longer tables, by identity: other tables that hold them show the name."""
    found: dict[int, str] = {}
    for folder in FOLDERS:
        for module in _import_all(folder).values():
            for name, value in vars(module).items():
                is_row = dataclasses.is_dataclass(value) and not isinstance(value, type)
                is_long = isinstance(value, tuple | Mapping) and len(value) > _LONG
                if name.isupper() and not name.startswith("_") and (is_row or is_long):
                    found.setdefault(id(value), name)
    return found


@functools.cache
def _import_all(folder: str) -> dict[str, ModuleType]:
    """The modules of a folder. One that needs an extra that is not installed, such as Triton, is left out."""
    found = {}
    for name in modules(folder):
        try:
            found[_short(name)] = importlib.import_module(name)
        except ImportError as error:
            if (error.name or "").startswith("sequencer2d"):
                raise
    return found


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) > _LONGEST_NAME


def _field(field: Any) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _of_function(function: Any) -> dict[str, Any] | None:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    return {each.name: plain(each.default) for each in parameters if each.default is not inspect.Parameter.empty}


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | tuple | frozenset | Mapping)


def _key(key: Any) -> str:
    return key if isinstance(key, str) else " ".join(map(str, key)) if isinstance(key, tuple) else str(plain(key))


def _short(name: str) -> str:
    return name.removeprefix("sequencer2d.")


def _file(folder: str) -> Path:
    return HERE / f"{folder or 'top'}.json"


def _lines(value: Any, indent: int = 0) -> str:
    """JSON with a row of a table on one line where it fits."""
    text = to_json(value, indent=None)
    if not isinstance(value, dict | list) or len(text) + indent <= _WIDTH or not value:
        return text
    if isinstance(value, list) and not any(isinstance(each, dict | list) for each in value):
        joined = ", ".join(to_json(each).replace(" ", "\0") for each in value)
        wrapped = textwrap.wrap(joined, _WIDTH - indent - 1, break_long_words=False, break_on_hyphens=False)
        filled = "\n".join(wrapped).replace("\0", " ")
        return "[\n" + textwrap.indent(filled, " " * (indent + 1)) + "\n" + " " * indent + "]"
    ends = "{}" if isinstance(value, dict) else "[]"
    keys = [f"{to_json(key)}: " for key in value] if isinstance(value, dict) else [""] * len(value)
    entries = value.values() if isinstance(value, dict) else value
    inner = [" " * (indent + 1) + key + _lines(each, indent + 1) for key, each in zip(keys, entries, strict=True)]
    return ends[0] + "\n" + ",\n".join(inner) + "\n" + " " * indent + ends[1]


def record() -> None:
    """Write the files anew."""
    for folder in FOLDERS:
        _file(folder).write_text(_lines(present(folder)) + "\n", encoding="utf-8")
