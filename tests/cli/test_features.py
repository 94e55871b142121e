"""`embed`, `similar` and `probe` on small images."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Outcome, save_tiny
from tests.data.test_parts import make_photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_photos(tmp_path / "photos", {"red": 15, "green": 15, "blue": 15})


def test_features_are_written_and_searched(
    command: Callable[..., Outcome], mistake: Callable[..., str], photos: Path, tiny: Path, tmp_path: Path
) -> None:
    query, copy = photos / "red" / "003.png", photos / "blue" / "copy.png"
    shutil.copy(query, copy)
    (photos / "red" / "broken.png").write_bytes(b"no image")
    stored = tmp_path / "x.npz"
    outcome = command("embed", tiny, photos, "--output", stored)
    assert "x.npz: 16 features of each of 46 images" in outcome.out
    assert "broken.png" in outcome.err
    with np.load(stored) as file:
        assert file["vectors"].shape == (46, 16)
    told = ("similar", tiny, query, "--top", 3, "--json", "--among")
    by_file = json.loads(command(*told, stored).out)
    assert by_file == json.loads(command(*told, photos).out)
    (row,) = by_file
    assert row["path"] == str(query)
    assert Path(row["similar"][0]["path"]).name == "copy.png"
    assert len(row["similar"]) == 3
    assert str(query) not in [one["path"] for one in row["similar"]], "an image is no neighbor of itself"
    command("similar", tiny, query, "--among", stored, "--picture", tmp_path / "similar.png")
    with Image.open(tmp_path / "similar.png") as picture:
        assert picture.width > 5 * picture.height / 2
    other = save_tiny(tmp_path / "other.safetensors")
    assert "holds features of other weights (sequencer2d_n)" in mistake("similar", other, query, "--among", stored)


def test_frozen_features_are_probed(command: Callable[..., Outcome], photos: Path, tiny: Path) -> None:
    said = json.loads(command("probe", tiny, photos, "--neighbors", 3, "--json").out)
    assert (said["train"], said["val"], said["classes"]) == (36, 9, 3)
    accuracy = {name.split(" ")[0]: value["percent"] for name, value in said["accuracy"].items()}
    assert accuracy["largest"] == pytest.approx(33.33)
    assert accuracy["3-NN"] > 80, "even an untrained model tells red from green"
    assert "95 % confidence" in command("probe", tiny, photos).out


def test_mistakes_are_answered_in_one_line(
    mistake: Callable[..., str], photos: Path, tiny: Path, tmp_path: Path
) -> None:
    assert "expected a file that ends in .npz" in mistake("embed", tiny, photos, "--output", tmp_path / "x.csv")
    assert "cannot write to" in mistake("embed", tiny, photos, "--output", tiny / "x.npz")
    image = photos / "red" / "000.png"
    assert "expected a folder of images, or an .npz file" in mistake("similar", tiny, image, "--among", image)
    (tmp_path / "bad.npz").write_bytes(b"x")
    assert "holds no features" in mistake("similar", tiny, image, "--among", tmp_path / "bad.npz")
    assert "none does not exist" in mistake("probe", tiny, tmp_path / "none")
