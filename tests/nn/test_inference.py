"""The inference forms of layers compute what the layers do, alone and by hand."""

import pytest
import torch
from timm.layers import DropPath as TimmDropPath
from torch import nn
from torch.nn import functional as F

from sequencer2d.errors import InputError
from sequencer2d.nn.blocks import DropPath, Mlp, SequencerBlock
from sequencer2d.nn.eager import _differs, draw_mask, draw_masks
from sequencer2d.nn.inference import FusedMlp, InPlaceBlock, PackedRNN2D, PatchLinear
from sequencer2d.nn.rnn2d import RNN2D


@pytest.mark.parametrize("size", [(8, 12), (9, 15)])
@pytest.mark.parametrize(("patch", "channels", "padding"), [(4, 3, 0), (2, 3, 4), (1, 3, 5), (3, 3, 5), (2, 2, 0)])
def test_a_convolution_as_a_product_is_the_convolution(patch, channels, padding, size) -> None:
    """Rows of the weights are padded to multiples of 8 values."""
    conv, x = nn.Conv2d(channels, 6, patch, stride=patch), torch.randn(2, channels, *size)
    expected = conv(x).permute(0, 2, 3, 1)
    of_image, of_map = PatchLinear(conv, True, stride=patch), PatchLinear(conv, False)
    torch.testing.assert_close(of_image(x), expected)
    torch.testing.assert_close(of_map(x.permute(0, 2, 3, 1)), expected)
    assert of_image.weight.shape == of_map.weight.shape == (6, channels * patch**2 + padding)
    assert of_image.bias.data_ptr() != conv.bias.data_ptr()


def test_an_image_is_checked_and_padded_as_the_stem_does() -> None:
    conv = nn.Conv2d(3, 6, 4, stride=4, bias=False)
    product = PatchLinear(conv, True, stride=8, pad="zeros")
    x = torch.randn(1, 3, 9, 8)
    torch.testing.assert_close(product(x), conv(F.pad(x, (0, 0, 0, 7))).permute(0, 2, 3, 1))
    assert product.bias is None
    assert PatchLinear(conv, True, stride=8).fit(x).shape == (1, 3, 8, 8)
    for wrong in (torch.randn(1, 3, 7, 8), torch.randn(1, 2, 8, 8)):
        with pytest.raises(InputError):
            product(wrong)


@pytest.mark.parametrize(
    "options", [{}, {"fusion": "add"}, {"axes": "flatten"}, {"cell": "gru"}, {"axes": "vertical", "fusion": "none"}]
)
def test_a_packed_mixer_is_the_mixer(options) -> None:
    mixer, x = RNN2D(8, 2, **options).eval(), torch.randn(2, 3, 5, 8)
    packed = PackedRNN2D(mixer)
    torch.testing.assert_close(packed(x), mixer(x))
    assert not packed.weight_ih.requires_grad
    assert packed._grid(x).shape == ((2, 1, 15, 8) if options.get("axes") == "flatten" else x.shape)


def test_an_in_place_block_leaves_its_biases_to_the_layer_before() -> None:
    block, x = SequencerBlock(8, 2).eval(), torch.randn(2, 3, 5, 8)
    with torch.no_grad():
        for norm in (block.norm1, block.norm2):
            norm.weight.uniform_(0.5, 2)
            norm.bias.normal_()
    mixer_bias, mlp_bias = block.rnn_tokens.fc.bias.detach(), block.mlp_channels.fc2.bias.detach()
    expected = block(x).detach()
    form = nn.Module()
    form.norm1, form.norm2 = block.norm1, block.norm2
    form.rnn_tokens, form.mlp_channels = PackedRNN2D(block.rnn_tokens), FusedMlp(block.mlp_channels)
    ours = InPlaceBlock(form, mixer_bias + mlp_bias, mlp_bias)
    with torch.no_grad():
        given = x + mixer_bias + mlp_bias
        found = ours(given)
    assert found is given
    torch.testing.assert_close(found, expected)


def test_what_stochastic_depth_draws() -> None:
    x = torch.zeros(1000, 2, 2, 4)
    assert draw_mask(nn.Identity(), x) is None
    assert draw_mask(DropPath(0.5).eval(), x) is None
    assert draw_mask(DropPath(0.0).train(), x) is None
    torch.manual_seed(0)
    mask = draw_mask(DropPath(0.25).train(), x)
    assert mask.shape == (1000, 1, 1, 1)
    assert sorted(set(mask.flatten().tolist())) == pytest.approx([0, 4 / 3])
    assert mask.mean().item() == pytest.approx(1, abs=0.1)
    unscaled = draw_mask(TimmDropPath(0.25, scale_by_keep=False).train(), x)
    assert set(unscaled.flatten().tolist()) == {0, 1}
    assert not draw_mask(DropPath(1.0).train(), x).any()
    first, second = draw_masks((DropPath(0.0), nn.Identity()), x, DropPath)
    assert first is second is None
    assert draw_masks((nn.Dropout(), nn.Identity()), x, DropPath) is None


def test_layers_of_an_mlp_that_compute_something_else() -> None:
    assert not _differs(nn.GELU())
    assert _differs(nn.GELU(approximate="tanh"))
    assert not _differs(nn.Identity().train())
    assert not _differs(nn.Dropout(0.0).train())
    assert not _differs(nn.Dropout(0.5).eval())
    assert _differs(nn.Dropout(0.5).train())
    assert Mlp(4, 8).drop.p == 0
