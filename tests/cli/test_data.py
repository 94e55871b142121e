"""`sequencer2d data`: a table, JSON and a picture of a folder of images, and an exit code for scripts."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from sequencer2d.cli.data import EXIT_FOUND
from tests.cli.conftest import Outcome
from tests.data.test_parts import make_photos


def test_a_clean_folder_exits_with_0(command: Callable[..., Outcome], tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 3, "green": 5})
    outcome = command("data", photos, "--picture", tmp_path / "samples.png")
    assert "classes: green 5, red 3" in outcome.out
    assert "sizes: 12×8 pixels (median)" in outcome.out
    assert "every image can be read, and there are no duplicates" in outcome.out
    with Image.open(tmp_path / "samples.png") as picture:
        pixels = picture.convert("RGB")
        assert {"red", "green"} <= {
            _hue(pixels.getpixel((x, y))) for x in range(0, pixels.width, 9) for y in range(0, pixels.height, 9)
        }


def _hue(pixel: tuple[int, int, int]) -> str:
    red, green, _ = pixel
    return "red" if red > green + 90 else "green" if green > red + 90 else ""


def test_faults_are_listed_and_exit_with_a_code_of_their_own(command: Callable[..., Outcome], tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 3, "green": 9})
    for number in range(7):
        shutil.copy(photos / "green" / f"{number:03d}.png", photos / "red" / f"copy{number}.png")
    (photos / "red" / "broken.png").write_bytes(b"no image")
    said = command("data", photos, code=EXIT_FOUND).out
    assert "1 broken:\n" in said
    assert "7 images with copies, in several classes (at most one label is right):\n" in said
    assert "… 2 more: --json lists them all" in said
    found = json.loads(command("data", photos, "--json", code=EXIT_FOUND).out)
    assert [entry["across"] for entry in found["duplicates"]] == ["classes"] * 7
    assert found["splits"] == {"": {"green": 9, "red": 11}}


def test_what_cannot_be_trained_on_is_a_fault(command: Callable[..., Outcome], tmp_path: Path) -> None:
    one = make_photos(tmp_path / "one", {"red": 3})
    assert "red: the only class" in command("data", one, code=EXIT_FOUND).out
    few = make_photos(tmp_path / "few", {"red": 3, "green": 1})
    said = command("data", few, code=EXIT_FOUND).out
    assert "green: one image" in said
    assert "red: " not in said
    assert json.loads(command("data", few, "--json", code=EXIT_FOUND).out)["untrainable"][0].startswith("green: ")


def test_a_line_break_in_a_class_name_breaks_no_line(command: Callable[..., Outcome], tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"two\nlines": 3, "green": 5})
    assert "classes: green 5, two\\nlines 3\n" in command("data", photos).out


def test_mistakes_are_answered_in_one_line(mistake: Callable[..., str], tmp_path: Path) -> None:
    assert "none does not exist; give a folder" in mistake("data", tmp_path / "none")
    (tmp_path / "a").mkdir()
    assert "classes without images (1 of 1): a" in mistake("data", tmp_path)
    photos = make_photos(tmp_path / "photos", {"red": 1, "green": 1})
    file = photos / "red" / "000.png"
    assert "cannot write to" in mistake("data", photos, "--picture", file / "x.png", "--json")
