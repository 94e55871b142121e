"""A package that comes with weights: those of N-P4 for five classes, in a folder of the test."""

import hashlib
from pathlib import Path

import pytest
import torch

from sequencer2d.models import Sequencer2D, create_model, describe_model
from sequencer2d.models import shipped as table
from sequencer2d.models.checkpoints import write_checkpoint

NAME = "sequencer2d_n_p4"
NAMES = ["n01443537", "n01629819", "n01641577", "n01644900", "n01698640"]
WORDS = ["goldfish", "European fire salamander", "bullfrog", "tailed frog", "American alligator"]
SIZE = 40


def ship_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the table empty, as in a package without weights."""
    for name in list(table.SHIPPED):
        monkeypatch.delitem(table.SHIPPED, name)


def ship(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Sequencer2D:
    """Write weights in fp16 and enter them into the table; the model that they were taken from."""
    torch.manual_seed(0)
    model = create_model(NAME, num_classes=len(NAMES))
    assert isinstance(model, Sequencer2D)
    torch.nn.init.normal_(model.head.fc.weight)
    said = describe_model(model, NAMES) | {"class_descriptions": WORDS}
    said["input"] |= {"size": [SIZE, SIZE], "crop_pct": 1.0, "mean": [0.5, 0.5, 0.5]}
    path = folder / "weights.safetensors"
    write_checkpoint({name: tensor.half() for name, tensor in model.state_dict().items()}, said, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(table, "FOLDER", folder)
    ship_nothing(monkeypatch)
    monkeypatch.setitem(table.SHIPPED, NAME, table.Shipped(path.name, digest, "toy", len(NAMES)))
    return model.eval()
