import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sequencer2d.models import create_model, save_weights
from tests.cli.conftest import Outcome

pytest.importorskip("matplotlib")

COLORS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes with 4, 3 and 2 images in photos/val."""
    for number, (name, color) in enumerate(COLORS.items()):
        folder = tmp_path / "photos" / "val" / name
        folder.mkdir(parents=True)
        for index in range(4 - number):
            Image.new("RGB", (40, 30), tuple(np.add(color, index) % 256)).save(folder / f"{index}.png")
    return tmp_path / "photos"


def test_a_report_agrees_with_the_numbers_that_eval_prints(
    command: Callable[..., Outcome], tmp_path: Path, photos: Path
) -> None:
    model = create_model("sequencer2d_n", num_classes=3, depths=(1, 1, 1, 1), implementation="reference")
    model.pretrained_cfg |= {"label_names": list(COLORS)}
    model.head.fc.bias.data[1] = 5.0  # says "green" to everything
    save_weights(model, tmp_path / "m.safetensors")
    report = tmp_path / "report"
    shown = command(
        "eval", tmp_path / "m.safetensors", "--data", photos, "--report", report, "--json", "data.workers=0"
    )
    result = json.loads(shown.out)
    assert "pairs" not in result
    assert result["data"] == {"source": str(photos), "root": "", "split": "val"}
    assert rows(report / "confusion.csv") == [
        {"truth": "blue", "predicted": "green", "images": "4"},
        {"truth": "green", "predicted": "green", "images": "3"},
        {"truth": "red", "predicted": "green", "images": "2"},
    ]
    green = rows(report / "classes.csv")[1]
    assert green == {
        "class": "green", "images": "3", "right": "3", "accuracy_percent": "100.0", "predicted": "9",
        "precision_percent": "33.33",
    }  # fmt: skip
    assert result["top1"] == pytest.approx(100 * 3 / 9)
    wrong = rows(report / "mistakes.csv")
    assert {(row["truth"], row["predicted"]) for row in wrong} == {("blue", "green"), ("red", "green")}
    confidences = [float(row["probability"]) for row in wrong]
    assert len(wrong) == 6
    assert confidences == sorted(confidences, reverse=True)
    for name in ("confusion.png", "mistakes.png"):
        with Image.open(report / name) as picture:
            assert len(picture.convert("L").getcolors()) > 10, f"{name} is blank"
        assert str(report / name) in shown.err


def test_images_that_are_no_files_have_no_picture_of_mistakes(
    command: Callable[..., Outcome], tmp_path: Path, tiny: Path
) -> None:
    shown = command("eval", tiny, "--data", "digits", "--report", tmp_path / "report", "data.workers=0")
    assert "mistakes are shown for images that are files" in shown.err
    assert not (tmp_path / "report" / "mistakes.csv").exists()
    assert sum(int(row["images"]) for row in rows(tmp_path / "report" / "confusion.csv")) == 355
