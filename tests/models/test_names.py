import pytest
import torch

from sequencer2d import create_model
from sequencer2d.errors import CheckpointError
from sequencer2d.models import from_authors, load_model, load_weights, to_authors
from sequencer2d.models.names import is_authors, strip_wrappers

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


def test_the_position_embedding_of_the_authors_has_a_name_of_its_own(tmp_path):
    """In their code the table is a parameter of the model: `absolute_pos_embed`, (1, 16, 16, 384)."""
    model = create_model("vsequencer_pe_s", depths=(1, 1, 1, 1), num_classes=3)
    theirs = to_authors(model.state_dict())
    assert theirs["absolute_pos_embed"].shape == (1, 16, 16, 384)
    assert not any(name.startswith("pos_embed") for name in theirs)
    torch.save({"state_dict": theirs, "arch": "v_sequencer_s_pe"}, tmp_path / "theirs.pth.tar")
    other = create_model("vsequencer_pe_s", depths=(1, 1, 1, 1), num_classes=3)
    load_weights(other, tmp_path / "theirs.pth.tar")
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in other.state_dict().items())


def test_the_authors_file_of_vsequencer_pe_is_recognized(tmp_path):
    with torch.device("meta"):
        named = {name: tensor.shape for name, tensor in create_model("vsequencer_pe_s").state_dict().items()}
    state = to_authors({name: torch.zeros(shape) for name, shape in named.items()})
    torch.save(state, tmp_path / "theirs.pth")
    assert load_model(tmp_path / "theirs.pth").variant == "vsequencer_pe_s"


def test_two_names_for_the_same_parameter_are_refused():
    with pytest.raises(CheckpointError, match=r"head\.fc\.weight"):
        from_authors({"head.weight": torch.zeros(1), "head.fc.weight": torch.zeros(1)})


def test_wrappers_are_removed_when_all_names_have_them():
    tensor = torch.zeros(1)
    assert strip_wrappers({"module._orig_mod.a": tensor, "module._orig_mod.b": tensor}) == {"a": tensor, "b": tensor}
    assert strip_wrappers({"module.a": tensor, "b": tensor}) == {"module.a": tensor, "b": tensor}
