"""Augmentation on the device makes the batches that worker processes make."""

import pytest
import torch
from PIL import Image
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from sequencer2d.data.config import DataConfig
from sequencer2d.data.device_loader import build_device_loader
from sequencer2d.data.loader import build_loader
from sequencer2d.data.plans import pillow_may_resize_rows_first
from sequencer2d.errors import ConfigError, DataError
from tests.data.batches import assert_same_batches, read_batches, smooth_folder

DEVICE = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    """Two classes of 24 images of 20×24 pixels each."""
    return smooth_folder(tmp_path, 24, lambda index: (20, 24), ".png")


def configuration(folder, **changes):
    options = {"root": str(folder), "image_size": (28, 18), "batch_size": 16, "workers": 0}
    return DataConfig(**{**options, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"auto_augment": ""},
        {"auto_augment": "rand-m7-n3-mstd1.5-p0.9"},
        {"auto_augment": "rand-m5-tweights"},
        {"interpolation": "bilinear", "hflip": 1.0, "crop_scale": (0.5, 1.0)},
        {"image_size": (6, 15), "crop_scale": (0.8, 1.0)},
    ],
)
def test_batches_have_the_pixels_of_the_workers(folder, changes):
    config = configuration(folder, **changes)
    there = read_batches(build_loader(config, train=True, seed=3), epochs=6)
    assert_same_batches(read_batches(build_device_loader(config, device=DEVICE, seed=3), epochs=6), there)
    assert len(there) == 18


def test_the_rest_of_an_epoch_does_not_depend_on_what_was_read_before_or_on_workers(folder):
    whole = read_batches(build_device_loader(configuration(folder), device=DEVICE))
    loader = build_device_loader(configuration(folder, workers=1), device=DEVICE)
    loader.seek(0, 1)
    rest = read_batches(loader)
    assert_same_batches(rest, whole[1:])


def test_a_broken_image_gives_way_to_the_next_and_is_named(folder):
    (folder / "train/a/10.png").write_bytes(b"no image")
    config = configuration(folder, auto_augment="")
    loader = build_device_loader(config, device=DEVICE)
    assert list(loader.broken) == [str(folder / "train/a/10.png")]
    place = next(i for i in range(48) if loader.source.describe(i).endswith("a/10.png"))
    assert torch.equal(loader.images.pixels[place], loader.images.pixels[place + 1])
    with pytest.raises(DataError, match=r"max_broken=0.*10\.png"):
        build_device_loader(configuration(folder, max_broken=0), device=DEVICE)


def test_images_of_several_sizes_are_refused_with_their_names(folder):
    Image.new("RGB", (21, 24)).save(folder / "train/b/3.png")
    with pytest.raises(DataError, match=r"20×24.*3\.png has 21×24"):
        build_device_loader(configuration(folder), device=DEVICE)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"crop": "pad"}, "PadCrop"),
        ({"auto_augment": "augmix-m3"}, "AugMix"),
        ({"batch_policy": "rand"}, "batch_policy"),
        ({"interpolation": "lanczos"}, "data.interpolation"),
        ({"auto_augment": "rand-m9-t3a"}, "GaussianBlur"),
    ],
)
def test_steps_that_the_device_lacks_are_named(folder, changes, named):
    with pytest.raises(ConfigError, match=named):
        build_device_loader(configuration(folder, **changes), device=DEVICE)


class Transfers(TorchFunctionMode):
    """Counts the calls that make a tensor on the device `meta` of one on the CPU, or of Python's numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        copies = func in (torch.tensor, torch.as_tensor) or any(not tensor.is_meta for tensor in read)
        self.count += copies and any(tensor.is_meta for tensor in made)
        return result


def test_a_batch_takes_one_copy_to_the_device(folder):
    loader = build_device_loader(configuration(folder, image_size=(8, 10)), device=torch.device("meta"))
    plan = next(iter(loader._workers[0]))
    assert {step.kind for step in plan.steps} > {"affine"}
    assert plan.rows_first.start < plan.rows_first.stop or not pillow_may_resize_rows_first()
    with Transfers() as transfers:
        images, targets = loader._deliver(plan)
    assert images.shape == (16, 3, 8, 10)
    assert targets.shape == (16,)
    assert transfers.count == 1
    loader.close()


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning")
def test_the_processor_never_waits_for_the_device(folder):
    loader = build_device_loader(configuration(folder, workers=1), device=torch.device("cuda"))
    batches = iter(loader)
    next(batches)  # loads the kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert len(list(batches)) == len(loader) - 1
    finally:
        torch.cuda.set_sync_debug_mode("default")
        loader.close()
