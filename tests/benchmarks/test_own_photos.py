"""README's way from photos to an exported model: its commands are found there, and what it promises is checked."""

import json
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.own_photos import STEPS, compare, gather, main, readme_commands, what_failed
from sequencer2d.cli.main import parse

README = Path(__file__).parents[2] / "README.md"
GOOD = {
    "seconds": 590.0, "report_agrees": True, "mistakes_drawn": True, "mistakes_listed": 5,
    "photos_compared": 400, "same_class": 400, "largest_difference": 1e-6,
}  # fmt: skip


def test_readme_says_every_command_and_each_parses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    commands = readme_commands(README.read_text(encoding="utf-8"))
    assert len(commands) == len(STEPS)
    for command in commands:
        assert "photo.jpg" not in command
        parse(command[1:])


def test_a_command_that_readme_does_not_say_is_named() -> None:
    with pytest.raises(ValueError, match="README does not say 'sequencer2d finetune"):
        readme_commands("## Your own photos\n```\nsequencer2d predict runs/photos photo.jpg\n```\n")


def test_the_largest_classes_of_all_splits_become_the_photos(tmp_path: Path) -> None:
    for split, name, count in (("train", "a", 2), ("test", "a", 2), ("train", "b", 3), ("train", "c", 1)):
        (tmp_path / "data" / split / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.new("RGB", (4, 4)).save(tmp_path / "data" / split / name / f"{split}{number}.png")
    gather(tmp_path / "data", tmp_path / "photos", classes=2, images=3)
    found = {folder.name: len(list(folder.iterdir())) for folder in (tmp_path / "photos").iterdir()}
    assert found == {"a": 3, "b": 3}
    with pytest.raises(SystemExit, match="class c has 1 images, not 3"):
        gather(tmp_path / "data", tmp_path / "more", classes=3, images=3)


def test_two_outputs_of_predict_are_compared_class_by_class() -> None:
    def output(*rows: dict[str, float]) -> str:
        return json.dumps([{"guesses": [{"name": n, "probability": p} for n, p in row.items()]} for row in rows])

    found = compare(output({"cat": 0.9, "dog": 0.1}, {"dog": 0.6, "cat": 0.4}), output({"cat": 0.88, "dog": 0.12},
                    {"cat": 0.51, "dog": 0.49}))  # fmt: skip
    assert (found["photos_compared"], found["same_class"]) == (2, 1)
    assert found["largest_difference"] == pytest.approx(0.11)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, None),
        ({"seconds": 601.0}, "took 10.0 of 10 minutes"),
        ({"report_agrees": False}, "does not agree"),
        ({"mistakes_drawn": False}, "no picture"),
        ({"mistakes_drawn": False, "mistakes_listed": 0}, None),
        ({"same_class": 399}, "another class for 1 photos"),
        ({"largest_difference": 1e-3}, "off by 1.0e-03"),
    ],
)
def test_what_is_not_kept_is_said(changed: dict[str, object], said: str | None) -> None:
    failed = what_failed({**GOOD, **changed}, minutes=10)
    assert (len(failed) == 1 and said in failed[0]) if said else not failed


def test_from_photos_to_an_exported_model(tmp_path: Path) -> None:
    """The whole way in processes of their own, with a model of two blocks."""
    for name, color in (("red", (200, 30, 30)), ("green", (30, 200, 30))):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(20):
            shade = tuple(min(255, value + 2 * number) for value in color)
            Image.new("RGB", (32, 32), shade).save(tmp_path / "data" / name / f"{number:02d}.png")
    overrides = {"depths": (1,), "dims": (16,), "hidden_dims": (4,), "patch_sizes": (4,)}
    fields = ["run.epochs=2", "data.image_size=16", "data.workers=0", f"model.overrides={overrides}"]
    work, result = tmp_path / "work", tmp_path / "result.json"
    places = [f"--folder={work}", f"--result={result}"]
    main([str(tmp_path / "data"), "--classes=2", "--images=20", *places, "--finetune", "--from", "scratch", *fields])
    (row,) = json.loads(result.read_text())["rows"]
    assert row["validation_images"] == 8
    assert row["report_agrees"]
    assert (row["photos_compared"], row["same_class"]) == (40, 40)
    assert row["largest_difference"] < 1e-4
