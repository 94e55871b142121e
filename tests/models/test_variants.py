import pytest
import torch

from sequencer2d import create_model, list_models, model_config
from sequencer2d.errors import ConfigError
from sequencer2d.models.variants import HUB_WEIGHTS, VARIANTS

# The first block as in the paper and its authors' code, the rest follows from the architecture.
PARAMETERS = {
    "sequencer2d_s": 27_651_688,
    "sequencer2d_m": 38_307_688,
    "sequencer2d_l": 54_298_216,
    "sequencer2d_l_wide": 96_252_392,
    "vsequencer_s": 33_016_552,
    "vsequencer_h_s": 27_645_544,
    "vsequencer_pe_s": 33_114_856,
    "sequencer2d_s_vertical": 27_645_544,
    "sequencer2d_s_horizontal": 27_645_544,
    "sequencer2d_s_nofusion": 25_433_704,
    "sequencer2d_s_add": 26_545_768,
    "sequencer2d_s_unidirectional": 29_863_528,
    "sequencer2d_s_unidirectional_narrow": 20_991_592,
    "sequencer2d_s_h2x": 45_395_560,
    # Ours, and two that the paper rounds to 25 M and 19 M.
    "sequencer2d_t": 12_405_480,
    "sequencer2d_n": 4_145_128,
    "sequencer2d_n_p4": 4_135_624,
    "sequencer2d_s_gru": 24_874_600,
    "sequencer2d_s_rnn": 19_320_424,
}


def test_every_variant_has_its_count_here():
    assert set(PARAMETERS) == set(list_models())


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name):
    with torch.device("meta"):
        model = create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


def test_the_one_for_small_images_differs_from_n_in_its_strides_alone():
    n = VARIANTS["sequencer2d_n"]
    assert VARIANTS["sequencer2d_n_p4"] == n.replace(patch_sizes=(4, 2, 1, 1))


@pytest.mark.parametrize("name", ["sequencer2d_t", "sequencer2d_n"])
def test_small_ones_follow_the_rule(name):
    s, config = VARIANTS["sequencer2d_s"], VARIANTS[name]
    width, depth = {"sequencer2d_t": (2 / 3, 1), "sequencer2d_n": (1 / 2, 1 / 2)}[name]
    assert config.dims == tuple(round(dim * width) for dim in s.dims)
    assert config.hidden_dims == tuple(dim // 4 for dim in config.dims)
    assert config.depths == tuple(int(d * depth + 0.5) for d in s.depths)


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_variant_runs_and_trains(name):
    torch.manual_seed(0)
    sizes = {
        "dims": (16,) * 4,
        "hidden_dims": tuple(16 * d // c for d, c in zip(_hidden(name), _dims(name), strict=True)),
    }
    model = create_model(name, num_classes=3, depths=(1, 1, 1, 1), **sizes)
    torch.nn.init.normal_(model.head.fc.weight)
    logits = model(torch.randn(2, 3, 28, 42))
    assert logits.shape == (2, 3)
    logits.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_filter():
    assert list_models("vsequencer*") == ["vsequencer_s", "vsequencer_h_s", "vsequencer_pe_s"]
    assert list_models("resnet*") == []


def test_published_weights_are_of_variants():
    assert set(HUB_WEIGHTS) <= set(VARIANTS)


def test_an_unknown_name_lists_close_ones():
    with pytest.raises(ConfigError, match="did you mean sequencer2d_s"):
        model_config("sequencer_2d_s")


def test_an_override_changes_its_row_only_in_the_copy():
    assert model_config("sequencer2d_s", cell="gru").cell == "gru"
    assert VARIANTS["sequencer2d_s"].cell == "lstm"


def _hidden(name):
    return VARIANTS[name].hidden_dims


def _dims(name):
    return VARIANTS[name].dims
