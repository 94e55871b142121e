"""`sequencer2d compare`: numbers, curves and a paired test of runs that were really trained."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sequencer2d.cli.main import main
from tests.cli.conftest import Outcome
from tests.data.test_parts import make_photos

MODEL = 'model.overrides={"depths": (1,), "dims": (16,), "hidden_dims": (4,), "patch_sizes": (4,)}'
QUICK = ("data.workers=0", "data.batch_size=10", "run.tensorboard=false", "run.progress=none", "run.cpu_threads=1")


def train(folder: Path, photos: Path, *fields: str) -> Path:
    argv = ["finetune", str(photos), "--from", "scratch", "--output", str(folder), *QUICK, *fields]
    assert main([*argv, "data.image_size=16", MODEL]) == 0
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("compare")
    photos = make_photos(folder / "photos", {"red": 25, "green": 25}, (20, 16))
    return {
        "long": train(folder / "long", photos, "run.epochs=4"),
        "short": train(folder / "short", photos, "run.epochs=1", "optimizer.lr=1e-4"),
        "other": train(folder / "other", photos, "run.epochs=1", "data.val_seed=5"),
    }


def test_runs_are_compared_on_the_same_images(
    command: Callable[..., Outcome], runs: dict[str, Path], tmp_path: Path
) -> None:
    told = ("compare", runs["long"], runs["short"], runs["other"])
    said = json.loads(command(*told, "--json").out)
    rows = {Path(row["run"]).name: row for row in said["runs"]}
    assert {name: row["epochs"] for name, row in rows.items()} == {"long": 4, "short": 1, "other": 1}
    tested, refused = said["tests"]
    assert tested["images"] == 10
    right = [round(rows[name]["best_top1"] * 10 / 100) for name in ("short", "long")]
    assert tested["right"] == right, "the same numbers as when the runs were trained"
    assert tested["only_second"] - tested["only_first"] == right[0] - right[1]
    assert refused["reason"] == "they were validated on different images"
    summary = json.loads((runs["long"] / "summary.json").read_text())
    log = [json.loads(line) for line in (runs["long"] / "log.jsonl").read_text().splitlines()]
    last = [entry for entry in log if entry["kind"] == "epoch"][-1]
    assert rows["long"] == {
        "run": str(runs["long"]), "model": "sequencer2d_n_p4", "parameters": summary["parameters"],
        "epochs": 4, "of": 4,
        "best_top1": summary["best"]["top1"], "best_epoch": summary["best"]["epoch"], "final_top1": last["top1"],
        "train_loss": last["train_loss"], "val_loss": last["val_loss"], "minutes": round(last["time_s"] / 60, 1),
        "device": summary["device"],
    }  # fmt: skip
    outcome = command(*told, "--picture", tmp_path / "curves.png")
    (row,) = [line for line in outcome.out.splitlines() if line.startswith(str(runs["long"]))]
    assert row.split()[1:] == [
        "sequencer2d_n_p4", f"{summary['parameters'] / 1e6:.2f}", "M", "4", "of", "4",
        f"{summary['best']['top1']:.2f}", "%", f"{last['top1']:.2f}", "%", f"{last['val_loss']:.4f}",
        f"{round(last['time_s'] / 60, 1):g}",
    ]  # fmt: skip
    assert "not tested: they were validated on different images" in outcome.out
    with Image.open(tmp_path / "curves.png") as picture:
        colors = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    for color in ((31, 119, 180), (255, 127, 14), (44, 160, 44)):
        assert (np.abs(colors - color).max(axis=1) < 8).sum() > 30, "a line for each run"


def test_without_a_test_nothing_is_classified(command: Callable[..., Outcome], runs: dict[str, Path]) -> None:
    outcome = command("compare", runs["long"], runs["short"], "--no-test")
    assert "McNemar" not in outcome.out
    assert "classifying" not in outcome.err


def test_mistakes_are_answered_in_one_line(mistake: Callable[..., str], runs: dict[str, Path], tmp_path: Path) -> None:
    assert "name at least two different runs" in mistake("compare", runs["long"])
    assert "name at least two different runs" in mistake("compare", runs["long"], runs["long"])
    assert "config.json" in mistake("compare", runs["long"], tmp_path)
