"""A few labelled images."""

import pytest
from PIL import Image

from sequencer2d.data.folders import FolderSource
from tests.evaluation.subjects import COLOURS


@pytest.fixture
def colours(tmp_path):
    """Two images of each colour, in a folder of classes whose sorted order is not the model's."""
    for name, colour in COLOURS.items():
        (tmp_path / "c" / name).mkdir(parents=True)
        for index in range(2):
            Image.new("RGB", (40, 40), colour).save(tmp_path / "c" / name / f"{index}.png")
    return FolderSource(tmp_path / "c", "")
