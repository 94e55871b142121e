"""The CIFAR-10 benchmark trains, and its result file makes a table row."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import cifar10, tables

SMALL = (
    "data.batch_size=4",
    "data.workers=0",
    "precision=fp32",
    "run.device=cpu",
    "run.compile=false",
    "run.epochs=1",
    "schedule.cooldown_epochs=0",
    "schedule.warmup_epochs=0",
    "run.tensorboard=false",
    "model.overrides.depths=1,1",
    "model.overrides.dims=8,8",
    "model.overrides.hidden_dims=4,4",
    "model.overrides.patch_sizes=8,2",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(4):
                pixels = random.integers(0, 255, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{index}.png")
    return tmp_path


def test_a_run_becomes_a_result_and_a_row(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "cifar10.json"
    arguments = [str(folder), *SMALL, "--output", str(tmp_path / "run"), "--result", str(path)]
    assert cifar10.main(arguments) == 0
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["rows"][0]["top1_percent"] == result["log"][-1]["top1"]
    assert result["config"]["run"]["epochs"] == 1
    text = tables.render("<!-- table: cifar10 -->\n<!-- end: cifar10 -->", {"cifar10": result})
    assert "| cifar10 | sequencer2d_t | 0.0 M | 1 |" in text
