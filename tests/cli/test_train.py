"""`sequencer2d train`, `eval` and `demo` on the digits, with a model that learns nothing in its one epoch."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from sequencer2d import create_model
from sequencer2d.cli.evaluate import take_implementation
from sequencer2d.cli.train import OWN_FOLDER, resolve
from sequencer2d.errors import ConfigError
from sequencer2d.training.runfiles import write_config
from tests.cli.conftest import Outcome
from tests.models.shipping import WORDS, ship, ship_nothing

SHORT = (
    "run.epochs=1",
    "schedule.warmup_epochs=0",
    "data.workers=0",
    "run.tensorboard=false",
    "model.overrides.depths=1,1",
    "model.overrides.dims=8,8",
    "model.overrides.hidden_dims=4,4",
)


def test_a_dry_run_prints_every_field_and_writes_nothing(command: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = command("train", "digits", "optimizer.lr=0.125", f"run.output={tmp_path / 'run'}", "--dry-run")
    assert any(line.split() == ["optimizer.lr", "=", "0.125"] for line in outcome.out.splitlines())
    assert "run.seed" in outcome.out
    assert not (tmp_path / "run").exists()


def test_a_dry_run_can_be_json(command: Callable[..., Outcome]) -> None:
    config = json.loads(command("train", "cifar10", "data.root=/images", "--dry-run", "--json").out)
    assert config["data"]["root"] == "/images"


def test_the_list_of_recipes(command: Callable[..., Outcome]) -> None:
    assert "digits" in command("train", "--list").out
    assert {"digits", "cifar10", "imagenet_s"} <= set(json.loads(command("train", "--list", "--json").out))


def test_resume_finds_the_run(tmp_path: Path) -> None:
    assert resolve("digits", [], OWN_FOLDER).run.resume
    assert resolve("digits", [], "runs/a").run.output == "runs/a"
    both = resolve("digits", [], "run.seed=3")
    assert both.run.resume
    assert both.run.seed == 3
    with pytest.raises(ConfigError, match="name a recipe"):
        resolve(None, [], "run.seed=3")


def test_train_eval_and_resume(command: Callable[..., Outcome], tmp_path: Path) -> None:
    run = tmp_path / "run"
    stopped = command("train", "digits", *SHORT, f"run.output={run}", "run.max_steps=2", code=75)
    assert "--resume" in stopped.err
    done = command("train", "--resume", run)
    assert "done in" in done.err
    assert (run / "summary.json").is_file()
    assert (run / "curves.png").is_file()
    outcome = command("eval", run, "--json")
    result = json.loads(outcome.out)
    assert result["top1"] == pytest.approx(json.loads((run / "summary.json").read_text())["best"]["top1"])
    assert result["count"] == 355
    table = command("eval", run / "best.safetensors", "--data", "digits", "--per-class", "data.workers=0").out
    assert f"{result['top1']:.2f} %" in table
    stated = {line.split()[0]: line.split()[1:] for line in table.splitlines()[:9]}
    assert stated["model"] == ["sequencer2d_n"]
    assert stated["weights"] == [str(run / "best.safetensors")]
    assert (stated["data"], stated["precision"]) == (["digits", "val"], ["fp32"])
    assert len(table.splitlines()) == 19


def test_eval_takes_the_runs_arithmetic_and_states_it(command: Callable[..., Outcome], tmp_path: Path) -> None:
    """The recipe's recurrences run through "reference"; "auto" rounds otherwise."""
    run = tmp_path / "run"
    command("train", "digits", *SHORT, f"run.output={run}", "precision=bf16")
    trained = json.loads((run / "summary.json").read_text())["final"]

    def measured(*arguments: object) -> tuple[str, str, float]:
        result = json.loads(command("eval", *arguments, "--json").out)
        return result["precision"], result["implementation"], result["cross_entropy"]

    in_run = ("bf16", "reference", pytest.approx(trained["val_loss"], rel=1e-9))
    assert measured(run) == in_run
    for file in ("best.safetensors", "checkpoints/last.pt"):
        assert measured(run / file, "--data", "digits", "--batch-size", 64) == in_run
    precision, implementation, loss = measured(run, "--precision", "fp32")
    assert (precision, implementation) == ("fp32", "reference")
    assert loss != trained["val_loss"]
    moved = tmp_path / "moved.safetensors"
    (run / "best.safetensors").rename(moved)
    found = measured(moved, "--data", "digits", "--batch-size", 64)
    assert found == ("fp32", "auto", pytest.approx(loss, rel=1e-5))


def test_an_implementation_that_the_device_lacks_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    run.mkdir()
    config = resolve("digits", ["model.overrides.implementation=triton", f"run.output={run}"], None)
    write_config(run, config)
    model = create_model("sequencer2d_n", depths=(1, 1, 1, 1), implementation="reference")
    assert take_implementation(model, run, torch.device("cpu"), say=True) == model.config.implementation == "auto"
    assert "through triton, which needs cuda" in capsys.readouterr().err


