import pytest
import torch
from torch.nn import functional as F

from sequencer2d.errors import InputError
from sequencer2d.nn.embed import Downsample, PatchEmbed, PositionEmbedding, pad_to_multiple, resample_grid


@pytest.mark.parametrize("height, width", [(14, 28), (15, 27), (1, 29), (15, 28), (28, 15)])
def test_padding_is_zero_at_the_bottom_and_the_right(height, width):
    x = torch.randn(2, 3, height, width)
    y = pad_to_multiple(x, 14)
    assert y.shape[2] % 14 == 0
    assert y.shape[3] % 14 == 0
    assert y.shape[2] - height < 14
    assert y.shape[3] - width < 14
    assert torch.equal(y[..., :height, :width], x)
    assert not y[..., height:, :].any()
    assert not y[..., width:].any()


def test_a_size_that_fits_is_not_even_copied():
    x = torch.randn(1, 3, 28, 14)
    assert pad_to_multiple(x, 14) is x


def test_stem_is_a_convolution_to_contiguous_nhwc():
    stem, x = PatchEmbed(3, 8, 7, stride=14), torch.randn(2, 3, 28, 42)
    y = stem(x)
    assert y.is_contiguous()
    torch.testing.assert_close(y, F.conv2d(x, stem.proj.weight, stem.proj.bias, stride=7).permute(0, 2, 3, 1))


@pytest.mark.parametrize("pad, size", [("crop", (30, 45)), ("zeros", (30, 45)), ("crop", (28, 42))])
def test_patches_that_overlap_have_the_same_grid_and_see_their_neighbors(pad, size):
    """A kernel that is zero where patches overlap is the stem of patches side by side."""
    plain, overlapping = PatchEmbed(3, 8, 7, stride=14, pad=pad), PatchEmbed(3, 8, 7, stride=14, pad=pad, overlap=3)
    with torch.no_grad():
        overlapping.proj.weight.zero_()[:, :, 3:-3, 3:-3] = plain.proj.weight
        overlapping.proj.bias.copy_(plain.proj.bias)
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(overlapping(x), plain(x))
    with torch.no_grad():
        overlapping.proj.weight[:, :, 0, 3] = 1.0  # three rows above the patch, its first column
    above = F.pad(x, (0, 0, 3, 0))[:, :, :-3:7, ::7].sum(1)
    grid = overlapping(x).shape[1:3]
    difference = (overlapping(x) - plain(x))[..., 0]
    torch.testing.assert_close(difference[:, :4, :6], above[:, : grid[0], : grid[1]][:, :4, :6], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "image, complaint",
    [
        (torch.zeros(3, 28, 28), "expected 4 axes"),
        (torch.zeros(1, 1, 28, 28), "takes 3"),
        (torch.zeros(1, 3, 28, 28, dtype=torch.uint8), "floating point"),
        (torch.zeros(1, 3, 13, 28), "13×28 pixels are too small"),
        (torch.zeros(1, 3, 28, 13), "28×13 pixels are too small"),
    ],
)
def test_stem_refuses_what_is_no_image_for_it(image, complaint):
    with pytest.raises(InputError, match=complaint):
        PatchEmbed(3, 8, 7, stride=14)(image)


def test_an_image_of_one_stride_is_one_token_and_the_stride_is_the_patch_unless_told():
    assert PatchEmbed(3, 8, 7)(torch.randn(1, 3, 7, 7)).shape == (1, 1, 1, 8)
    assert PatchEmbed(3, 8, 7).stride == 7
    assert PatchEmbed(3, 8, 7, stride=14)(torch.randn(1, 3, 14, 14)).shape == (1, 2, 2, 8)


def test_a_position_embedding_is_resampled_in_fp32_and_keeps_the_dtypes():
    weight = torch.randn(1, 3, 4, 5).bfloat16()
    expected = F.interpolate(weight.float().permute(0, 3, 1, 2), (6, 7), mode="bicubic").permute(0, 2, 3, 1)
    assert torch.equal(resample_grid(weight, 6, 7), expected.bfloat16())
    embedding = PositionEmbedding(3, 4, 5)
    for size in ((3, 4), (4, 3)):
        assert embedding(torch.randn(1, *size, 5).bfloat16()).dtype is torch.bfloat16


@pytest.mark.parametrize("patch", [1, 2])
def test_downsample_is_a_convolution_in_nhwc(patch):
    down, x = Downsample(6, 8, patch), torch.randn(2, 4, 6, 6)
    expected = F.conv2d(x.permute(0, 3, 1, 2), down.down.weight, down.down.bias, stride=patch).permute(0, 2, 3, 1)
    torch.testing.assert_close(down(x), expected)
    assert down(x).is_contiguous()


def test_position_embedding_is_added_as_it_is_on_its_own_grid():
    embedding, x = PositionEmbedding(3, 4, 5), torch.randn(2, 3, 4, 5)
    torch.nn.init.normal_(embedding.weight)
    assert torch.equal(embedding(x), x + embedding.weight)
    assert torch.equal(resample_grid(embedding.weight, 3, 4), embedding.weight)


def test_position_embedding_follows_another_grid():
    ramp = torch.linspace(0, 1, 8).reshape(1, 1, 8, 1).expand(1, 4, 8, 1)
    finer = resample_grid(ramp, 8, 16)
    assert finer.shape == (1, 8, 16, 1)
    inner = finer[0, 3, 4:-4, 0]
    torch.testing.assert_close(inner.diff(), torch.full((7,), 1 / 14), atol=2e-2, rtol=0)


def test_a_position_embedding_says_its_grid_and_width():
    assert repr(PositionEmbedding(3, 5, 8)) == "PositionEmbedding(height=3, width=5, dim=8)"
