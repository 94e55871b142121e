"""How image files become batches for the model, and what comes back in which order."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from sequencer2d.data.config import DataConfig
from sequencer2d.evaluation.predict import picture_of, predict
from sequencer2d.tasks import CLASSIFICATION
from tests.evaluation.subjects import PLAIN, MeanColor

COLORS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200)}
NAMES = tuple(COLORS)


class NativeSize:
    """Images keep their size, so that a batch may hold several."""

    def __init__(self, config: DataConfig) -> None:
        pass

    def __call__(self, image: Image.Image, target: Any) -> tuple[np.ndarray, Any]:
        return np.asarray(image), target


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Widths 8, 8, 12, broken, 8 and height 6; red, green, blue, broken, red."""
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for path, name, width in zip(paths, ("red", "green", "blue", "red", "red"), (8, 8, 12, 8, 8), strict=True):
        Image.new("RGB", (width, 6), COLORS[name]).save(path)
    paths[3].write_bytes(b"no image")
    return paths


def test_images_of_one_size_share_a_pass_and_all_keep_their_order(photos: list[Path]) -> None:
    asked: list[Any] = []

    def decode(outputs: Tensor, sizes: Sequence[tuple[int, int]], names: Sequence[str], top_k: int) -> list[Any]:
        asked.append((tuple(outputs.shape), list(sizes), top_k))
        return CLASSIFICATION.decode(outputs, sizes, names, top_k)

    samples = dataclasses.replace(CLASSIFICATION.samples, eval_transform=NativeSize)
    task = dataclasses.replace(CLASSIFICATION, samples=samples, decode=decode)
    found = list(predict(MeanColor(), map(str, photos), DataConfig(**PLAIN), task, class_names=NAMES, top_k=1))
    assert [prediction.path for prediction in found] == [str(path) for path in photos]
    assert [p.found and p.found.guesses[0].name for p in found] == ["red", "green", "blue", None, "red"]
    assert found[3].error
    assert found[3].to_dict() == {"path": str(photos[3]), "error": found[3].error}
    assert asked == [((2, 3), [(6, 8)] * 2, 1), ((1, 3), [(6, 12)], 1), ((1, 3), [(6, 8)], 1)]
    asked.clear()
    again = predict(MeanColor(), photos, DataConfig(**PLAIN), task, class_names=NAMES, top_k=1, batch_size=1)
    assert list(again) == found
    assert [shape for shape, _, _ in asked] == [(1, 3)] * 4


def test_images_are_read_when_their_turn_comes(photos: list[Path]) -> None:
    config = DataConfig(image_size=8, **PLAIN)
    predictions = predict(MeanColor(), photos, config, class_names=NAMES, batch_size=2)
    next(predictions)
    Image.new("RGB", (8, 6), COLORS["blue"]).save(photos[4])
    assert [p.found.guesses[0].name for p in predictions if p.found] == ["green", "blue", "blue"]


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_the_model_runs_in_the_dtype_asked_for(photos: list[Path], dtype: torch.dtype | None) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 3), nn.Dropout(0.5))
    seen = []
    model[1].register_forward_hook(lambda *arguments: seen.append((arguments[-1].dtype, torch.is_grad_enabled())))
    config = DataConfig(image_size=8, **PLAIN)
    found = list(predict(model.train(), photos, config, class_names=NAMES, amp_dtype=dtype))
    assert seen == [(dtype or torch.float32, False)]
    assert sum(guess.probability for guess in found[0].found.guesses) == pytest.approx(1, abs=1e-6)


def test_the_picture_is_of_the_file_as_people_see_it(tmp_path: Path) -> None:
    image = Image.new("RGB", (300, 200), COLORS["red"])
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "a.jpg", exif=exif)
    config = DataConfig(image_size=8, **PLAIN)
    (prediction,) = predict(MeanColor(), [tmp_path / "a.jpg"], config, class_names=NAMES)
    picture = picture_of(prediction, config)
    assert (picture.width, picture.height > 300) == (200, True)
    stored = picture_of(prediction, dataclasses.replace(config, orientation="stored"))
    assert (stored.width, stored.height > 200) == (300, True)
