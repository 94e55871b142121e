"""The inference form of each layer equals the layer, in float64 where nothing but a mistake can differ."""

import pytest
import torch
from timm.layers import Mlp as TimmMlp
from timm.layers import PatchEmbed as TimmStem
from torch import nn

from sequencer2d.models import inference
from sequencer2d.models.inference import to_inference_form
from sequencer2d.nn.blocks import Mlp
from sequencer2d.nn.embed import Downsample, PatchEmbed
from sequencer2d.nn.inference import FusedMlp, PackedRNN2D, PatchLinear
from sequencer2d.nn.rnn2d import RNN2D
from tests.models.small import small_model


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


@pytest.mark.parametrize(
    ("options", "is_patches"),
    [
        ({}, True), ({"stride": 3}, False), ({"kernel_size": (4, 2), "stride": (4, 2)}, False), ({"padding": 1}, False),
        ({"padding": (0, 1)}, False), ({"dilation": 2}, False), ({"groups": 2}, False),
        ({"kernel_size": (2, 4), "stride": 2}, False),
    ],
)  # fmt: skip
def test_only_convolutions_of_square_patches_side_by_side_are_matrix_products(options, is_patches):
    assert inference._only_patches(nn.Conv2d(4, 8, **({"kernel_size": 2, "stride": 2} | options))) == is_patches
    assert not inference._only_patches(nn.Linear(2, 2))
    assert not inference._only_patches(None)


def test_timms_stem_is_known_by_its_settings():
    plain = {"img_size": None, "patch_size": 4, "embed_dim": 8, "flatten": False, "output_fmt": "NHWC"}
    assert inference._is_timms_stem(TimmStem(**plain))
    for other in (
        {"img_size": 8}, {"flatten": True, "output_fmt": None}, {"output_fmt": "NCHW"}, {"dynamic_img_pad": True},
        {"norm_layer": nn.BatchNorm2d},
    ):  # fmt: skip
        assert not inference._is_timms_stem(TimmStem(**{**plain, **other})), other
    assert not inference._is_timms_stem(nn.Linear(2, 2))


def test_an_mlp_is_fused_with_an_exact_gelu_alone():
    assert inference._is_gelu_mlp(TimmMlp(6, 18))
    tanh, normed, convolved = TimmMlp(6, 18), TimmMlp(6, 18, norm_layer=nn.LayerNorm), TimmMlp(6, 18, use_conv=True)
    tanh.act = nn.GELU("tanh")
    for other in (tanh, normed, convolved, nn.Linear(2, 2)):
        assert not inference._is_gelu_mlp(other)


def test_norms_need_a_scale_a_bias_and_one_axis():
    assert inference._has_scale_and_bias(nn.LayerNorm(4))
    for other in (nn.LayerNorm(4, bias=False), nn.LayerNorm((2, 4)), nn.LayerNorm(4, elementwise_affine=False)):
        assert not inference._has_scale_and_bias(other)
    assert not inference._has_scale_and_bias(nn.BatchNorm1d(4))


def test_images_are_apart_in_inference_forms_whose_layers_are_all_known():
    form = to_inference_form(small_model().requires_grad_(False))
    assert inference.treats_images_apart(form)
    assert not inference.treats_images_apart(small_model()), "its mixers may be of a class that inherits ours"
    assert not inference.treats_images_apart(nn.Sequential(form)), "its forward may do anything"
    hook = form.stages[0].register_forward_hook(lambda module, inputs, output: output.mean(0, keepdim=True))
    assert not inference.treats_images_apart(form)
    hook.remove()
    assert inference.treats_images_apart(form)
    form.norm = nn.BatchNorm2d(32)
    assert not inference.treats_images_apart(form)


def test_a_bias_that_is_not_there_adds_nothing():
    assert inference._bias(nn.Linear(2, 3, bias=False)) == 0
    layer = nn.Linear(2, 3)
    bias = inference._bias(layer)
    assert torch.equal(bias, layer.bias)
    assert not bias.requires_grad
