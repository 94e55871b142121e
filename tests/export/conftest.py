"""Small models with a classifier that is not zero, and their artifacts, written once."""

from pathlib import Path

import pytest
import torch

from sequencer2d.export import export_model
from sequencer2d.export.formats import FORMATS
from sequencer2d.models import create_model
from sequencer2d.models.sequencer2d import Sequencer2D

SMALL = {"depths": (1, 1), "dims": (16, 16), "patch_sizes": (2, 2), "img_size": (16, 16)}
ONE_BLOCK = {"depths": (1,), "dims": (16,), "patch_sizes": (4,)}
"""Of the same stride: for what holds block by block, at half of the time."""
NAMES = ("cat", "dog", "fish", "bird", 'a "quoted", ünusual name')


def small(variant: str = "sequencer2d_n", **overrides: object) -> Sequencer2D:
    """A model of two blocks for images of 16 pixels, with class names."""
    torch.manual_seed(0)
    hidden = {"vsequencer_s": 8, "vsequencer_pe_s": 8, "sequencer2d_s_vertical": 8, "sequencer2d_s_horizontal": 8}
    sizes = SMALL | overrides
    width = hidden.get(variant, 4)
    model = create_model(variant, num_classes=len(NAMES), **({"hidden_dims": (width,) * len(sizes["depths"])} | sizes))
    torch.nn.init.normal_(model.head.fc.weight)
    model.pretrained_cfg = model.pretrained_cfg | {"label_names": list(NAMES)}
    return model.eval()


@pytest.fixture(scope="session")
def model() -> Sequencer2D:
    return small()


@pytest.fixture(scope="session")
def artifacts(model: Sequencer2D, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The small model in the formats that need no compiler."""
    folder = tmp_path_factory.mktemp("artifacts")
    paths = {name: folder / f"{name}{FORMATS[name].suffix}" for name in ("torch", "onnx", "openvino")}
    for name, path in paths.items():
        export_model(model, path, name)
    return paths
