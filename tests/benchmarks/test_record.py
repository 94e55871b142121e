"""A result file says where it comes from."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

from benchmarks import record
from benchmarks.tables import load_results
from sequencer2d.benchmark import provenance as sources

RESULTS = load_results(record.RESULTS)
FIELDS = {"name", "script", "date", "device", "versions", "commit", "command", "rows"}
COMMIT = r"[0-9a-f]{7,40}(\+changes)?"
BY_HAND = "Put together by hand"


def test_the_origin_names_script_device_versions_commit_and_command() -> None:
    fields = record.origin("speed", "benchmarks.cpu", "python -m benchmarks.cpu")
    assert set(fields) == FIELDS - {"rows"}
    assert (fields["name"], fields["script"]) == ("speed", "benchmarks.cpu")
    assert fields["date"].endswith("+00:00")
    assert {"kind", "name", "count"} <= set(fields["device"])
    assert {"python", "sequencer2d", "torch", "timm"} <= set(fields["versions"])


def test_the_command_is_one_that_a_shell_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert record.command_line("benchmarks.cpu", ["--models", "a b"]) == "python -m benchmarks.cpu --models 'a b'"
    monkeypatch.setattr(sys, "argv", ["cpu.py", "--batches", "1"])
    assert record.command_line("benchmarks.cpu") == "python -m benchmarks.cpu --batches 1"


def test_without_git_the_commit_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_git(*_: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(sources, "git", no_git)
    monkeypatch.setenv("SEQUENCER2D_COMMIT", "abc")
    assert sources.commit() == "abc"
    monkeypatch.delenv("SEQUENCER2D_COMMIT")
    assert sources.commit() == "unknown"


def test_results_are_json_files(tmp_path: Path) -> None:
    path = record.write_result({"name": "speed", "rows": []}, tmp_path / "speed.json")
    assert json.loads(path.read_text(encoding="utf-8")) == {"name": "speed", "rows": []}


@pytest.mark.parametrize("key", RESULTS)
def test_every_committed_result_has_the_fields_that_its_readme_lists(key: str) -> None:
    result = RESULTS[key]
    assert set(result) >= FIELDS
    assert result["name"] == Path(key).name
    assert all(re.fullmatch(COMMIT, commit) for commit in result["commit"].split(", "))


@pytest.mark.parametrize("key", RESULTS)
def test_the_writer_of_every_committed_result_is_found(key: str) -> None:
    script, note = RESULTS[key]["script"], RESULTS[key].get("note", "")
    if not key.startswith("trials/"):
        assert importlib.util.find_spec(script)
        assert not note
    elif script is None:
        assert note.startswith(BY_HAND)
    elif not importlib.util.find_spec(script):
        assert "script was removed" in note


@pytest.mark.parametrize("key", RESULTS)
def test_a_result_whose_command_is_none_says_that_it_was_put_together_by_hand(key: str) -> None:
    command, note = RESULTS[key]["command"], RESULTS[key].get("note", "")
    runs = re.fullmatch(r"(python -m benchmarks(\.\w+)+|sequencer2d bench)( [\w/.,;:=-]+)*", command)
    if not runs or "put together" in command:
        assert note.startswith(BY_HAND)


def test_a_command_names_no_folder_of_a_machine() -> None:
    given = ["--data", "/data/tiny", "--output=/elsewhere/out.json", "runs/a", "data.root=/images/", "/"]
    expected = "python -m benchmarks.x --data tiny --output=out.json runs/a data.root=images /"
    assert record.command_line("benchmarks.x", given) == expected


def test_results_name_no_folder_of_a_machine() -> None:
    folder = re.compile(r"(?<![\w.:/])/(?:root|home|tmp|work|opt|mnt|data|usr)/[\w./-]+")
    files = {path.name: path.read_text(encoding="utf-8") for path in record.RESULTS.rglob("*.json")}
    assert {name: found for name, text in files.items() if (found := folder.findall(text))} == {}
