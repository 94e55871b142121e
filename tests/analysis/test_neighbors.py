"""The picture of nearest images: whose folders are classes, and whose are not."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from PIL import Image

from sequencer2d.analysis.neighbors import draw_neighbors
from tests.data.test_parts import make_photos


def reds(picture: Path) -> int:
    """Pixels that are as red as matplotlib's tab:red; the photos are blue."""
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    return int((np.abs(pixels - (0xD6, 0x27, 0x28)).max(axis=-1) < 30).sum())


def test_neighbors_of_another_class_are_red_and_those_of_a_photo_from_elsewhere_are_not(tmp_path: Path) -> None:
    for name in ("cat", "dog", "elsewhere"):
        # The third color of three is blue.
        make_photos(tmp_path / "all", {f"{name}-1": 0, f"{name}-2": 0, name: 2})
    cat, dog, elsewhere = (str(tmp_path / "all" / name / "000.png") for name in ("cat", "dog", "elsewhere"))
    row = [(str(tmp_path / "all" / "cat" / "001.png"), 0.9), (dog, 0.8)]
    picture = tmp_path / "picture.png"
    draw_neighbors([(cat, row)], picture, model="m")
    assert reds(picture) > 0
    draw_neighbors([(elsewhere, row)], picture, model="m")
    assert reds(picture) == 0
