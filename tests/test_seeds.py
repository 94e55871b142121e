"""Seeds are what they were in earlier versions, so that their runs go on with the same draws."""

import random

import numpy as np
import torch

from sequencer2d.evaluation import corruptions
from sequencer2d.seeds import (
    image_seed,
    keep_random_state,
    mix,
    numpy_seeded,
    seed_image,
    seed_step,
    step_seed,
    stream_seed,
    torch_seeded,
)


def test_seeds_are_those_of_earlier_versions():
    assert image_seed(0, 0, 0) == 0x238275BC38FCBE91
    assert image_seed(3, 5, 7) == 0xC32C3C6123BC80C0
    assert mix(1) == 0x910A2DEC89025CC1
    assert stream_seed(4, 2, 9) >> 1 == 0x6D6204BC7ABD7EB5
    assert step_seed(1, 2, 3) == 0xFCC4822059D90B4
    assert corruptions._seed(1, 2, "fog", 3) == 0x8CA50A21


def draws():
    return random.random(), np.random.random(), torch.rand(1).item()


def test_images_and_steps_seed_all_three_generators():
    for seed in (seed_image, seed_step):
        seed(1, 2, 3)
        first = draws()
        assert len(set(zip(first, draws(), strict=True))) == 3
        seed(1, 2, 3)
        assert draws() == first
        for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4)):
            seed(*other)
            assert all(a != b for a, b in zip(draws(), first, strict=True))


def test_generators_go_on_after_a_block_as_they_were():
    seed_image(1, 2, 3)
    expected = draws()
    seed_image(1, 2, 3)
    with keep_random_state():
        seed_image(4, 5, 6)
        draws()
    with torch_seeded(9):
        assert torch.rand(1).item() == torch.rand(1, generator=torch.Generator().manual_seed(9)).item()
    with numpy_seeded(2**32 + 9):
        assert np.random.random() == np.random.RandomState(9).random()
    assert draws() == expected
