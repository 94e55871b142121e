"""From finished runs and their rows to tables and pictures; rows here are small but real in form."""

import json
from pathlib import Path

import pytest

from benchmarks import tables
from benchmarks.tiny_imagenet import plots, resolution
from benchmarks.tiny_imagenet.rows import COMMITS, merge_row, note_commit
from benchmarks.tiny_imagenet.tables import by_model, mean_and_spread
from sequencer2d.benchmark import provenance
from sequencer2d.training.loop import train
from tests.benchmarks.test_tiny_imagenet import SMALL, configuration
from tests.data.images import make_folder


def row(model: str, seed: int, top1: float, **more: object) -> dict:
    return {"model": model, "paper": "1: row", "seed": seed, "parameters": 4_000_000, "macs": 294_000_000,
            "image_size": 64, "top1_percent": top1, "top5_percent": 60.0, "seconds": 300.0 + 60 * seed,
            "expected_minutes": 6, "images_per_second": 12_000.0, **more}  # fmt: skip


ROWS = [row("sequencer2d_n", 0, 40.0), row("sequencer2d_n", 1, 41.0), row("vit", 0, 35.0)]
SWEEP = {
    "plan": "small",
    "model": "vit",
    "seed": 0,
    "native": 64,
    "sizes": [32, 64, 128],
    "top1_percent": [9.0, 35.0, 12.0],
}


def test_a_table_has_one_line_a_model_with_the_spread_over_its_seeds():
    first, second = by_model(ROWS)
    assert (first["seeds"], first["top1"], first["gpu_minutes"]) == (2, "40.50 ± 0.71", 5.5)
    assert (second["seeds"], second["top1"]) == (1, "35.00")
    assert mean_and_spread([1.0, 2.0, 3.0]) == "2.00 ± 1.00"


def test_runs_that_shared_a_gpu_count_with_their_share_and_without_a_rate():
    shared = by_model([row("vit", 0, 35.0, side_by_side=4), row("vit", 1, 35.0, side_by_side=4)])[0]
    assert (shared["gpu_minutes"], shared["rate"]) == ((300 + 360) / 60 / 4 / 2, None)
    assert (
        by_model([row("vit", 0, 35.0), row("vit", 1, 35.0, side_by_side=4, images_per_second=1.0)])[0]["rate"] == 12_000
    )


def test_tables_in_documents_say_what_writes_them_and_show_the_rows():
    document = "<!-- table: {0} -->\n<!-- end: {0} -->\n"
    empty = tables.render(document.format("tiny-imagenet-fine_tune"), {})
    assert "Not yet measured: `python -m benchmarks.tiny_imagenet fine_tune` writes" in empty
    source = {"device": {"kind": "cuda", "name": "A GPU", "count": 1}, "versions": {"torch": "2.99"},
              "date": "2030-01-02", "commit": "0123456789abcdef"}  # fmt: skip
    gains = {**source, "rows": [row("sequencer2d_n", seed, 40.0, gain_points=1.0 + seed) for seed in (0, 1)]}
    text = tables.render(document.format("tiny-imagenet-fine_tune"), {"tiny-imagenet-fine_tune": gains})
    assert (
        "| sequencer2d_n | 1: row | 4.0 M | 0.29 | 64 | 2 | 40.00 ± 0.00 | 1.50 ± 0.71 | 5.5 | 6.0 | 12,000 |" in text
    )
    sweep = {**source, "rows": [SWEEP]}
    text = tables.render(document.format("tiny-imagenet-resolution"), {"tiny-imagenet-resolution": sweep})
    assert "| vit (small) | 0 | 9.00 (32²) | 35.00 (64²) | 12.00 (128²) |" in text


def test_a_result_file_names_the_gpu_that_trained_wherever_its_rows_are_made(tmp_path):
    path = tmp_path / "result.json"
    made = {"device": "A GPU", "versions": {"torch": "2.99"}}
    for seed, top1, commit in ((1, 41.0, "ccccccc"), (0, 40.0, "aaaaaaa, bbbbbbb"), (1, 42.0, "bbbbbbb")):
        merge_row(path, "small", row("sequencer2d_n", seed, top1, commit=commit, **made), "command")
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["commit"] == "aaaaaaa, bbbbbbb"
    assert (result["device"], result["versions"]) == ({"kind": "cuda", "name": "A GPU", "count": 1}, {"torch": "2.99"})
    assert [(entry["seed"], entry["top1_percent"]) for entry in result["rows"]] == [(0, 40.0), (1, 42.0)]


def test_a_run_knows_every_commit_that_trained_it(tmp_path, monkeypatch):
    for commit in ("aaaaaaa", "aaaaaaa", "bbbbbbb"):
        monkeypatch.setattr(provenance, "commit", lambda commit=commit: commit)
        note_commit(tmp_path / "run")
    assert json.loads((tmp_path / "run" / COMMITS).read_text(encoding="utf-8")) == ["aaaaaaa", "bbbbbbb"]


def test_pictures_are_drawn_of_what_was_measured(tmp_path, capsys):
    assert plots.main(["--results", str(tmp_path), "--folder", str(tmp_path / "figures")]) == 0
    assert capsys.readouterr().out == ""
    for name, rows in (("small", ROWS), ("resolution", [SWEEP])):
        (tmp_path / f"tiny-imagenet-{name}.json").write_text(json.dumps({"rows": rows}), encoding="utf-8")
    assert plots.main(["--results", str(tmp_path), "--folder", str(tmp_path / "figures")]) == 0
    drawn = sorted((tmp_path / "figures").iterdir())
    assert [path.name for path in drawn] == ["evidence-resolution.svg", "evidence-small.svg"]
    assert plots.points_by_model(ROWS)["sequencer2d_n"] == (5.5, 40.5, pytest.approx(0.7071, abs=1e-4))


def test_finished_runs_are_measured_at_other_sizes_once(tmp_path: Path, capsys):
    make_folder(tmp_path / "data", {"train": {"a": 4, "b": 4}, "val": {"a": 2, "b": 2}})
    config = configuration(
        "ablations", "add", 0, data=tmp_path / "data", runs=tmp_path / "runs", fields=["run.compile=false", *SMALL]
    )
    summary = train(config)
    command = ["--data", str(tmp_path / "data"), "--runs", str(tmp_path / "runs"), "--plans", "ablations"]
    command += ["--result", str(tmp_path / "result.json")]
    assert resolution.main(command) == 0
    rows = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))["rows"]
    assert [(entry["model"], entry["native"], entry["sizes"]) for entry in rows] == [("add", 16, [8, 16, 24, 32])]
    assert rows[0]["top1_percent"][1] == summary["best"]["top1"]
    capsys.readouterr()
    assert resolution.main(command) == 0
    assert capsys.readouterr().out == ""
