"""Data sets in their official layouts are trained on for a few steps, and their mIoU is that of a count by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sequencer2d import recipes
from sequencer2d.cli.main import main
from sequencer2d.data.config import DataConfig
from sequencer2d.data.segmentation import open_masks
from sequencer2d.training.fields import with_overrides
from sequencer2d.training.loop import train
from tests.data.test_mask_layouts import SETS, SIZE
from tests.tasks.test_segmentation import MODEL
from tests.training.conftest import TINY, logged


@pytest.mark.parametrize("name", SETS)
def test_a_few_steps_by_the_recipe_of_ade20k(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    source, folder, write, _, _ = SETS[name]
    write(tmp_path / "data")
    root, run = tmp_path / "data" / folder, tmp_path / "run"
    changes = {
        **{path: value for path, value in TINY.items() if path.startswith(("run.", "model."))},
        "model.pretrained": False,
        "model.overrides": MODEL,
        "data.source": source,
        "data.root": str(root),
        "data.image_size": SIZE,
        "data.batch_size": 2,
        "data.workers": 0,
        "optimizer.lr": 1e-2,
        "precision": "fp32",
        "run.output": str(run),
        "run.epochs": 2,
        "run.eval_interval": 1,
    }
    train(with_overrides(recipes.get("ade20k_fpn_s"), changes))
    epochs = [entry for entry in logged(run) if entry["kind"] == "epoch"]
    assert epochs[-1]["train_loss"] < epochs[0]["train_loss"]
    assert main(["segment", "eval", str(run), "--json", "--device", "cpu"]) == 0
    result = json.loads(capsys.readouterr().out)
    by_hand = mean_iou(run, open_masks(DataConfig(source=source, root=str(root)), "val"), tmp_path)
    assert result["mean_iou"] == pytest.approx(by_hand, rel=1e-9)


def mean_iou(run: Path, source: object, folder: Path) -> float:
    """mIoU in percent, pixel by pixel, of the label PNGs that `predict` writes."""
    photos = folder / "photos"
    photos.mkdir()
    for number in range(len(source)):
        source[number][0].save(photos / f"{number}.png")
    assert (
        main(["segment", "predict", str(run), str(photos), "--labels", str(folder / "found"), "--device", "cpu"]) == 0
    )
    shared: dict[int, int] = {}
    either: dict[int, int] = {}
    for number in range(len(source)):
        wanted = np.asarray(source[number][1])
        found = np.asarray(Image.open(folder / "found" / f"{number}.png"))
        for want, got in zip(wanted.ravel().tolist(), found.ravel().tolist(), strict=True):
            if want == 255:
                continue
            shared[want] = shared.get(want, 0) + (want == got)
            for label in {want, got}:
                either[label] = either.get(label, 0) + 1
    return 100 * sum(shared.get(label, 0) / count for label, count in either.items()) / len(either)
