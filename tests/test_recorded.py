"""Defaults and tables are those that were recorded. `python -m tests.recorded` records a change made on purpose."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from tests import recorded

SOURCE = """
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    rows: int
    stages: int = 2
    names: tuple[str, ...] = field(default_factory=lambda: ("a",))

    def run(self, steps: int = 3) -> int:
        return steps


TABLE = {("forward", 96): Row(16), ("backward", 96): Row(32, stages=4)}
_LIMITS = (0.5, float("inf"))
_CACHE: dict[str, int] = {}


def resize(image, *, size: int = 224, mode: str = "bicubic") -> None: ...


def _hidden(size: int = 1) -> None: ...
"""
EXPECTED = {
    "defaults": {
        "Row": {"stages": 2, "names": ["a"]},
        "Row.run": {"steps": 3},
        "resize": {"size": 224, "mode": "bicubic"},
    },
    "tables": {
        "TABLE": {"forward 96": {"": "Row", "rows": 16}, "backward 96": {"": "Row", "rows": 32, "stages": 4}},
        "_LIMITS": [0.5, "inf"],
    },
}


@pytest.mark.parametrize("folder", recorded.FOLDERS)
def test_defaults_and_tables_are_those_that_were_recorded(folder: str) -> None:
    assert json.loads(json.dumps(recorded.present(folder))) == recorded.recorded(folder), (
        "changed on purpose? python -m tests.recorded"
    )


def test_every_default_and_every_number_of_a_table_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recorded_toy.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("recorded_toy")
    monkeypatch.delitem(sys.modules, "recorded_toy")
    assert {"defaults": recorded.defaults(module), "tables": recorded.tables(module)} == EXPECTED
