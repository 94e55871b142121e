"""Every peer has the published sizes, and takes its published checkpoint strictly."""

from pathlib import Path
from typing import Any

import pytest
import torch

from sequencer2d import create_model
from sequencer2d.benchmark.cost import count_macs, count_parameters
from sequencer2d.errors import CheckpointError
from sequencer2d.models import read_checkpoint
from sequencer2d.peers import build_peer, list_peers
from tests.peers.published import SIZES, published_shapes, published_state


def on_meta(name: str) -> Any:
    with torch.device("meta"):
        return build_peer(name)


def test_every_peer_is_checked() -> None:
    assert set(SIZES) == set(list_peers())


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_the_published_ones(name: str) -> None:
    model, size = on_meta(name), SIZES[name]
    assert count_parameters(model) == size.parameters
    if size.tensors is not None:
        assert len(model.state_dict()) == size.tensors
    if size.buffers is not None:
        assert sum(buffer.numel() for buffer in model.buffers()) == size.buffers
    if size.gmacs is not None:
        assert count_macs(model, model.config.img_size) / 1e9 == pytest.approx(size.gmacs, rel=0.01)


@pytest.mark.parametrize("name", published_shapes())
def test_names_and_shapes_are_those_of_the_published_checkpoint(name: str) -> None:
    found = {key: tuple(tensor.shape) for key, tensor in on_meta(name).state_dict().items()}
    assert found == published_shapes()[name]


def test_the_positions_of_t2t_vit_are_not_trained() -> None:
    assert count_parameters(on_meta("t2t_vit_t_19"), trainable_only=True) == 39_084_686


def wrapped(state: dict[str, Any], wrapper: str) -> dict[str, Any]:
    zeros = {key: torch.zeros_like(tensor) for key, tensor in state.items()}
    return {
        "bare": state,
        "model": {"model": state, "epoch": 300, "optimizer": {"state": {}}},
        "state_dict": {"state_dict": {f"module.{key}": tensor for key, tensor in state.items()}, "arch": "peer"},
        "EMA": {"model": zeros, "model_ema": state},
        "timm's EMA": {"state_dict": zeros, "state_dict_ema": state},
    }[wrapper]


@pytest.mark.parametrize(
    "name, wrapper",
    [
        ("vip_s7", "state_dict"),
        ("cyclemlp_b2", "bare"),
        ("gfnet_s", "model"),
        ("t2t_vit_t_19", "timm's EMA"),
        ("pvt_small", "bare"),
        ("gfnet_h_s", "EMA"),
    ],
)
def test_published_files_load_strictly(name: str, wrapper: str, tmp_path: Path) -> None:
    state = published_state(name)
    path = tmp_path / "published.pth.tar"
    torch.save(wrapped(state, wrapper), path)
    model = create_model(name, checkpoint=str(path))
    loaded = model.state_dict()
    assert all(torch.equal(loaded[key], tensor) for key, tensor in state.items())
    other = create_model(name, checkpoint=str(path), num_classes=7)
    assert other.get_classifier().out_features == 7
    assert torch.equal(other.norm.weight, state["norm.weight"])


@pytest.mark.parametrize("wrapper", ["bare", "model", "state_dict", "EMA", "timm's EMA"])
def test_the_reader_keeps_the_names_of_every_wrapper(wrapper: str, tmp_path: Path) -> None:
    # Two of GFNet's names look like those of the authors' Sequencer, which are renamed.
    state = {"blocks.0.0.norm1.weight": torch.ones(2), "head.weight": torch.ones(3, 2), "head.bias": torch.ones(3)}
    torch.save(wrapped(state, wrapper), tmp_path / "w.pth")
    read = read_checkpoint(tmp_path / "w.pth").state_dict
    assert read.keys() == state.keys()
    assert all(torch.equal(read[key], state[key]) for key in state)


def test_another_models_file_is_refused_in_one_line(tmp_path: Path) -> None:
    torch.save(build_peer("gfnet_ti").state_dict(), tmp_path / "ti.pth")
    with pytest.raises(CheckpointError, match=r"ti\.pth does not fit GFNet: ") as raised:
        create_model("gfnet_h_ti", checkpoint=str(tmp_path / "ti.pth"))
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1000


def test_weights_that_nobody_can_fetch_are_asked_for() -> None:
    with pytest.raises(CheckpointError, match="gfnet_s=FILE"):
        create_model("gfnet_s", pretrained=True)
