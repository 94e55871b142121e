"""Models from descriptions of runs and from files of weights, and heads that would answer nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sequencer2d.errors import CheckpointError, ConfigError
from sequencer2d.evaluation.loading import DESCRIBED, peer_from, randomize_head, untrained
from sequencer2d.evaluation.subject import load_checkpoint
from sequencer2d.models import save_weights
from sequencer2d.peers import build_peer
from tests.peers.small import SMALL, small_peer

NAME = "gfnet_s"


def description() -> dict[str, Any]:
    options = {key: list(value) if isinstance(value, tuple) else value for key, value in SMALL[NAME].items()}
    said = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bilinear", "crop_pct": 1.0}
    return {
        "format": 1, "model": NAME, "overrides": options, "num_classes": 5, "in_chans": 3,
        "class_names": list("abcde"), "input": {"size": [48, 32], **said},
    }  # fmt: skip


def test_a_described_model_has_its_input_and_its_classes(tmp_path: Path) -> None:
    save_weights(small_peer(NAME), tmp_path / "m.safetensors", description())
    subject = load_checkpoint(tmp_path / "m.safetensors")
    assert not subject.model.training
    assert (subject.model.num_classes, subject.class_names) == (5, tuple("abcde"))
    assert (subject.data.std, subject.data.eval_interpolation, subject.data.crop_pct) == (
        (0.4, 0.5, 0.6),
        "bilinear",
        1,
    )
    assert subject.model.pretrained_cfg["architecture"] == NAME


@pytest.mark.parametrize("missing", DESCRIBED)
def test_a_description_must_be_whole(tmp_path: Path, missing: str) -> None:
    meta = description()
    holder = meta["input"] if "." in missing else meta
    del holder[missing.rpartition(".")[2]]
    save_weights(small_peer(NAME), tmp_path / "m.safetensors", meta)
    with pytest.raises(CheckpointError, match=missing.rpartition(".")[2]):
        load_checkpoint(tmp_path / "m.safetensors")


def test_a_file_of_weights_says_how_many_classes_there_are(tmp_path: Path) -> None:
    state = build_peer("gfnet_ti", num_classes=7).state_dict()
    torch.save(state, tmp_path / "m.pth")
    model = peer_from("gfnet_ti", str(tmp_path / "m.pth"))
    assert model.num_classes == 7
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())


def test_only_heads_of_zeros_are_drawn() -> None:
    model: Any = nn.Module()
    model.head = nn.Linear(500, 20)
    model.get_classifier = lambda: model.head
    before = model.head.weight.detach().clone()
    randomize_head(model)
    assert torch.equal(model.head.weight, before)
    nn.init.zeros_(model.head.weight)
    torch.manual_seed(0)
    randomize_head(model)
    assert model.head.weight.std().item() == pytest.approx(0.02, rel=0.05)
    model.head = nn.Identity()
    randomize_head(model)
    randomize_head(nn.Linear(2, 2))


def test_an_unknown_model_is_neither_ours_nor_timms() -> None:
    assert untrained("resnet18", 3).num_classes == 3
    with pytest.raises(ConfigError, match=r"^neither a variant of ours \(.*\), nor a peer, nor timm's: "):
        untrained("resnet0", 3)
