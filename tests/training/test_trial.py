"""The batch that fits into memory: split into the fewest parts, and not beyond single images."""

import dataclasses

import pytest

from sequencer2d.errors import DeviceError
from sequencer2d.training import trial
from sequencer2d.training.config import TrainConfig

MEMORY = "out of memory: set a smaller batch"


def config(batch: int, accumulation: int = 1) -> TrainConfig:
    plain = TrainConfig()
    return dataclasses.replace(
        plain,
        data=dataclasses.replace(plain.data, batch_size=batch),
        optimizer=dataclasses.replace(plain.optimizer, accumulation=accumulation),
    )


@pytest.mark.parametrize(("needed", "first", "tried"), [(1, 1, [1]), (4, 1, [1, 2, 4]), (8, 2, [2, 4, 8])])
def test_a_batch_is_split_until_it_fits(
    needed: int, first: int, tried: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def rate(config: TrainConfig) -> float:
        seen.append(config.optimizer.accumulation)
        if seen[-1] < needed:
            raise DeviceError(MEMORY)
        return 7.0

    monkeypatch.setattr(trial, "images_per_s", rate)
    fitting, images_per_s = trial.batch_that_fits(config(8, first))
    assert (seen, fitting.optimizer.accumulation, images_per_s) == (tried, needed, 7.0)


@pytest.mark.parametrize(("message", "tried"), [(MEMORY, [1, 2, 4, 8]), ("no such device", [1])])
def test_an_image_too_large_and_other_errors_are_told(
    message: str, tried: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def rate(config: TrainConfig) -> float:
        seen.append(config.optimizer.accumulation)
        raise DeviceError(message)

    monkeypatch.setattr(trial, "images_per_s", rate)
    with pytest.raises(DeviceError, match=message):
        trial.batch_that_fits(config(8))
    assert seen == tried
