"""What functions return and dataclasses hold is of the type that their annotations state, in every test.

`install` is called before the package is imported. Numbers must be Python's own, not NumPy's: they are written as JSON.
The library typeguard would take NumPy's float64 for a float, since it is a subclass.
The modules that torch.compile traces are left out.
"""

import collections.abc
import dataclasses
import functools
import importlib.abc
import importlib.machinery
import inspect
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Union

TRACED = ("ops", "nn", "models", "peers", "dense", "export")
"""Folders of the package whose functions run inside compiled or exported models."""
_PLAIN = {float: (float, int), int: (int,), bool: (bool,), str: (str,), Path: (type(Path()),)}
_SHOWN = 3
"""Elements of a container that are looked at."""
_ALONE = 2
"""What `sys.getrefcount` says of a function that the module's namespace alone holds: it counts its own argument too."""


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the type that an annotation states; True for annotations that are not understood."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is None or hint is type(None):
        return value is None
    if origin in (Union, types.UnionType):
        return any(fits(value, argument) for argument in arguments)
    if origin is Literal:
        return value in arguments
    if hint in _PLAIN:
        return type(value) in _PLAIN[hint]
    if origin is tuple:
        return isinstance(value, tuple) and _elements_fit(value, arguments)
    if origin in (list, set, frozenset, collections.abc.Sequence):
        some = [element for element, _ in zip(value, range(_SHOWN), strict=False)] if isinstance(value, origin) else []
        return isinstance(value, origin) and all(fits(element, arguments[0]) for element in some)
    if origin in (dict, collections.abc.Mapping):
        some = list(zip(value.items(), range(_SHOWN), strict=False)) if isinstance(value, origin) else []
        return isinstance(value, origin) and all(
            fits(key, arguments[0]) and fits(entry, arguments[1]) for (key, entry), _ in some
        )
    kind = origin or hint
    if not isinstance(kind, type) or kind.__module__ == "typing" or _is_structure(kind):
        return True
    return isinstance(value, kind)


def _is_structure(kind: type) -> bool:
    """Whether values of a type are known by what they have, not by their class."""
    return typing.is_typeddict(kind) or getattr(kind, "_is_protocol", False)


def _elements_fit(value: tuple[Any, ...], hints: tuple[Any, ...]) -> bool:
    if len(hints) == 2 and hints[1] is ...:
        return all(fits(element, hints[0]) for element in value[:_SHOWN])
    if hints == ((),):
        hints = ()
    return len(value) == len(hints) and all(map(fits, value, hints))


def install() -> None:
    """Check the modules of the package that are imported from now on."""
    sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the package's modules as Python does, and has their functions and classes checked after loading."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        parts = name.split(".")
        if parts[0] != "sequencer2d" or len(parts) == 1 or parts[1] in TRACED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            execute = loader.exec_module

            def exec_module(module: types.ModuleType) -> None:
                execute(module)
                _check_module(module)

            loader.exec_module = exec_module
        return spec


def _check_module(module: types.ModuleType) -> None:
    names = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    for name in names:
        if isinstance(vars(module)[name], type):
            _check_class(vars(module)[name])
        elif isinstance(vars(module)[name], types.FunctionType) and not _stands_in_a_table(module, name):
            setattr(module, name, _checked(vars(module)[name]))


def _stands_in_a_table(module: types.ModuleType, name: str) -> bool:
    """Whether something beside the module's namespace holds a function, as a row of a table does.

    Such a function can only be pickled, for workers that are spawned, if it remains what the module has by its name.
    """
    return sys.getrefcount(vars(module)[name]) > _ALONE


def _check_class(kind: type) -> None:
    for name, value in list(vars(kind).items()):
        if isinstance(value, types.FunctionType) and (not name.startswith("__") or name in ("__len__", "__str__")):
            setattr(kind, name, _checked(value))
        elif isinstance(value, staticmethod | classmethod) and isinstance(value.__func__, types.FunctionType):
            setattr(kind, name, type(value)(_checked(value.__func__)))
        elif isinstance(value, property) and isinstance(value.fget, types.FunctionType):
            setattr(kind, name, property(_checked(value.fget), value.fset, value.fdel, value.__doc__))
        elif isinstance(value, functools.cached_property):
            value.func = _checked(value.func)
    if dataclasses.is_dataclass(kind) and "__init__" in vars(kind):
        kind.__init__ = _checked_fields(kind, kind.__init__)  # type: ignore[misc]


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with a check of what it returns; itself where nothing can be checked, as in context managers."""
    unchecked = hasattr(function, "__wrapped__") or inspect.iscoroutinefunction(function)
    if unchecked or "return" not in function.__annotations__:
        return function

    @functools.wraps(function)
    def checked(*arguments: Any, **options: Any) -> Any:
        value = function(*arguments, **options)
        hint = _hints(function).get("return", Any)
        assert fits(value, hint), f"{function.__module__}.{function.__qualname__} returns {value!r}, not {hint}"
        return value

    return checked


def _checked_fields(kind: type, initialize: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(initialize)
    def checked(self: Any, *arguments: Any, **options: Any) -> None:
        initialize(self, *arguments, **options)
        for field in dataclasses.fields(kind):  # type: ignore[arg-type]
            hint, value = _hints(kind).get(field.name, Any), getattr(self, field.name, None)
            assert fits(value, hint), f"{kind.__module__}.{kind.__name__}.{field.name} is {value!r}, not {hint}"

    return checked


@functools.cache
def _hints(annotated: Any) -> dict[str, Any]:
    """Types by name; none of something whose annotations only a type checker can read."""
    try:
        return typing.get_type_hints(annotated)
    except (NameError, TypeError):
        return {}
