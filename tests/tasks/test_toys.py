"""Toy tasks go through the real training, evaluation, prediction and command line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from sequencer2d.cli.main import main
from sequencer2d.data.digits import DigitsSource
from sequencer2d.data.loader import build_loader
from sequencer2d.errors import CheckpointError, ConfigError, Interrupted
from sequencer2d.evaluation.loop import evaluate
from sequencer2d.evaluation.subject import load_checkpoint
from sequencer2d.models import load_model
from sequencer2d.tasks import TASKS, Task
from sequencer2d.training.loop import train
from tests.tasks.toys import FRAMES, STROKES, frames_of
from tests.training.conftest import configuration, equal, logged

TOYS = pytest.mark.parametrize("task", [STROKES, FRAMES], ids=lambda task: task.name)
PLAIN = {"data.mixup": 0, "data.cutmix": 0, "optimizer.accumulation": 2, "run.eval_interval": 1}


@pytest.fixture(scope="module", autouse=True)
def _rows() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for task in (STROKES, FRAMES):
            patch.setitem(TASKS, task.name, task)
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each toy."""
    folders = {task.name: tmp_path_factory.mktemp(task.name) / "run" for task in (STROKES, FRAMES)}
    for task in (STROKES, FRAMES):
        train(toy(folders[task.name], task))
    return folders


def toy(folder: Path, task: Task, **fields: Any) -> Any:
    return configuration(folder, {**PLAIN, "task": task.name} | {k.replace("__", "."): v for k, v in fields.items()})


@TOYS
def test_a_toy_task_trains_and_keeps_its_best(task: Task, tmp_path: Path) -> None:
    summary = train(toy(tmp_path / "run", task, run__epochs=6, optimizer__lr=4e-2, regularization__ema_decay=None))
    epochs = [entry for entry in logged(tmp_path / "run") if entry["kind"] == "epoch"]
    found = [entry[task.decides.key] for entry in epochs]
    best = max(found) if task.decides.higher_is_better else min(found)
    assert summary["best"][task.decides.key] == best != found[0]
    assert epochs[-1]["train_loss"] < 0.8 * epochs[0]["train_loss"]
    assert "top1" not in epochs[0]
    assert (tmp_path / "run" / "curves.png").exists()
    with safe_open(tmp_path / "run" / "best.safetensors", "pt") as file:
        meta = json.loads(file.metadata()["sequencer2d"])
    assert (meta["task"], meta["model"], meta["num_classes"]) == (task.name, "sequencer2d_n", len(meta["class_names"]))


