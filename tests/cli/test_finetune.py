"""`sequencer2d finetune`: from a folder of photos to a model and its mistakes."""

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sequencer2d.evaluation.subject import load_checkpoint
from sequencer2d.training.runfiles import read_config
from tests.cli.conftest import Outcome, save_tiny
from tests.data.test_parts import make_photos

QUICK = ("run.epochs=2", "data.workers=0", "run.tensorboard=false", "run.progress=none", "run.cpu_threads=1")
SMALL = (
    "data.image_size=16",
    'model.overrides={"depths": (1,), "dims": (16,), "hidden_dims": (4,), "patch_sizes": (4,)}',
)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_photos(tmp_path / "photos", {"red": 20, "green": 20, "blue": 10}, (20, 16))


def test_a_folder_becomes_a_model_and_a_list_of_its_mistakes(
    command: Callable[..., Outcome], photos: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    outcome = command("finetune", photos, "--from", "scratch", "--output", run, *QUICK, *SMALL)
    assert "regularization.class_weights" in outcome.out
    assert "of 10 validation images are right" in outcome.out
    assert f"sequencer2d predict {run} photo.jpg" in outcome.out
    summary = json.loads((run / "summary.json").read_text())
    told = f"best epoch {summary['best']['epoch']}, {summary['duration_s'] / 60:.1f} min"
    assert f"; the largest class alone would be 40.0 %; {told}\n" in outcome.out
    right = int(outcome.out.split(" of 10 validation")[0].split()[-1])
    with (run / "mistakes.csv").open() as file:
        wrong = list(csv.DictReader(file))
    assert (f"the {min(24, len(wrong))} most confident of {len(wrong)}\n" in outcome.out) == bool(wrong)
    assert len(wrong) == 10 - right
    assert all(Path(row["path"]).parent.name == row["truth"] != row["predicted"] for row in wrong)
    assert [row["probability"] for row in wrong] == sorted((row["probability"] for row in wrong), reverse=True)
    assert (run / "mistakes.png").exists() == bool(wrong)
    assert load_checkpoint(run).class_names == ("blue", "green", "red")
    measured = json.loads(command("eval", run, "--json", "data.workers=0").out)
    assert (measured["count"], measured["top1"]) == (10, 10 * right), "eval finds the images that were held out"


def test_training_can_start_from_a_file_with_its_classifier_alone(
    command: Callable[..., Outcome], photos: Path, tmp_path: Path
) -> None:
    weights = save_tiny(tmp_path / "tiny.safetensors")
    run = tmp_path / "run"
    command("finetune", photos, "--from", weights, "--head-only", "--output", run, *QUICK)
    config = read_config(run)
    assert (config.model.train, config.data.size, config.model.checkpoint) == ("head", (8, 8), str(weights))
    before, after = load_checkpoint(weights).model.state_dict(), load_checkpoint(run).model.state_dict()
    changed = {name for name in after if after[name].shape != before[name].shape or (after[name] != before[name]).any()}
    assert changed == {"head.fc.weight", "head.fc.bias"}


def test_a_run_that_was_stopped_ends_with_its_mistakes_too(
    command: Callable[..., Outcome], photos: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    stopped = command(
        "finetune", photos, "--from", "scratch", "--output", run, "run.max_steps=3", *QUICK, *SMALL, code=75
    )
    assert f"with: sequencer2d train --resume {run}" in stopped.err
    assert not (run / "mistakes.csv").exists()
    resumed = command("train", "--resume", run)
    assert "of 10 validation images are right" in resumed.out
    right = int(resumed.out.split(" of 10 validation")[0].split()[-1])
    with (run / "mistakes.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 10 - right


def test_a_dry_run_explains_and_leaves_nothing(
    command: Callable[..., Outcome], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = command("finetune", photos, "--from", "scratch", "--dry-run", *QUICK, *SMALL)
    assert "a fifth of each class is held out" in outcome.out
    assert not (tmp_path / "runs").exists()


def test_mistakes_are_answered_in_one_line(mistake: Callable[..., str], photos: Path, tmp_path: Path) -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert "--from scratch; or give weights of yours" in mistake("finetune", photos)
    assert "none does not exist; give a folder" in mistake("finetune", tmp_path / "none", "--from", "scratch")
    assert "--from scratch has none" in mistake("finetune", photos, "--from", "scratch", "--head-only")
    assert "no checkpoint at 'x'" in mistake("finetune", photos, "--from", "x")
    assert "expected minutes above 0, got '0'" in mistake("finetune", photos, "--minutes", "0")


def test_a_folder_that_cannot_be_trained_on_is_refused_before_anything_is_measured(
    command: Callable[..., Outcome], tmp_path: Path
) -> None:
    train = make_photos(tmp_path / "photos" / "train", {"red": 9, "green": 9})
    val = make_photos(tmp_path / "photos" / "val", {"green": 4}, (10, 8))
    said = command("finetune", tmp_path / "photos", "--from", "scratch", "--dry-run", code=2).err
    assert "only in training: red" in said
    assert "measuring" not in said
    shutil.copytree(train / "red", val / "red")
    said = command("finetune", tmp_path / "photos", "--from", "scratch", "--dry-run", *QUICK, *SMALL[1:]).err
    assert "copies of images to train on" not in said, "fields of the data: the folder's own splits may not be used"
    shown = command("finetune", tmp_path / "photos", "--from", "scratch", "--dry-run", "run.epochs=1", *SMALL[1:]).err
    assert f"copies of images to train on: 9 of 13, such as {val / 'red' / '000.png'}. Accuracy will look" in shown


def test_training_images_are_no_validation_images_unless_told(command: Callable[..., Outcome], photos: Path) -> None:
    both = ("data.val_split=", "data.val_fraction=0", "--dry-run", *QUICK, *SMALL)
    said = mistake_line(command("finetune", photos, "--from", "scratch", *both, code=2))
    assert "50 of the 50 images to validate on are trained on as well" in said
    command("finetune", photos, "--from", "scratch", "--validate-on-training", *both)


def mistake_line(outcome: Outcome) -> str:
    return outcome.err.splitlines()[-1]


def test_identifiers_of_wordnet_become_words(command: Callable[..., Outcome], tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"n01443537": 10, "n02099601": 10}, (20, 16))
    run = tmp_path / "run"
    command("finetune", photos, "--from", "scratch", "--output", run, *QUICK, *SMALL)
    (said,) = json.loads(command("predict", run, photos / "n01443537" / "000.png", "--json").out)
    assert {guess["name"] for guess in said["guesses"]} == {"goldfish", "golden retriever"}
