"""A result file says where it comes from."""

import json
from pathlib import Path

import pytest

from benchmarks import record
from sequencer2d.benchmark import provenance as sources


def test_provenance_names_device_versions_and_commit() -> None:
    fields = record.provenance("speed")
    assert set(fields) == {"name", "date", "device", "versions", "commit"}
    assert fields["date"].endswith("+00:00")
    assert {"kind", "name", "count"} <= set(fields["device"])
    assert {"python", "sequencer2d", "torch", "timm"} <= set(fields["versions"])


def test_without_git_the_commit_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_git(*_: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(sources, "git", no_git)
    monkeypatch.setenv("SEQUENCER2D_COMMIT", "abc")
    assert record.provenance("speed")["commit"] == "abc"
    monkeypatch.delenv("SEQUENCER2D_COMMIT")
    assert record.provenance("speed")["commit"] == "unknown"


def test_results_are_json_files(tmp_path: Path) -> None:
    path = record.write_result({"name": "speed", "rows": []}, tmp_path / "speed.json")
    assert json.loads(path.read_text(encoding="utf-8")) == {"name": "speed", "rows": []}


def test_every_committed_result_has_the_fields_that_its_readme_lists() -> None:
    for path in record.RESULTS.glob("*.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        missing = {"name", "date", "device", "versions", "commit", "command", "rows"} - set(result)
        assert not missing, f"{path.name} lacks {missing}"
        assert result["name"] == path.stem