@TOYS
def test_a_resumed_toy_run_is_that_of_an_uninterrupted_one(task: Task, runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(toy(tmp_path / "parts", task, run__max_steps=13))
    train(toy(tmp_path / "parts", task, run__resume=True, data__cache=True, data__workers=1))
    assert logged(tmp_path / "parts") == logged(runs[task.name])
    whole, parts = (torch.load(folder / "checkpoints/last.pt") for folder in (runs[task.name], tmp_path / "parts"))
    assert equal(whole["model"], parts["model"])
    with pytest.raises(ConfigError, match="task was"):
        train(toy(tmp_path / "parts", FRAMES if task is STROKES else STROKES, run__resume=True))


@TOYS
def test_a_toy_run_is_evaluated_as_it_was_in_training(
    task: Task, runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs[task.name]
    summary = json.loads((run / "summary.json").read_text())
    assert main(["eval", str(run), "--json", "--device", "cpu"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found[task.decides.field] == pytest.approx(summary["best"][task.decides.key], rel=1e-6)
    assert found["count"] == 355
    assert main(["eval", str(run), "--per-class", "--device", "cpu"]) == 0
    table = capsys.readouterr().out
    assert task.decides.label in table
    assert task.decides.show(found[task.decides.field]) in table
    assert ("paper" in table) == (task is STROKES)
    lines = [line.split() for line in table.splitlines()]
    assert lines[0][0] == "model"
    assert ["images", "355"] in lines
    assert ["precision", "fp32"] in lines


@TOYS
def test_parts_of_a_toys_data_make_the_result_of_the_whole(task: Task) -> None:
    data = configuration(Path("unused"), PLAIN).data
    model = task.build(tiny_backbone, 2).eval()
    whole = evaluate(model, build_loader(data, train=False, samples=task.samples), task, device="cpu")
    states = []
    for rank in range(2):
        loader = build_loader(data, train=False, samples=task.samples, rank=rank, world_size=2)
        meter = task.meter(loader.class_names, None)
        with torch.inference_mode():
            for images, targets in loader:
                meter.add(task.infer(model, loader.normalize(images), targets), targets)
        states.append(meter.state())
    assert task.meter(loader.class_names, None).result(states, 0) == whole


def tiny_backbone(**options: Any) -> Any:
    from sequencer2d.models import create_model
    from tests.training.conftest import TINY

    torch.manual_seed(0)
    return create_model("sequencer2d_n", img_size=8, **TINY["model.overrides"], **options)  # type: ignore[arg-type]


@TOYS
def test_a_toy_run_predicts_and_draws(
    task: Task, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, photos = runs[task.name], tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        DigitsSource("test")[number][0].resize((40 + 8 * number, 32)).save(photos / f"{number}.png")
    arguments = ("predict", str(run), str(photos), "--device", "cpu")
    assert main([*arguments, "--json", "--pictures", str(tmp_path / "drawn")]) == 0
    rows = json.loads(capsys.readouterr().out)
    if task is STROKES:
        assert all(sum(row["shares"].values()) == pytest.approx(1) for row in rows)
    else:
        assert all(0 <= row["boxes"][0][0] <= 40 + 8 * number for number, row in enumerate(rows))
    drawn = sorted((tmp_path / "drawn").iterdir())
    assert [path.name for path in drawn] == ["0-0.png", "1-1.png", "2-2.png"]
    for number, path in enumerate(drawn):
        with Image.open(path) as picture, Image.open(photos / f"{number}.png") as photo:
            assert picture.size == photo.size == (40 + 8 * number, 32)
    assert main(list(arguments)) == 0
    table = capsys.readouterr().out
    assert all(name in table for name in (*task.columns, "1.png"))


def test_boxes_are_scaled_to_the_file(tmp_path: Path) -> None:
    (frame,) = frames_of(torch.tensor([[2.0, 4.0, 6.0, 8.0]]), [(16, 80)], ("digit",), 5)
    assert frame.box == (20.0, 8.0, 60.0, 16.0)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("data.mixup", 0.2, "data.mixup=0 data.cutmix=0"),
        ("data.batch_policy", "rand", "data.batch_policy="),
        ("data.augment_on", "device", "data.augment_on=workers"),
        ("data.resampler", "torch", "data.resampler=pillow"),
    ],
)
def test_what_only_classes_of_images_take_is_refused(field: str, value: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"not for task=strokes: set {says}"):
        train(configuration(tmp_path / "run", {**PLAIN, "task": "strokes", field: value}))


def test_a_task_that_is_not_known_is_named(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="unknown task 'stroke'; did you mean strokes"):
        train(configuration(tmp_path / "run", {**PLAIN, "task": "stroke"}))
    with pytest.raises(CheckpointError, match="a model for strokes, not a classifier"):
        load_model(runs["strokes"])
    monkeypatch.delitem(TASKS, "strokes")
    with pytest.raises(CheckpointError, match="unknown task 'strokes'"):
        load_checkpoint(runs["strokes"])


def test_analyses_take_classifiers(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "photo.png")
    arguments = ("--images", str(tmp_path), "--output", str(tmp_path), "--device", "cpu")
    assert main(["analyze", "memory", str(runs["strokes"]), *arguments]) == 2
    assert "is a model for strokes; analyze takes classifiers" in capsys.readouterr().err