def test_the_demo_trains_predicts_and_draws(
    command: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ship_nothing(monkeypatch)
    outcome = command("demo", *SHORT)
    assert "test accuracy" in outcome.out
    folder = Path("runs/demo")
    assert len(list((folder / "images").glob("*.png"))) == 32
    for name in ("curves.png", "predictions.png"):
        assert str(folder / name) in outcome.out
        with Image.open(folder / name) as picture:
            assert len(picture.convert("L").getcolors()) > 10, f"{name} is blank"
    assert "the model of digits, which has seen no photo" in outcome.out
    for name in ("china.gif", "flower.gif"):
        assert str(folder / "photos" / name) in outcome.out
        with Image.open(folder / "photos" / name) as film:
            assert film.n_frames > 10, "the states run"
    command("predict", folder, folder / "images", "--top", 1, "--json")


def test_the_model_that_comes_with_the_package_names_the_demos_photos(
    command: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ship(tmp_path, monkeypatch)
    outcome = command("demo", *SHORT)
    assert "the states of the model that comes with the package" in outcome.out
    (line,) = (line for line in outcome.out.splitlines() if line.startswith("  china.jpg: "))
    assert sum(name in line for name in WORDS) == 3


def test_names_that_are_not_utf8_survive_training_evaluation_and_export(
    command: Callable[..., Outcome], tmp_path: Path
) -> None:
    names = ("a\x1b[31m", "caf\udce9", "two\nlines")
    for split in ("train", "val"):
        for number, name in enumerate(names):
            folder = tmp_path / "root\udcff" / split / name
            folder.mkdir(parents=True)
            for image in range(4):
                Image.new("RGB", (8, 8), (80 * number, 60 * image, 0)).save(folder / f"{image}.png")
    run = tmp_path / "run"
    data = ("data.source=folder", f"data.root={tmp_path}/root\udcff", "data.batch_size=6", f"run.output={run}")
    command("train", "digits", *SHORT, *data)
    assert json.loads(command("eval", run, "--json").out)["class_names"] == list(names)
    if importlib.util.find_spec("onnxscript"):
        command("export", run, "--format", "onnx", "--output", tmp_path / "m.onnx")
        rows = json.loads(command("predict", tmp_path / "m.onnx", tmp_path / "root\udcff", "--json").out)
        assert {guess["name"] for row in rows for guess in row["guesses"]} == set(names)


@pytest.mark.parametrize(
    "field, says",
    [
        ("model.name=sequencer_s", "no model 'sequencer_s'"),
        ("model.overrides.depths=3", "depths=3"),
        ("data.auto_augment=zzz", "data.auto_augment is 'zzz'"),
        ("optimizer.no_decay=a", "optimizer.no_decay names a"),
        ("schedule.warmup_epochs=61", "is longer than the 60 epochs"),
        ("schedule.cooldown_epochs=60", "must be below run.epochs=60"),
        ("schedule.min_lr=1", "above the highest learning rate"),
        ("data.batch_size=65", "an even number"),
        ("optimizer.lr=inf", "optimizer.lr must be"),
        ("run.epochs=1e400", "run.epochs: expected an integer"),
        ("run.output=", "run.output must be"),
        ("data.source=", "data.source must be"),
        ("model.__dict__.x=3", "unknown configuration field"),
        ("precision=fp16", "precision=fp16 needs a CUDA device"),
    ],
)
def test_a_dry_run_finds_what_cannot_train(mistake: Callable[..., str], field: str, says: str) -> None:
    assert says in mistake("train", "digits", field, "--dry-run")


def test_the_environment_of_no_launcher_is_one_line(
    mistake: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "two")
    assert "WORLD_SIZE must be an integer" in mistake("train", "digits", "--dry-run")


def test_resume_names_a_folder_with_a_run(mistake: Callable[..., str], tmp_path: Path) -> None:
    for folder, says in (("", "empty path"), (tmp_path / "nowhere", "no run")):
        for recipe in ((), ("digits",)):
            assert says in mistake("train", *recipe, "--resume", folder)
    assert not (tmp_path / "nowhere").exists()


def test_the_fields_are_listed_with_what_they_take(command: Callable[..., Outcome]) -> None:
    lines = command("train", "--fields").out.splitlines()
    at = lines.index("run.epochs = 300")
    assert lines[at + 1].strip() == "an integer, at least 1 and at most 1,000,000 epochs"
    assert lines[at + 2].strip() == "Epochs of the run, warm-up and cool-down included."
    listed = json.loads(command("train", "--fields", "--json").out)
    assert listed["run.compile"]["default"] is False
    assert "reduce-overhead" in listed["run.compile"]["takes"]
    assert listed["run.compile"]["about"].startswith('torch.compile: false, true, its mode, "blocks" or "whole".')
    assert len(listed) > 70


def test_a_path_of_spaces_is_empty_too(mistake: Callable[..., str]) -> None:
    assert "--resume names an empty path" in mistake("train", "--resume", " ")
