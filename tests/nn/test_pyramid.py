"""A level of a feature pyramid: its layers, its sizes and what it cuts off."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sequencer2d.nn import pyramid
from sequencer2d.nn.pyramid import MaxPool, PyramidLevel, crop_map


def test_a_projection_is_that_of_vitdet() -> None:
    """Convolutions 1×1 and 3×3 without bias, each followed by a norm over the channels."""
    level = PyramidLevel(4, 0, dim=6).eval()
    shapes = {name: tuple(parameter.shape) for name, parameter in level.proj.named_parameters()}
    assert shapes == {
        "0.weight": (6, 4, 1, 1), "1.weight": (6,), "1.bias": (6,),
        "2.weight": (6, 6, 3, 3), "3.weight": (6,), "3.bias": (6,),
    }  # fmt: skip

    def norm(x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], eps=1e-6).permute(0, 3, 1, 2)

    x = torch.randn(2, 4, 5, 7)
    narrow, wide = level.proj[0].weight, level.proj[2].weight
    expected = norm(F.conv2d(norm(F.conv2d(norm(x), narrow)), wide, padding=1))
    torch.testing.assert_close(level(x, 5, 7), expected)
    assert level(x, 5, 7).is_contiguous()


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_finer_maps_come_from_transposed_convolutions_by_2(steps: int) -> None:
    level = PyramidLevel(4, steps, normed=True)
    kinds = [type(layer).__name__ for layer in level.resize]
    assert kinds == ["ConvTranspose2d", *["LayerNorm2d", "GELU", "ConvTranspose2d"] * (steps - 1)]
    assert isinstance(level.norm, nn.Identity)
    assert isinstance(level.proj, nn.Identity)
    side = 3 * 2**steps
    assert level.resize(torch.randn(1, 4, 3, 3)).shape == (1, 4, side, side)
    assert level(torch.randn(1, 4, 3, 3), side - 1, side - 2).shape == (1, 4, side - 1, side - 2)


def test_coarser_maps_are_maxima_of_patches_cut_off_ones_included() -> None:
    x = -torch.arange(1.0, 16.0).reshape(1, 1, 3, 5)
    assert MaxPool(2)(x)[0, 0].tolist() == [[-1, -3, -5], [-11, -13, -15]]
    assert PyramidLevel(1, -2, normed=True).resize.size == 4
    assert repr(MaxPool(4)) == "MaxPool(size=4)"


def test_a_map_is_cropped_at_the_bottom_and_the_right(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.arange(12.0).reshape(1, 1, 3, 4)
    assert crop_map(x, 2, 3)[0, 0].tolist() == [[0, 1, 2], [4, 5, 6]]
    monkeypatch.setattr(pyramid, "is_recorded", lambda: True)
    assert crop_map(x, 2, 3)[0, 0].tolist() == [[0, 1, 2], [4, 5, 6]]
