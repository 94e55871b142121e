"""The benchmark of compilation: rows are written as they are measured, and a time limit keeps those before it."""

import json
import sys

from benchmarks import compiling as script


def rows(path, monkeypatch, *arguments):
    options = ["--model", "sequencer2d_n", "--size", "28", "--batches", "1", "--device", "cpu", "--measure-s", "0.01"]
    monkeypatch.setattr(sys, "argv", ["compiling", *options, *arguments, "--output", str(path)])
    script.main()
    return json.loads(path.read_text())["rows"]


def test_each_batch_and_another_image_size_have_a_row(tmp_path, monkeypatch):
    first, other = rows(tmp_path / "compiling.json", monkeypatch, "--forms", "eager")
    assert (first["form"], first["mode"], first["batch"], first["height"]) == ("eager", "training", 1, 28)
    assert (other["batch"], other["height"]) == (1, 14)
    assert first["images_per_second"] > 0 < first["first_call_seconds"]


def test_a_process_that_takes_too_long_is_ended_and_named(tmp_path, monkeypatch):
    assert rows(tmp_path / "compiling.json", monkeypatch, "--forms", "eager", "--time-limit", "0") == [
        {"form": "eager", "error": "not done after 1 s"}
    ]
