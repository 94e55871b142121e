"""`sequencer2d bench input`: a row for each part, a result file, and mistakes in one line."""

import json

import pytest

QUICK = ("--seconds", "0.01", "--workers", "1", "--device", "cpu", "--batch", "4")
PARTS = ["decode", "crop", "flip", "policy", "worker", "normalize", "mixup", "erase", "loader"]


def test_the_paper_s_recipe_on_photos(command, tmp_path):
    path = tmp_path / "input.json"
    outcome = command("bench", "input", "--photo", "60x45", "data.image_size=32", *QUICK, "--output", path)
    assert [line.split()[0] for line in outcome.out.splitlines()[1:]] == PARTS
    result = json.loads(path.read_text())
    assert {"name", "date", "device", "versions", "commit", "command", "config", "rows"} == result.keys()
    assert [row["part"] for row in result["rows"]] == PARTS
    assert all(row["ms_per_image"] > 0 and row["images_per_s"] > 0 for row in result["rows"])
    assert (result["config"]["data"]["batch_size"], result["config"]["data"]["image_size"]) == (4, 32)


def test_the_training_step_says_who_waits(command):
    outcome = command("bench", "input", "digits", "model.name=sequencer2d_n", *QUICK, "--model", "--json")
    rows = {row["part"]: row for row in json.loads(outcome.out)}
    assert rows["training step"]["where"] == "cpu"
    said = command("bench", "input", "digits", "model.name=sequencer2d_n", *QUICK, "--model").err
    assert "the input keeps up" in said
    assert "cores" in said


def test_a_policy_on_the_device_is_a_row_of_the_device(command):
    fields = ("data.image_size=32", "data.augment_on=workers+device")
    rows = json.loads(command("bench", "input", "--photo", "60x45", *fields, *QUICK, "--json").out)
    assert [row["where"] for row in rows if row["part"] == "policy"] == ["cpu"]


def test_images_on_the_device_and_cached_ones(command):
    for fields in (("data.augment_on=device", "data.batch_policy="), ("data.augment_on=workers",)):
        fields = ("data.image_size=8", "data.crop=random-resized", *fields)
        outcome = command("bench", "input", "cifar10", "--photo", "12x12", *fields, *QUICK, "--json")
        assert json.loads(outcome.out)[-1]["part"] == "loader"


@pytest.mark.parametrize(
    "argv, said",
    [
        (("nonsense",), "nonsense"),
        (("bccd",), "set data.root"),
        (("imagenet_s", "--photo", "500"), "WIDTHxHEIGHT"),
        (("imagenet_s", "data.nothing=1"), "data.nothing"),
        (("imagenet_s", "data.root=/nowhere"), "/nowhere"),
    ],
)
def test_mistakes_are_one_line(command, argv, said):
    outcome = command("bench", "input", *argv, *QUICK, code=2)
    assert said in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
