"""The inference form of each layer equals the layer, in float64 where nothing but a mistake can differ."""

import pytest
import torch
from timm.layers import Mlp as TimmMlp
from torch import nn

from sequencer2d.models.inference import to_inference_form
from sequencer2d.nn.blocks import Mlp
from sequencer2d.nn.embed import Downsample, PatchEmbed
from sequencer2d.nn.inference import FusedMlp, PackedRNN2D, PatchLinear
from sequencer2d.nn.rnn2d import RNN2D


def assert_inference_form_equals(layer, kind, *shape):
    """The layer's inference form is of the expected kind and computes the same."""
    layer = layer.double().eval().requires_grad_(False)
    x = torch.randn(*shape, dtype=torch.float64)
    expected = layer(x)
    converted = to_inference_form(nn.Sequential(layer))[0]
    assert type(converted) is kind
    torch.testing.assert_close(converted(x), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fusion": "add"},
        {"fusion": "none"},
        {"axes": "flatten"},
        {"axes": "horizontal"},
        {"cell": "gru"},
        {"cell": "rnn", "bidirectional": False},
    ],
    ids=str,
)
def test_a_packed_mixer_computes_the_same(options):
    assert_inference_form_equals(RNN2D(6, 3, **options), PackedRNN2D, 2, 3, 5, 6)


def test_packed_weights_are_the_mixers_own_and_go_with_the_module():
    mixer = RNN2D(6, 3)
    packed = PackedRNN2D(mixer)
    assert torch.equal(packed.weight_ih[1], mixer.rnn_v.weight_ih_l0_reverse)
    assert packed.to(torch.bfloat16).weight_hh.dtype == torch.bfloat16


@pytest.mark.parametrize("size", [(14, 21), (13, 15)])
@pytest.mark.parametrize("in_chans", [1, 3])
def test_a_stem_as_a_matrix_product_computes_the_same(size, in_chans):
    """7×7 patches of 1 or 3 channels are 49 or 147 values, of which no row is a multiple of 16 bytes unpadded."""
    assert_inference_form_equals(PatchEmbed(in_chans, 8, 7), PatchLinear, 2, in_chans, *size)


@pytest.mark.parametrize("pad", ["zeros", "crop"])
def test_stem_of_images_that_do_not_fit_the_models_stride(pad):
    assert_inference_form_equals(PatchEmbed(3, 8, 7, stride=14, pad=pad), PatchLinear, 1, 3, 30, 15)


@pytest.mark.parametrize("patch_size", [1, 2])
def test_a_downsampling_layer_as_a_matrix_product_computes_the_same(patch_size):
    assert_inference_form_equals(Downsample(6, 10, patch_size), PatchLinear, 2, 4, 6, 6)


@pytest.mark.parametrize("layer", [Mlp, TimmMlp])
def test_an_mlp_with_its_activation_fused_computes_the_same(layer):
    assert_inference_form_equals(layer(6, 18), FusedMlp, 2, 3, 4, 6)


def test_other_activations_are_left_as_they_are():
    mlp = TimmMlp(6, 18, act_layer=nn.SiLU)
    assert to_inference_form(nn.Sequential(mlp))[0] is mlp
