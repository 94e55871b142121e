"""The model that comes with the package names photos in one command; it is measured and trained by its name."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sequencer2d.models import read_checkpoint
from tests.cli.conftest import Outcome
from tests.data.images import make_folder
from tests.models.shipping import NAME, NAMES, WORDS, ship, ship_nothing


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights").mkdir()
    ship(tmp_path / "weights", monkeypatch)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_images_alone_are_named_in_words(command: Callable[..., Outcome], images: Path, shipped: None) -> None:
    for arguments in ((images,), (images / "a.png", images / "b.jpg"), (NAME, images)):
        rows = json.loads(command("predict", *arguments, "--json", "--top", 5).out)
        assert len(rows) == (2 if images not in arguments else 3)
        assert {guess["name"] for guess in rows[0]["guesses"]} == set(WORDS)


def test_a_checkpoint_without_images_is_a_mistake(mistake: Callable[..., str], tiny: Path, shipped: None) -> None:
    assert f"name images as well: sequencer2d predict {tiny} photo.jpg" in mistake("predict", tiny)
    assert "name images as well" in mistake("predict", NAME)
    assert "name an image, or a folder of images: sequencer2d predict photo.jpg" in mistake("predict")


def test_where_no_model_is_shipped_one_must_be_named(
    mistake: Callable[..., str], images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship_nothing(monkeypatch)
    assert "no model comes with this version of sequencer2d: name one" in mistake("predict", images / "a.png")
    assert "no model comes with this version" in mistake("predict", images)


def test_help_names_what_is_shipped(command: Callable[..., Outcome], shipped: None) -> None:
    for verb in ("predict", "eval", "export"):
        assert f"that comes with the package: {NAME}" in " ".join(command(verb, "--help").out.split())


def test_classes_of_data_are_found_by_their_identifiers(
    command: Callable[..., Outcome], tmp_path: Path, shipped: None
) -> None:
    data = make_folder(tmp_path / "data", {"val": dict.fromkeys(reversed(NAMES), 2)})
    outcome = command("eval", NAME, "--data", data, "--json", "data.workers=0")
    assert json.loads(outcome.out)["count"] == 10
    assert "taken for" not in outcome.err


def test_training_starts_from_it(command: Callable[..., Outcome], tmp_path: Path, shipped: None) -> None:
    data = make_folder(tmp_path / "data", {"train": {"cat": 4, "dog": 4}, "val": {"cat": 2, "dog": 2}})
    run = tmp_path / "run"
    fields = [
        f"model.name={NAME}", "model.overrides={}", "data.source=folder", f"data.root={data}", "data.val_split=val",
        "data.image_size=16", "data.batch_size=8", "data.workers=0", "run.epochs=1", "schedule.warmup_epochs=0",
        "schedule.cooldown_epochs=0", f"run.output={run}", "run.compile=false", "schedule.min_lr=1e-9",
        "schedule.warmup_lr=1e-9", "optimizer.lr=1e-8",
    ]  # fmt: skip
    command("train", "digits", *fields, "model.pretrained=true")
    started = read_checkpoint(NAME).state_dict
    weights = read_checkpoint(run).state_dict
    assert weights["head.fc.weight"].shape[0] == 2
    assert (weights["stem.proj.weight"] - started["stem.proj.weight"]).abs().max() < 1e-3
