"""A policy on the device makes the batches that worker processes make, of photos of any size."""

import numpy as np
import pytest
import torch
from PIL import Image

from sequencer2d.data.config import DataConfig
from sequencer2d.data.device_loader import build_device_loader
from sequencer2d.data.loader import build_loader
from sequencer2d.errors import ConfigError
from sequencer2d.training.loop import train
from tests.data.batches import assert_same_batches, read_batches, smooth_folder
from tests.training.conftest import configuration, logged

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    """Two classes of 20 JPEG files, each of another size."""
    return smooth_folder(tmp_path, 20, lambda index: (30 + index, 24 + 2 * index), ".jpg")


def options(folder, **changes):
    return DataConfig(**{"root": str(folder), "image_size": (28, 18), "batch_size": 10, "workers": 0, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"resampler": "torch"},
        {"auto_augment": "rand-m7-n3-mstd1.5-p0.9"},
        {"auto_augment": "rand-m5-tweights"},
        {"crop": "pad", "hflip": 0.0},
        {"interpolation": "bicubic", "workers": 2},
    ],
)
def test_batches_have_the_pixels_of_the_workers(folder, changes):
    there = read_batches(build_loader(options(folder, **changes), train=True, seed=3), epochs=5)
    config = options(folder, **changes, augment_on="workers+device")
    assert_same_batches(read_batches(build_device_loader(config, device=CPU, seed=3), epochs=5), there)
    assert len(there) == 20


def test_each_operation_of_the_policy_is_drawn_as_often_as_by_timm(folder):
    """The steps of a batch against those of timm's own policy, over 2,000 draws: shares within 4 standard errors."""
    from sequencer2d.data.policy_loader import DrawnPolicy
    from sequencer2d.data.transforms import train_transform

    timms = train_transform(options(folder)).steps[-1]
    seen: dict[str, int] = {}
    for op in timms.ops:
        op.aug_fn = lambda image, *_, name=op.name, **__: seen.update({name: seen.get(name, 0) + 1}) or image
    torch.manual_seed(0)
    np.random.seed(0)
    for _ in range(2000):
        timms(Image.new("RGB", (4, 4)))
    draw = DrawnPolicy(options(folder)).draw
    np.random.seed(1)
    drawn = [step for _ in range(2000) for step in draw()]
    names = set(seen)
    assert {step.name for step in drawn} == names
    for name in names:
        share = seen[name] / sum(seen.values())
        error = (2 * share * (1 - share) / len(drawn)) ** 0.5
        assert sum(step.name == name for step in drawn) / len(drawn) == pytest.approx(share, abs=4 * error)
    assert len(drawn) == pytest.approx(sum(seen.values()), rel=0.05)


def test_the_rest_of_an_epoch_does_not_depend_on_what_was_read_before(folder):
    config = options(folder, augment_on="workers+device")
    whole = read_batches(build_device_loader(config, device=CPU))
    loader = build_device_loader(config, device=CPU)
    loader.seek(0, 2)
    assert_same_batches(read_batches(loader), whole[2:])


def test_a_broken_image_gives_way_to_the_next(folder):
    (folder / "train/a/10.jpg").write_bytes(b"no image")
    there = read_batches(build_loader(options(folder), train=True))
    loader = build_device_loader(options(folder, augment_on="workers+device"), device=CPU)
    assert_same_batches(read_batches(loader), there)
    assert list(loader.broken) == [str(folder / "train/a/10.jpg")]


@pytest.mark.gpu
def test_a_gpu_makes_the_pixels_of_the_workers(folder):
    there = read_batches(build_loader(options(folder), train=True), epochs=5)
    loader = build_device_loader(options(folder, augment_on="workers+device"), device=torch.device("cuda"))
    here = [(images.cpu(), targets.cpu()) for images, targets in read_batches(loader, epochs=5)]
    assert_same_batches(here, there)


@pytest.mark.parametrize(
    "changes",
    [
        {"auto_augment": ""},
        {"auto_augment": "augmix-m5"},
        {"auto_augment": "", "batch_policy": "rand"},
        {"auto_augment": "rand-m9-t3a"},
        {"interpolation": "lanczos"},
    ],
)
def test_what_the_device_cannot_do_is_refused(folder, changes):
    with pytest.raises(ConfigError, match=r"augment_on=workers$"):
        build_device_loader(options(folder, **changes, augment_on="workers+device"), device=CPU)


def test_a_run_has_the_losses_of_a_run_whose_workers_augment(tmp_path):
    for place in ("workers", "workers+device"):
        train(
            configuration(
                tmp_path / place,
                {"data.augment_on": place, "data.auto_augment": "rand-m9-mstd0.5-inc1", "run.epochs": 1},
            )
        )
    assert logged(tmp_path / "workers") == logged(tmp_path / "workers+device")
