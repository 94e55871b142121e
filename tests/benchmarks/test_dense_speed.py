"""The comparison of backbones under a decoder: what is run, the rows it writes, and the tables and the figure."""

import argparse
import json
import time
from pathlib import Path

import pytest
import torch

from benchmarks import tables
from benchmarks.dense import regions, shown
from benchmarks.dense.contenders import MODELS, Contender, build
from benchmarks.dense.speed import BATCHES, SIZES, Workers, jobs_of, main, workers_of
from benchmarks.dense.worker import Job, Prepared
from benchmarks.efficiency import plots


def test_every_model_is_measured_at_every_size_in_both_modes_before_anything_else():
    jobs = jobs_of(MODELS, SIZES, ("inference", "training"))
    first = jobs[: 2 * len(SIZES) * len(MODELS)]
    assert {(job.model, job.mode, job.size) for job in first} == {
        (model, mode, size) for model in MODELS for mode in ("inference", "training") for size in SIZES
    }
    assert all(job.form == "best" and job.batch == BATCHES[job.size] for job in first)
    assert len(set(jobs)) == len(jobs)
    assert sorted(map(str, jobs)) == sorted(str(job) for group in workers_of(jobs, 16) for job in group)
    assert len(workers_of(jobs, 16)) < len(jobs)
    assert workers_of(jobs[:12], 16) == [[job] for job in jobs[:12]], "with cores for all, each compiles on its own"


def test_a_run_writes_a_row_for_each_job_and_a_second_one_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    output = tmp_path / "speed.json"
    command = ["--device", "cpu", "--dtype", "float32", "--sizes", "64", "--models", "sequencer2d_n"]
    command += ["--modes", "inference", "--seconds", "0.01", "--output", str(output)]
    assert main(command) == 0
    (row,) = json.loads(output.read_text())["rows"]
    assert row["images_per_s"] > 0
    assert row["megapixels_per_s"] == pytest.approx(row["images_per_s"] * 64**2 / 1e6)
    assert row["gate"]["passed"]
    assert main(command) == 0
    assert json.loads(output.read_text())["rows"] == [row]


def test_a_wrong_result_has_no_rate():
    job = Job("sequencer2d_n", "decoder", "semantic_fpn", "inference", 64, 2)
    prepared = Prepared(job, torch.device("cpu"), torch.float32)
    right = prepared.forward
    assert "images_per_s" in prepared.row(0.01)
    prepared.forward = lambda images: right(images) * 1.01
    row = prepared.row(0.01)
    assert row["error"].startswith("wrong result")
    assert "images_per_s" not in row


def test_equal_blocks_share_code_that_takes_other_batches(monkeypatch: pytest.MonkeyPatch):
    whole = torch.compile
    monkeypatch.setattr(regions.torch, "compile", lambda function: whole(function, backend="eager"))
    monkeypatch.setattr(regions, "_code", {})
    model = build(Contender("sequencer2d_n"), 64).eval()
    images = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        expected = model(images)
        count = regions.compile_regions(model)
        model(images[:2])
        compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        torch.testing.assert_close(model(images), expected)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compiled
    assert 0 < len(regions._code) < count


def test_what_is_not_compiled_in_time_is_said_and_left_to_the_next_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "speed.json"
    command = ["--device", "cpu", "--dtype", "float32", "--sizes", "64", "--models", "sequencer2d_n"]
    command += ["--modes", "inference", "--seconds", "0.01", "--output", str(output), "--time-limit", "0"]
    assert main(command) == 0
    assert "not compiled in time" in capsys.readouterr().out
    assert not output.exists() or "error" in json.loads(output.read_text())["rows"][0]


def test_a_process_that_dies_leaves_its_reason_in_the_row(tmp_path: Path):
    job = Job("sequencer2d_n", "decoder", "semantic_fpn", "inference", 64, 2)
    options = argparse.Namespace(device="cpu", dtype="float32", seconds=0.01, time_limit=1e3, output=tmp_path / "x")
    workers = Workers([[job]], options)
    try:
        (process,) = workers._processes
        process.kill()
        process.wait()
        (tmp_path / "x.0.err").write_text("a warning\nout of something\n\n")
        row = workers.measure(job, time.monotonic() + 60)
    finally:
        workers.close()
    assert row == {"error": "its process ended with -9, and said last: out of something"}


def result() -> dict:
    rows = []
    for model, rate in (("timm:convnext_tiny", 20.0), ("sequencer2d_s", 40.0)):
        for size in (512, 1024):
            job = {"model": model, "maps": "decoder", "head": "semantic_fpn", "mode": "inference", "size": size}
            images = rate * (512 / size) ** 2
            rows.append({**job, "form": "eager, CUDA graph", "requested": "best", "parameters": 32_000_000,
                         "images_per_s": images, "megapixels_per_s": rate * 512**2 / 1e6,
                         "peak_memory_mib": 900.0})  # fmt: skip
    rows += [{**rows[-1], "maps": "plain", "images_per_s": 11.0}, {**rows[-1], "requested": "eager"}]
    rows.append({**rows[0], "mode": "training", "images_per_s": None, "error": "out of memory"})
    return {"name": "dense-speed", "date": "2030-01-02", "device": {"kind": "cuda", "name": "A GPU", "count": 1},
            "versions": {"torch": "2.99"}, "commit": "0123456789abcdef", "command": "", "rows": rows}  # fmt: skip


def test_tables_and_figure_show_the_rows_that_have_a_rate(tmp_path: Path):
    document = "".join(f"<!-- table: {name} -->\n<!-- end: {name} -->\n" for name in shown.DENSE_TABLES)
    text = tables.render(document, {"dense-speed": result()})
    assert "| sequencer2d_s | 32.0 M | 40.0 | 10.0 | 900 | 900 |\n| convnext_tiny | 32.0 M | 20.0 |" in text
    assert "| inference | 1024 | sequencer2d_s, strides 7, 14, 14, 14 | Semantic FPN | 11.0 | 900 |" in text
    assert text.count("convnext_tiny") == 1
    assert "768²" not in text, "a size that nothing was measured at has no column"
    assert text.count("Not yet measured") == 1, "no training has a rate"
    plots.write(shown.draw(result()), tmp_path / "speed.svg")
    drawn = (tmp_path / "speed.svg").read_text()
    assert drawn.count("<!-- convnext_tiny -->") == drawn.count("<!-- sequencer2d_s -->") == 1
    assert "<!-- inference: megapixels/s -->" in drawn
    assert "<!-- training: megapixels/s -->" not in drawn
