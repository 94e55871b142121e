import dataclasses

import numpy as np
import pytest
import torch
from timm.data import FastCollateMixup
from timm.data.random_erasing import RandomErasing
from torchvision.transforms.functional import normalize as torchvision_normalize

from sequencer2d.data.batches import _MIXUP_STREAM, BatchTransform, _stream, augment, erase, mixup
from sequencer2d.data.config import DataConfig
from sequencer2d.data.normalization import normalize
from sequencer2d.errors import ConfigError

PLAIN = DataConfig(erasing=0.0, mixup=0.0, cutmix=0.0)


def batch(size: int = 16, side: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (size, 3, side, side), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 5, (size,), generator=generator)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_normalize_is_torchvisions(dtype: torch.dtype) -> None:
    images, _ = batch()
    expected = torchvision_normalize(images / 255, list(PLAIN.mean), list(PLAIN.std))
    found = normalize(images, PLAIN.mean, PLAIN.std, dtype=dtype)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=4 * 2.7 * torch.finfo(dtype).eps)
    assert torch.equal(normalize(images, list(PLAIN.mean), list(PLAIN.std), dtype=dtype), found), "lists do as well"


def test_plain_batches_are_only_normalized() -> None:
    images, targets = batch()
    found, labels = BatchTransform(PLAIN, 5)(images, targets, step=3)
    assert torch.equal(found, normalize(images, PLAIN.mean, PLAIN.std))
    assert torch.equal(labels, targets)


def test_randomness_is_a_function_of_seed_step_and_rank() -> None:
    images, targets = batch()

    def draw(step: int = 0, **options: int) -> torch.Tensor:
        return BatchTransform(DataConfig(), 5, **options)(images, targets, step=step)[0]

    first = draw(7, seed=1, rank=2)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    np.random.rand(3)
    torch.rand(3)
    assert torch.equal(first, draw(7, seed=1, rank=2))
    for other in (draw(8, seed=1, rank=2), draw(7, seed=2, rank=2), draw(7, seed=1, rank=1)):
        assert not torch.equal(first, other)
    np.random.seed(0)
    torch.manual_seed(0)
    before = np.random.rand(), torch.rand(1)
    np.random.seed(0)
    torch.manual_seed(0)
    draw()
    assert before == (np.random.rand(), torch.rand(1)), "the global generators must not notice"


@pytest.mark.parametrize("mode", ["pixel", "color", "constant"])
def test_erasing_hits_its_share_with_one_rectangle(mode: str) -> None:
    images = torch.full((2000, 3, 16, 16), 9.0)
    found = erase(images, 0.25, mode=mode, seed=4)
    erased = (found != 9).all(1)
    assert erased.flatten(1).any(1).float().mean().item() == pytest.approx(0.25, abs=0.03)
    hit = erased[erased.flatten(1).any(1)]
    heights, widths = hit.any(2).sum(1), hit.any(1).sum(1)
    assert torch.equal(hit.sum((1, 2)), heights * widths), "a rectangle"
    share = (heights * widths) / 256
    assert share.min() > 0.005
    assert share.max() < 0.36
    assert share.mean().item() == pytest.approx((0.02 + 1 / 3) / 2, abs=0.02)
    values = found.permute(0, 2, 3, 1)[erased]
    if mode == "constant":
        assert not values.any()
    else:
        assert values.mean().item() == pytest.approx(0, abs=0.1)
        assert values.std().item() == pytest.approx(1, abs=0.1)
    of_one = found[int(torch.nonzero(erased.flatten(1).any(1))[0])]
    different = len(of_one[0][of_one[0] != 9].unique())
    assert different == 1 if mode != "pixel" else different > 1


def test_mixed_targets_are_probabilities_that_match_the_pixels() -> None:
    config = dataclasses.replace(PLAIN, mixup=0.8, cutmix=1.0, mean=(0, 0, 0), std=(1, 1, 1))
    images = torch.zeros(4, 3, 20, 20, dtype=torch.uint8)
    images[:2] = 255
    targets = torch.tensor([1, 1, 0, 0])
    kinds = set()
    for step in range(20):
        mixed, labels = BatchTransform(config, 3)(images, targets, step=step)
        torch.testing.assert_close(labels.sum(1), torch.ones(4))
        # Mixed bytes are whole numbers.
        torch.testing.assert_close(labels[:, 1], mixed.mean((1, 2, 3)), atol=0.5 / 255 + 1e-6, rtol=0)
        kinds.add("cutmix" if len(mixed[0].unique()) == 2 else "mixup")
    assert kinds == {"cutmix", "mixup"}


def shares(images: torch.Tensor, clean: torch.Tensor) -> tuple[float, float, float]:
    """Share of the images with erased pixels, share of the pixels, standard deviation of the erased ones."""
    erased = (images != clean).all(1)
    return (
        erased.flatten(1).any(1).float().mean().item(),
        erased.float().mean().item(),
        images.permute(0, 2, 3, 1)[erased].std().item(),
    )


