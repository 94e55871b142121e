"""The input beside the model's step: which images are timed, in which loader, and the step's rate by a clock."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from sequencer2d.data.cache import CachedSource
from sequencer2d.data.photos import PhotoSource, RepeatedSource
from sequencer2d.errors import ConfigError
from sequencer2d.training import feeding
from sequencer2d.training.config import TrainConfig
from tests.data.images import make_folder

CPU = torch.device("cpu")


def config(**data: Any) -> TrainConfig:
    plain = TrainConfig()
    return dataclasses.replace(plain, data=dataclasses.replace(plain.data, image_size=8, workers=0, **data))


@pytest.mark.parametrize(("batch", "kind", "count"), [(4, "FolderSource", 4), (5, "RepeatedSource", 5)])
def test_few_images_come_again_to_fill_a_batch(tmp_path: Path, batch: int, kind: str, count: int) -> None:
    make_folder(tmp_path, {"train": {"a": 2, "b": 2}})
    source = feeding.open_images(config(root=str(tmp_path), batch_size=batch), (8, 8))
    assert (type(source).__name__, len(source)) == (kind, count)
    cached = feeding.open_images(config(root=str(tmp_path), batch_size=batch, cache=True), (8, 8))
    assert isinstance(cached, CachedSource)


def test_without_data_there_are_photos_of_the_size_asked_for() -> None:
    source = feeding.open_images(config(batch_size=2), (12, 9))
    assert isinstance(source, PhotoSource | RepeatedSource)
    assert source[0][0].size == (12, 9)
    with pytest.raises(ConfigError, match=r"task=segmentation needs targets that photos lack; set data\.root"):
        feeding.open_images(dataclasses.replace(config(batch_size=2), task="segmentation"), (12, 9))


def test_the_loader_is_one_of_training() -> None:
    source = feeding.open_images(config(batch_size=2), (12, 9))
    loader = feeding._loader(config(batch_size=2), CPU, source)
    first, second = ([targets.tolist() for _, targets in loader] for _ in range(2))
    loader.close()
    assert loader.train
    assert len(first) == len(source) // 2
    assert first != sorted(first) or second != sorted(second)


def test_a_steps_rate_leaves_the_first_steps_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five steps warm up; each further one takes 0.25 s, until a second is over: 2 images in 0.25 s are 8 a second."""
    numbers: list[int] = []

    class Clock:
        now = 0.0

        @staticmethod
        def perf_counter() -> float:
            return Clock.now

    def step(images: torch.Tensor, targets: torch.Tensor, number: int, rate: float) -> None:
        numbers.append(number)
        Clock.now += 0.25 if len(numbers) > 5 else 3.0

    monkeypatch.setattr(feeding, "time", Clock)
    monkeypatch.setattr(feeding, "build_model", lambda *_: torch.nn.Identity())
    monkeypatch.setattr(feeding, "build_step", lambda *_: step)
    run = config(batch_size=2)
    loader = feeding._loader(run, CPU, feeding.open_images(run, (12, 9)))
    row = feeding._step_row(run, loader, CPU, 1.0)
    assert row == {"part": "training step", "where": "cpu", "ms_per_image": 125.0, "images_per_s": 8.0}
    assert numbers == list(itertools.islice(itertools.count(), 5 + 4))
