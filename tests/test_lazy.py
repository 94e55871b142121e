"""Packages import their names when these are first used, and list them before."""

import importlib
import pkgutil

import pytest

import sequencer2d
from sequencer2d.lazy import lazy_names

PACKAGES = [
    name
    for name in ("sequencer2d", *(entry.name for entry in pkgutil.walk_packages(sequencer2d.__path__, "sequencer2d.")))
    if hasattr(importlib.import_module(name), "__path__") and "__getattr__" in vars(importlib.import_module(name))
]


def test_most_packages_are_lazy() -> None:
    assert {"sequencer2d.export", "sequencer2d.models", "sequencer2d.peers"} <= {*PACKAGES}


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_is_where_its_package_says(name: str) -> None:
    package = importlib.import_module(name)
    assert dir(package) == sorted(package.__all__)
    for public in package.__all__:
        assert getattr(package, public) is not None, public
    with pytest.raises(AttributeError, match=rf"module '{name}' has no attribute 'no_such_name'"):
        package.no_such_name  # noqa: B018


def test_a_name_is_taken_from_its_submodule() -> None:
    get_attribute, list_names = lazy_names("sequencer2d.ops", {"CELLS": "cells"})
    from sequencer2d.ops import cells

    assert get_attribute("CELLS") is cells.CELLS
    assert list_names() == sorted(importlib.import_module("sequencer2d.ops").__all__)