def timms_batches(images: torch.Tensor, targets: torch.Tensor, erasing: float) -> torch.Tensor:
    """What timm's loader makes of a batch: mixed as bytes in the collate function, then normalized, then erased."""
    np.random.seed(3)
    collate = FastCollateMixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.0, num_classes=5)
    mixed, _ = collate([(image.numpy(), int(target)) for image, target in zip(images, targets, strict=True)])
    normalized = torchvision_normalize(mixed / 255, list(PLAIN.mean), list(PLAIN.std))
    return RandomErasing(erasing, mode="pixel", device="cpu")(normalized)


def test_erased_pixels_are_neither_mixed_nor_spread() -> None:
    """By the authors' code 25.5 ± 0.4 % of the images have erased pixels, 4.5 % of the pixels, whose std is 1."""
    images, targets = batch(6000, side=32)
    erasing, clean = (
        BatchTransform(dataclasses.replace(DataConfig(), erasing=rate), 5)(images, targets, step=1)[0]
        for rate in (0.25, 0.0)
    )
    ours = shares(erasing, clean)
    timms = shares(timms_batches(images, targets, 0.25), timms_batches(images, targets, 0.0))
    for found in (ours, timms):
        assert found[0] == pytest.approx(0.255, abs=0.02)
        assert found[1] == pytest.approx(0.045, abs=0.004)
        assert found[2] == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("step", range(4))
def test_batches_are_mixed_as_timms_collate_function_mixes_bytes(step: int) -> None:
    config = dataclasses.replace(PLAIN, mixup=0.8, cutmix=1.0)
    images, targets = batch(12)
    found, labels = BatchTransform(config, 5, seed=4)(images, targets, step=step)
    order = [*range(6), *range(11, 5, -1)]  # timm pairs the first with the last, we the first with the seventh
    np.random.seed(_stream(_stream(4, _MIXUP_STREAM, step), 0) % 2**32)
    collate = FastCollateMixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.0, num_classes=5)
    mixed, expected = collate([(images[index].numpy(), int(targets[index])) for index in order])
    assert torch.equal(found[order], normalize(mixed, config.mean, config.std))
    torch.testing.assert_close(labels[order], expected)


def mix_in(processes: int, size: int, group: int, step: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and targets of one global batch, mixed by that many processes, in the order of the global batch."""
    config = dataclasses.replace(PLAIN, mixup=0.8, cutmix=1.0, mixup_group=group)
    images, _ = batch(size, side=8)
    targets = torch.arange(size)
    mixed, labels = torch.empty(size, 3, 8, 8), torch.empty(size, size)
    for rank in range(processes):
        mine = slice(rank, None, processes)
        mix = BatchTransform(config, size, rank=rank, world_size=processes)
        mixed[mine], labels[mine] = mix(images[mine], targets[mine], step=step)
    return mixed, labels


@pytest.mark.parametrize(
    "size, group, number", [(2048, 256, 8), (1536, 256, 6), (96, 32, 3), (64, 256, 1), (48, 20, 3)]
)
def test_mixing_is_the_same_on_one_process_and_on_many(size: int, group: int, number: int) -> None:
    alone = mix_in(1, size, group)
    coefficients = alone[1].diagonal()
    assert len(coefficients.unique()) == number, "one draw for each group"
    assert max(coefficients.unique(return_counts=True)[1]) <= group
    for processes in (2, 3, 8, 24):
        if size % (2 * processes) == 0:
            together = mix_in(processes, size, group)
            assert torch.equal(alone[0], together[0])
            assert torch.equal(alone[1], together[1])


def test_eight_processes_of_256_images_draw_one_coefficient_each_as_the_papers() -> None:
    _, labels = mix_in(8, 2048, 256)
    assert [len(labels.diagonal()[rank::8].unique()) for rank in range(8)] == [1] * 8


def test_mixing_needs_pairs_and_may_be_off() -> None:
    assert mixup(PLAIN, 5) is None
    assert mixup(dataclasses.replace(DataConfig(), mixup_prob=0.0), 5) is None
    images, targets = batch(15)
    with pytest.raises(ConfigError, match="even"):
        BatchTransform(DataConfig(), 5)(images, targets, step=0)


@pytest.mark.parametrize("policy", ["rand", "trivial"])
def test_policy_is_drawn_from_its_seed_and_differs_between_parts(policy: str) -> None:
    image = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    images = image.expand(16, -1, -1, -1).contiguous()
    before = torch.get_rng_state()
    first = augment(images, policy, draws=8, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.dtype == torch.uint8
    assert first.shape == images.shape
    assert torch.equal(first, augment(images, policy, draws=8, seed=3))
    assert not torch.equal(first, augment(images, policy, draws=8, seed=4))
    # Two images a part: those of one part are treated alike, not all parts are.
    assert torch.equal(first[0::2], first[1::2])
    assert len({part.numpy().tobytes() for part in first[0::2]}) > 1
