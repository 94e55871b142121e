"""Files are written whole or not at all, and JSON of others is read within limits."""

import contextlib
import json
import os
from pathlib import Path

import pytest

from sequencer2d import files
from sequencer2d.files import atomic_write, parse_json, read_json, sweep_parts, write_json


def test_a_file_is_there_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.txt"
    with atomic_write(path, "w") as file:
        file.write("größe")
        assert [entry.suffix for entry in path.parent.iterdir()] == [".part"]
    assert path.read_bytes() == "größe".encode()
    with contextlib.suppress(ZeroDivisionError), atomic_write(path) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert [entry.name for entry in path.parent.iterdir()] == ["a.txt"]
    assert path.read_bytes() == "größe".encode()


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_files_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "a") as file:
            file.write(b"x")
        assert os.umask(0o027) == 0o027, "the process's mask is left as it was"
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_only_what_killed_writers_of_a_file_left_is_removed(tmp_path: Path) -> None:
    for name in (".a.txt.1.part", ".b.txt.2.part", ".a.txt.old", "a.txt.part"):
        (tmp_path / name).touch()
    with atomic_write(tmp_path / "a.txt", "w"):
        (living,) = (entry.name for entry in tmp_path.glob(".a.txt.*.part"))
        assert living != ".a.txt.1.part"
        sweep_parts(tmp_path, "a.txt")
        assert (tmp_path / living).exists(), "its writer holds a lock"
    assert {entry.name for entry in tmp_path.iterdir()} == {"a.txt", ".b.txt.2.part", ".a.txt.old", "a.txt.part"}
    sweep_parts(tmp_path)
    assert not (tmp_path / ".b.txt.2.part").exists()


def test_json_is_written_in_lines_and_read_again(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": ["ü"]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "b": [\n    "ü"\n  ]\n}\n'
    assert read_json(tmp_path / "a.json") == {"b": ["ü"]}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert read_json(tmp_path / "a.json") == {"b": ["ü"]}


def nested(levels: int, opening: str = "[", closing: str = "]") -> str:
    return opening * levels + closing * levels


def test_json_of_others_is_read_within_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert files.JSON_LIMIT == 64 * 1024 * 1024
    assert parse_json("1.5") == 1.5
    parse_json(nested(64))
    parse_json(json.dumps([{"a": [1]}]))
    for text, message in (
        (nested(65), "nested deeper than 64 levels"),
        (nested(100_000), "nested deeper than 64 levels"),
        ('{"a":' * 65 + "1" + "}" * 65, "nested deeper than 64 levels"),
        ("NaN", "NaN is not JSON"),
        ("-Infinity", "-Infinity is not JSON"),
        ("1e400", "1e400 is too large a number"),
        ("9" * 30 + "e999", "9{20} is too large"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_json(text)
    monkeypatch.setattr(files, "JSON_LIMIT", 3)
    assert parse_json("123") == 123
    with pytest.raises(ValueError, match="4 bytes of JSON are too many; at most 3"):
        parse_json("1234")
