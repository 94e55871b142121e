"""GFNet's global filter against its formula, and what is resampled for another image size."""

import cmath
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sequencer2d import create_model
from sequencer2d.errors import ConfigError, InputError
from sequencer2d.peers.gfnet import GlobalFilter, resample_filter
from tests.peers.small import images, small_peer


def filter_by_pixels(x_HWC: Tensor, weight: Tensor) -> Tensor:
    """The filter with orthonormal discrete Fourier transforms written as sums over all pixels and frequencies.

    Of the spectrum of real numbers only the columns 0 … W//2 are filtered. Each of the others is the conjugate of one
    of them, so that those count twice, except the first and, where W is even, the last, which are their own partners.
    """
    height, width, channels = x_HWC.shape
    columns = width // 2 + 1
    filtered = {}
    for u in range(height):
        for v in range(columns):
            value = torch.zeros(channels, dtype=torch.complex128)
            for row in range(height):
                for column in range(width):
                    phase = cmath.exp(-2j * math.pi * (u * row / height + v * column / width))
                    value = value + x_HWC[row, column] * phase
            filtered[u, v] = value * torch.complex(weight[u, v, :, 0], weight[u, v, :, 1])
    rows = []
    for row in range(height):
        for column in range(width):
            value = torch.zeros(channels, dtype=torch.complex128)
            for (u, v), spectrum in filtered.items():
                alone = v == 0 or 2 * v == width
                phase = cmath.exp(2j * math.pi * (u * row / height + v * column / width))
                value = value + (1 if alone else 2) * phase * spectrum
            rows.append(value.real / (height * width))
    return torch.stack(rows).reshape(height, width, channels)


@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (2, 4), (1, 1)])
def test_filter_and_its_gradients_are_those_of_the_formula(grid: tuple[int, int]) -> None:
    mixer = GlobalFilter(2, grid).double()
    x = torch.randn(1, *grid, 2, dtype=torch.float64, requires_grad=True)
    out = mixer(x)
    expected = filter_by_pixels(x[0], mixer.complex_weight)[None]
    torch.testing.assert_close(out, expected)
    seed = torch.randn_like(out)
    inputs = (x, mixer.complex_weight)
    for found, right in zip(
        torch.autograd.grad((out * seed).sum(), inputs),
        torch.autograd.grad((expected * seed).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(found, right)


def test_sixteen_bits_are_filtered_in_float32() -> None:
    mixer = GlobalFilter(3, (4, 6))
    x = torch.randn(2, 4, 6, 3)
    half = x.bfloat16()
    found = mixer(half)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, mixer(half.float()).bfloat16())
    assert torch.equal(mixer.bfloat16()(half), GlobalFilter.forward(mixer.float(), half.float()).bfloat16())


def test_filters_are_resampled_bicubic_with_aligned_corners() -> None:
    weight = torch.randn(14, 8, 3, 2)
    larger = resample_filter(weight, (24, 24))
    assert larger.shape == (24, 13, 3, 2)
    for channel in range(3):
        for part in range(2):
            plane = F.interpolate(
                weight[None, None, :, :, channel, part], size=(24, 13), mode="bicubic", align_corners=True
            )
            torch.testing.assert_close(larger[:, :, channel, part], plane[0, 0])
    # With aligned corners the lowest frequency, the mean, keeps its coefficient.
    torch.testing.assert_close(larger[0, 0], weight[0, 0])


@pytest.mark.parametrize("name, grids", [("gfnet_s", [(8, 6)]), ("gfnet_h_s", [(16, 12), (8, 6), (4, 3)])])
def test_another_size_resamples_filters_and_positions(name: str, grids: list[tuple[int, int]]) -> None:
    model = small_peer(name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    old = (6, 4) if name == "gfnet_s" else (12, 8)
    with pytest.raises(InputError, match=r"64×48 pixels; this model takes 48×32 only: model\.set_input_size"):
        model(torch.randn(1, 3, 64, 48))
    model.set_input_size((64, 48))
    assert model(torch.randn(1, 3, 64, 48)).shape == (1, 5)
    assert model.pretrained_cfg["input_size"] == (3, 64, 48)
    channels = model.pos_embed.shape[-1]
    grid = before["pos_embed"].reshape(1, *old, channels).permute(0, 3, 1, 2)
    positions = F.interpolate(grid, size=grids[0], mode="bicubic", align_corners=False)
    torch.testing.assert_close(model.pos_embed, positions.permute(0, 2, 3, 1).reshape(1, -1, channels))
    for key, tensor in model.state_dict().items():
        if key.endswith("complex_weight"):
            stage = 0 if name == "gfnet_s" else int(key.split(".")[1])
            assert torch.equal(tensor, resample_filter(before[key], grids[stage]))
        elif key != "pos_embed":
            assert torch.equal(tensor, before[key])


def test_the_same_size_changes_nothing() -> None:
    model, x = small_peer("gfnet_h_s"), images("gfnet_h_s")
    expected = model(x)
    model.set_input_size((48, 32))
    torch.testing.assert_close(model(x), expected)


def test_a_checkpoint_is_resampled_for_the_size_that_is_asked_for(tmp_path) -> None:
    torch.save({"model": create_model("gfnet_ti").state_dict()}, tmp_path / "gfnet-ti.pth")
    found = create_model("gfnet_ti", checkpoint=str(tmp_path / "gfnet-ti.pth"), img_size=64)
    right = create_model("gfnet_ti", checkpoint=str(tmp_path / "gfnet-ti.pth"))
    right.set_input_size(64)
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(found.eval()(x), right.eval()(x))


def test_images_too_small_for_the_last_stage() -> None:
    with pytest.raises(ConfigError, match=r"img_size=16×64 is too small: this GFNet needs 32×32"):
        create_model("gfnet_h_s", img_size=(16, 64))


def test_one_residual_and_its_scale() -> None:
    model = small_peer("gfnet_h_s", layer_scale=0.25)
    block, x = model.blocks[0][0], torch.randn(2, 12, 8, 8)
    branch = block.mlp(block.norm2(block.filter(block.norm1(x))))
    torch.testing.assert_close(block(x), x + 0.25 * branch)
    assert "blocks.0.gamma" not in small_peer("gfnet_s").state_dict()
