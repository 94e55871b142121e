"""A few labeled images."""

import pytest
from PIL import Image

from sequencer2d.data.folders import FolderSource
from tests.evaluation.subjects import COLORS


@pytest.fixture
def colors(tmp_path):
    """Two images of each color, in a folder of classes whose sorted order is not the model's."""
    for name, color in COLORS.items():
        (tmp_path / "c" / name).mkdir(parents=True)
        for index in range(2):
            Image.new("RGB", (40, 40), color).save(tmp_path / "c" / name / f"{index}.png")
    return FolderSource(tmp_path / "c", "")
