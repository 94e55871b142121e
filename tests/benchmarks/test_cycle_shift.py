"""The benchmark of CycleMLP's shift compares two layers that give the same, and writes a row per stage."""

import json
from pathlib import Path

import pytest

from benchmarks import cycle_shift


def test_each_stage_has_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cycle_shift, "STAGES", ((4, 6), (2, 9)))
    monkeypatch.setattr(cycle_shift, "ROUNDS", 2)
    assert cycle_shift.main(["--batch", "2", "--result", str(tmp_path / "shift.json")]) == 0
    rows = json.loads((tmp_path / "shift.json").read_text(encoding="utf-8"))["rows"]
    assert [(row["side"], row["channels"], row["batch"]) for row in rows] == [(4, 6, 2), (2, 9, 2)]
    for row in rows:
        assert {column.key for column in cycle_shift.CYCLE_SHIFT_COLUMNS} <= set(row)
        assert row["training_speedup"] == pytest.approx(row["deformable_training_ms"] / row["slices_training_ms"])
