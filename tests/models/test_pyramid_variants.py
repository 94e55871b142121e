"""Every registered variant under a decoder: exact sizes, memory formats, gradients, checkpointing, fused mixers."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sequencer2d import create_model, fuse
from sequencer2d.models.variants import VARIANTS

SHARE = 12
"""Of the widths: every relation between a variant's widths stays as it is."""


def small(name: str, **options: Any) -> Any:
    variant = VARIANTS[name]
    torch.manual_seed(0)
    return create_model(
        name, features_only=True, depths=(1, 1, 1, 1), dims=tuple(width // SHARE for width in variant.dims),
        hidden_dims=tuple(width // SHARE for width in variant.hidden_dims), **options,
    )  # fmt: skip


def gradients(model: Any, images: Tensor) -> list[Tensor]:
    torch.manual_seed(1)
    loss = sum(each.square().mean() for each in model(images))
    return list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_a_pyramid(name: str) -> None:
    model = small(name, pyramid=(4, 8, 16, 32)).eval()
    with torch.no_grad():
        for height, width in ((1, 1), (7, 5), (33, 100)):
            images = torch.randn(1, 3, height, width)
            maps = model(images)
            for found, channels, stride in zip(
                maps, model.feature_info.channels(), model.feature_info.reduction(), strict=True
            ):
                assert found.shape == (1, channels, math.ceil(height / stride), math.ceil(width / stride))
            for found, expected in zip(model(images.to(memory_format=torch.channels_last)), maps, strict=True):
                torch.testing.assert_close(found, expected)
        fuse(model)
        for found, expected in zip(model(images), maps, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", VARIANTS)
def test_checkpointing_gives_a_variant_the_same_gradients(name: str) -> None:
    model, images = small(name, pyramid=(4, 8, 16, 32)).train(), torch.randn(2, 3, 33, 50)
    plain = gradients(model, images)
    model.set_grad_checkpointing()
    for found, expected in zip(gradients(model, images), plain, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels(channels: int) -> None:
    model = small("sequencer2d_n", pyramid=(8, 16), in_chans=channels)
    assert [tuple(each.shape[2:]) for each in model(torch.randn(1, channels, 20, 40))] == [(3, 5), (2, 3)]
