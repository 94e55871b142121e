import pytest
import torch

from sequencer2d import create_model
from sequencer2d.errors import CheckpointError
from sequencer2d.models.names import from_authors, from_timm, is_authors, strip_wrappers, to_authors, to_timm

# Written out from the authors' published files, for stages of 4, 3, 8, 3 blocks.
PAIRS = {
    "stem.proj.weight": "stem.proj.weight",
    "blocks.0.0.norm1.weight": "stages.0.blocks.0.norm1.weight",
    "blocks.0.3.rnn_tokens.rnn_v.weight_ih_l0_reverse": "stages.0.blocks.3.rnn_tokens.rnn_v.weight_ih_l0_reverse",
    "blocks.0.4.down.weight": "stages.1.downsample.down.weight",
    "blocks.1.3.down.bias": "stages.2.downsample.down.bias",
    "blocks.2.8.down.weight": "stages.3.downsample.down.weight",
    "blocks.2.7.mlp_channels.fc1.bias": "stages.2.blocks.7.mlp_channels.fc1.bias",
    "norm.bias": "norm.bias",
    "head.weight": "head.fc.weight",
    "head.bias": "head.fc.bias",
}


@pytest.fixture(scope="module")
def state():
    with torch.device("meta"):
        return create_model("sequencer2d_s").state_dict()


@pytest.mark.parametrize("theirs, ours", PAIRS.items())
def test_authors_names(state, theirs, ours):
    assert list(from_authors({theirs: state[ours]})) == [ours]
    assert to_authors(state)[theirs] is state[ours]


def test_authors_names_and_back(state):
    renamed = to_authors(state)
    assert is_authors(renamed)
    assert not is_authors(state)
    assert len(renamed) == len(state)
    assert from_authors(renamed) == state


def test_two_names_for_the_same_parameter_are_refused():
    with pytest.raises(CheckpointError, match=r"head\.fc\.weight"):
        from_authors({"head.weight": torch.zeros(1), "head.fc.weight": torch.zeros(1)})


def test_timm_has_the_same_names(state):
    assert to_timm(state) == state == from_timm(state)


@pytest.mark.parametrize("name, parameter", [("vsequencer_pe_s", "pos_embed"), ("sequencer2d_s_gru", "weight_hh")])
def test_what_timm_has_no_model_for(name, parameter):
    with torch.device("meta"):
        state = create_model(name).state_dict()
    with pytest.raises(CheckpointError, match=parameter):
        to_timm(state)


def test_wrappers_are_removed_when_all_names_have_them():
    tensor = torch.zeros(1)
    assert strip_wrappers({"module._orig_mod.a": tensor, "module._orig_mod.b": tensor}) == {"a": tensor, "b": tensor}
    assert strip_wrappers({"module.a": tensor, "b": tensor}) == {"module.a": tensor, "b": tensor}
