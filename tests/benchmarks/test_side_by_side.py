"""Comparisons of backbones: they run side by side on tiny data, go on where they stopped, and give a row of each."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.bccd import BCCD, BCCD_COLUMNS
from benchmarks.camvid import CAMVID, CAMVID_COLUMNS
from benchmarks.side_by_side import Run, last_line, measured, parser, run, start
from benchmarks.tables import table
from tests.data.test_coco import data_set

FIELDS = [
    "model.overrides.depths=1,1", "model.overrides.dims=8,16", "model.overrides.hidden_dims=2,4",
    "model.overrides.patch_sizes=7,2", "data.batch_size=2", "data.workers=0", "precision=fp32", "run.device=cpu",
    "schedule.warmup_epochs=0.5", "run.log_interval=1",
]  # fmt: skip


def arguments(root: Path, *models: str) -> list[str]:
    return ["--data", str(root / "data"), "--output", str(root / "runs"), "--epochs", "2", "--seconds", "60",
            "--result", str(root / "result.json"), "--models", *models]  # fmt: skip


def test_a_row_for_each_model_that_left_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("faster_coco_eval")
    for split in ("train", "val", "test"):
        data_set(tmp_path / "data", images=(7, 9, 11), split=split)
    fields = ["data.image_size=40,60", "data.short_sides=40", *FIELDS]
    assert run(BCCD, [*arguments(tmp_path, "sequencer2d_n", "sequencer2d_none"), "--", *fields]) == 1
    assert "sequencer2d_none failed with 2" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "result.json").read_text())["rows"]
    assert (row["model"], row["epochs"], row["count"], row["class_names"]) == ("sequencer2d_n", 2, 3, ["disc", "cell"])
    assert row["images_per_second"] > 0
    assert "sequencer2d_n" in table(BCCD_COLUMNS, [row])


def test_camvid_gives_a_picture_and_further_seeds_add_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.arange(40 * 48, dtype=np.uint8).reshape(40, 48) % 3
    for split in ("train", "val", "test"):
        for kind, picture in (
            ("images", Image.fromarray(labels * 80).convert("RGB")),
            ("masks", Image.fromarray(labels)),
        ):
            (tmp_path / "data" / kind / split).mkdir(parents=True)
            for number in range(2):
                picture.save(tmp_path / "data" / kind / split / f"{number}.png")
    fields = ["data.image_size=32,48", *FIELDS]
    assert run(CAMVID, [*arguments(tmp_path, "sequencer2d_n"), "--", *fields]) == 0
    said = (tmp_path / "runs" / "sequencer2d_n.txt").stat().st_mtime_ns
    assert run(CAMVID, [*arguments(tmp_path, "sequencer2d_n"), "--seeds", "0", "1", "--", *fields]) == 0
    assert (tmp_path / "runs" / "sequencer2d_n.txt").stat().st_mtime_ns == said, "a finished run is not started again"
    rows = json.loads((tmp_path / "result.json").read_text())["rows"]
    assert [(row["model"], row["seed"], row["count"]) for row in rows] == [
        ("sequencer2d_n", 0, 2),
        ("sequencer2d_n", 1, 2),
    ]
    assert rows[0]["mean_iou"] != rows[1]["mean_iou"]
    assert table(CAMVID_COLUMNS, rows).count("sequencer2d_n") == 2
    with Image.open(tmp_path / "result.jpg") as picture:
        assert picture.size == (4 * 240, 2 * 180 + 2 * 18)
    (tmp_path / "runs/sequencer2d_n/best.safetensors").unlink()
    assert run(CAMVID, [*arguments(tmp_path, "sequencer2d_n"), "--", *fields]) == 1  # finished: nothing trains again


def test_what_a_process_says_is_kept(tmp_path: Path) -> None:
    options = parser(CAMVID).parse_args(["--data", str(tmp_path), "--output", str(tmp_path)])
    options.fields = ["data.root=/nowhere"]
    one = Run("sequencer2d_s", 0)
    process = start(CAMVID, one, options)
    assert process.wait(120) == 2
    assert process.args[0] == sys.executable
    assert "sequencer2d: " in last_line(one, tmp_path)
    assert measured(CAMVID, one, tmp_path) is None
