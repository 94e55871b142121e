"""The comparison on BCCD: runs side by side on tiny data, goes on where it was stopped, and a row of each."""

import json
import sys

import pytest

from benchmarks import bccd
from benchmarks.tables import table
from tests.data.test_coco import data_set

FIELDS = [
    "model.overrides.depths=1,1", "model.overrides.dims=8,16", "model.overrides.hidden_dims=2,4",
    "model.overrides.patch_sizes=7,2", "data.image_size=40,60", "data.short_sides=40", "data.batch_size=2",
    "data.workers=0", "precision=fp32", "run.device=cpu", "schedule.warmup_epochs=0.5", "run.log_interval=1",
]  # fmt: skip


def test_a_row_for_each_model_that_left_weights(tmp_path, capsys):
    pytest.importorskip("faster_coco_eval")
    for split in ("train", "val", "test"):
        data_set(tmp_path / "data", images=(7, 9, 11), split=split)
    models = ["sequencer2d_n", "sequencer2d_none"]
    arguments = [
        "--data",
        str(tmp_path / "data"),
        "--output",
        str(tmp_path / "runs"),
        "--epochs",
        "2",
        "--models",
        *models,
    ]
    result = tmp_path / "bccd.json"
    assert bccd.main([*arguments, "--result", str(result), "--seconds", "60", *FIELDS]) == 1
    assert "sequencer2d_none failed with 2" in capsys.readouterr().out
    (row,) = json.loads(result.read_text())["rows"]
    assert (row["model"], row["epochs"], row["count"], row["class_names"]) == ("sequencer2d_n", 2, 3, ["disc", "cell"])
    assert row["images_per_second"] > 0
    assert "sequencer2d_n" in table(bccd.BCCD_COLUMNS, [row])


def test_what_a_process_says_is_kept(tmp_path):
    arguments = bccd._parser().parse_args(["--data", str(tmp_path), "--output", str(tmp_path)])
    process = bccd.start("sequencer2d_s", arguments, ["data.root=/nowhere"])
    assert process.wait(120) == 2
    assert process.args[0] == sys.executable
    assert "sequencer2d: " in bccd.last_line("sequencer2d_s", tmp_path)
    assert bccd.measured("sequencer2d_s", arguments) is None
