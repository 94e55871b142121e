"""What verbs pass on to the layers below: options of a task, first weights, sizes, limits."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sequencer2d.cli import evaluate, finetune, predict, probe, similar, verbs
from sequencer2d.cli.analyze import common, pages, robust
from sequencer2d.errors import ConfigError
from sequencer2d.evaluation import resolution
from sequencer2d.evaluation.features import Features
from sequencer2d.evaluation.resolution import ResolutionResult
from tests.cli.conftest import save_tiny

Out = pytest.CaptureFixture[str]


# Options of a task


def test_options_that_were_given_reach_the_tasks_inference() -> None:
    from sequencer2d import tasks

    segment = verbs.TASK_VERBS[0]
    parser = argparse.ArgumentParser()
    segment.add_options(parser)
    task = tasks.get("segmentation")
    assert segment.with_options(task, parser.parse_args([])) is task
    seen: dict[str, Any] = {}
    told = parser.parse_args(["--window", "64", "--scales", "0.5,1", "--flip"])
    assert vars(told) == {"window": 64, "scales": (0.5, 1), "flip": True}

    def inference(**given: Any) -> Any:
        seen.update(given)
        return task.infer

    assert segment.with_options(replace(task, inference=inference), told).infer is task.infer
    assert seen == {"window": 64, "scales": (0.5, 1), "flip": True}


def test_a_verb_of_a_task_has_its_own_words_and_the_verbs_notes() -> None:
    detect = verbs.TASK_VERBS[1]
    words = detect.describe("eval", "s", "d", "examples:\n  x\n\nnotes\n\nmore")
    assert words["help"] == "measure COCO's average precision on a data set"
    assert words["description"] == "Measure COCO's average precision on a data set."
    assert words["epilog"].startswith("examples:\n  sequencer2d detect eval runs/bccd --split test --per-class\n")
    assert words["epilog"].endswith("--json\n\nnotes\n\nmore")
    assert detect.describe("eval", "s", "d", "examples:\n  x")["epilog"].endswith("--json")
    assert verbs.EVERY_TASK.describe("eval", "s", "d", "e") == {"help": "s", "description": "d", "epilog": "e"}


# predict


def test_a_command_line_that_begins_with_images_takes_the_shipped_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sequencer2d.models import shipped

    monkeypatch.setattr(shipped, "default_model", lambda: "shipped")

    def chosen(*words: str) -> tuple[str, list[str]]:
        told = argparse.Namespace(checkpoint=words[0] if words else None, images=list(words[1:]))
        predict.choose_model(told)
        return told.checkpoint, told.images

    run, photos = tmp_path / "run", tmp_path / "photos"
    run.mkdir()
    photos.mkdir()
    save_tiny(run / "best.safetensors")
    assert chosen("m.safetensors", "a.png") == ("m.safetensors", ["a.png"])
    assert chosen("a.png", "b.jpg") == ("shipped", ["a.png", "b.jpg"])
    assert chosen("a.png") == ("shipped", ["a.png"])
    assert chosen(str(photos)) == ("shipped", [str(photos)])
    assert chosen(str(photos), "a.png") == (str(photos), ["a.png"])
    for words in ((), ("m.safetensors",), (str(run),)):
        with pytest.raises(ConfigError, match="name"):
            chosen(*words)


# eval


def test_a_result_is_a_table_of_two_columns(capsys: Out) -> None:
    result: Any = SimpleNamespace(
        count=1234, broken=2, rows=lambda: [("top-1", "50 %")], class_rows=lambda: [("cat", "25 %")],
        to_dict=lambda: {"top1": 50},
    )  # fmt: skip
    data = {"source": "folder", "root": "", "split": "val"}
    about = {"model": "m", "weights": "w.pth", "data": data, "precision": "fp32"}

    def printed(**told: bool) -> str:
        evaluate._print_result(result, argparse.Namespace(**{"json": False, "per_class": False, **told}), about)
        return capsys.readouterr().out

    rows = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in printed().splitlines()]
    assert rows == [
        ["model", "m"], ["weights", "w.pth"], ["data", "folder val"], ["images", "1,234 (2 could not be read)"],
        ["top-1", "50 %"], ["precision", "fp32"],
    ]  # fmt: skip
    assert printed(per_class=True).splitlines()[-1].split() == ["cat", "25", "%"]
    assert json.loads(printed(json=True)) == {**about, "top1": 50}
    result.broken = 0
    assert "could not be read" not in printed()


# finetune


def test_first_weights_bring_their_input_and_their_name(tiny: Path) -> None:
    scratch = finetune.find_start("scratch", head_only=False)
    assert (scratch.kind, scratch.name, scratch.fields) == ("scratch", "sequencer2d_n", {})
    start = finetune.find_start(str(tiny), head_only=False)
    assert (start.kind, start.name, start.said) == ("finetune", "sequencer2d_n", f"the weights of {tiny}")
    assert start.fields["model.checkpoint"] == str(tiny)
    assert start.fields["data.image_size"] in (8, (8, 8))
    assert start.fields["model.overrides"]["dims"] in ([16, 16], (16, 16))
    assert "img_size" not in start.fields["model.overrides"]
    assert finetune.find_start(str(tiny), head_only=True).kind == "head"


@pytest.mark.parametrize(
    ("device", "load", "cores", "busy"),
    [("cpu", 6.0, 3, False), ("cpu", 6.1, 3, True), ("cuda", 0.0, 4, False)],
)
def test_a_machine_is_busy_above_one_and_a_half_processes_a_core(
    device: str, load: float, cores: int, busy: bool, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    import torch

    from sequencer2d.data import workers
    from sequencer2d.recipes import own_photos

    monkeypatch.setattr(workers, "worker_count", lambda _: 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(finetune, "_load", lambda: load)
    given: list[Any] = []
    monkeypatch.setattr(own_photos, "plan", lambda *facts, **named: given.append((facts, named)))
    folder: Any = SimpleNamespace(
        path=Path("photos"), train_split="train", val_split=None, counts=(3, 4), side=5, pixels=30
    )
    start: Any = object()
    told = argparse.Namespace(output=Path("out"), fields=["run.epochs=2"], minutes=7.0)
    finetune._plan(told, folder, start, device)
    ((photos, first, machine, _), named) = given[0]
    assert (photos.source, photos.splits, photos.counts) == (str(Path("photos").resolve()), ("train", None), (3, 4))
    assert (photos.side, photos.pixels) == (5, 30)
    assert first is start
    assert (machine.device, machine.cores, machine.busy) == (device, cores, busy)
    fields = {"run.epochs": "2", "run.output": "out"}
    assert named == {"minutes": 7.0, "output": "out", "fields": fields}
    assert ("load 6.1 on 4 cores" in capsys.readouterr().err) == busy


# similar, probe


def found(count: int) -> Features:
    """Features along two axes, alternating, named by numbers."""
    vectors = np.eye(2, dtype=np.float32)[np.arange(count) % 2] + 0.01 * np.arange(count, dtype=np.float32)[:, None]
    return Features(vectors, tuple(map(str, range(count))), "m", "w")


def test_similarities_have_four_digits_as_json(monkeypatch: pytest.MonkeyPatch, capsys: Out, images: Path) -> None:
    monkeypatch.setattr(similar, "load", lambda _: SimpleNamespace(name="m"))
    monkeypatch.setattr(similar, "compute", lambda *_: found(1))
    monkeypatch.setattr(similar, "_searched", lambda *_: found(4))
    monkeypatch.setattr(similar, "_neighbors", lambda a, b, top: [("x", [("y", 0.123456), ("z", -1 / 3)])])
    similar.run(argparse.Namespace(picture=None, images=[images], top=2, json=True))
    assert json.loads(capsys.readouterr().out) == [
        {"path": "x", "similar": [{"path": "y", "similarity": 0.1235}, {"path": "z", "similarity": -0.3333}]}
    ]


def test_a_probe_says_percent_with_bounds(monkeypatch: pytest.MonkeyPatch, capsys: Out) -> None:
    from sequencer2d.data import own_folder
    from sequencer2d.evaluation import features

    vectors, targets, truths = np.zeros((3, 7), np.float32), np.array([0, 1, 1]), np.array([1, 1, 0, 1])
    train, val = SimpleNamespace(class_names=("a", "b")), SimpleNamespace()
    monkeypatch.setattr(own_folder, "open_parts", lambda _: (train, val))
    monkeypatch.setattr(probe, "load", lambda _: SimpleNamespace(name="m"))
    parts = {id(train): (vectors, targets), id(val): (np.zeros((4, 7), np.float32), truths)}
    monkeypatch.setattr(probe, "_features", lambda subject, source, _: parts[id(source)])
    monkeypatch.setattr(features, "knn_predictions", lambda *_: np.array([1, 0, 0, 0]))
    monkeypatch.setattr(features, "linear_predictions", lambda *_: (truths, 0.1))
    told = argparse.Namespace(folder="f", neighbors=10, json=True)
    probe.run(told)
    said = json.loads(capsys.readouterr().out)
    assert {name: said[name] for name in ("model", "train", "val", "classes")} == {
        "model": "m", "train": 3, "val": 4, "classes": 2,
    }  # fmt: skip
    percent = {name: row["percent"] for name, row in said["accuracy"].items()}
    assert percent == {"3-NN": 50, "linear (C=0.1)": 100, "largest class alone": 75}
    assert said["accuracy"]["3-NN"]["interval_95"] == [15.0, 85.0], "Wilson's, of 2 in 4"
    told.json = False
    probe.run(told)
    out = capsys.readouterr().out
    assert "3-NN                 50.0 % (95 % confidence: 15.0 to 85.0)" in out
    assert "m, 7 features; 3 training and 4 validation images of 2 classes" in out


# analyze


def test_a_sweep_announces_every_size_and_the_native_one(monkeypatch: pytest.MonkeyPatch, capsys: Out) -> None:
    totals: list[int | None] = []

    class Progress:
        def __init__(self, _: str, total: int | None) -> None:
            totals.append(total)

        def __enter__(self) -> Any:
            return lambda count: None

        def __exit__(self, *_: object) -> None: ...

    refused = {64: "too large"}
    result = ResolutionResult("m", 32, np.asarray([16]), np.asarray([0.5]), 9, refused)
    monkeypatch.setattr(common, "progress", Progress)
    monkeypatch.setattr(resolution, "default_sizes", lambda _: (16, 32, 48))
    monkeypatch.setattr(resolution, "resolution_sweep", lambda *_, **__: result)
    subject: Any = SimpleNamespace(name="m", data=SimpleNamespace(size=(32, 32)))
    told = argparse.Namespace(limit=5, common_classes=False)
    for sizes in (None, (16, 64), (32,)):
        assert robust.sweep_sizes(subject, range(7), told, sizes) is result  # type: ignore[arg-type]
    assert totals == [15, 15, 5]
    assert "m does not take 64 pixels: too large" in capsys.readouterr().err


def test_a_report_takes_50_images_without_labels_at_most(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from sequencer2d.analysis import report

    given: list[dict[str, Any]] = []

    def write_report(models: Any, source: Any, path: Path, **named: Any) -> Path:
        given.append(named)
        return path

    monkeypatch.setattr(report, "write_report", write_report)
    monkeypatch.setattr(common, "source_of", lambda _: None)
    monkeypatch.setattr(common, "subjects", lambda _: [])
    for limit, split, images, data in ((200, "val", 50, "d, split val"), (20, "", 20, "d")):
        told = argparse.Namespace(
            output=tmp_path / "r.html", limit=limit, workers=2, common_classes=True, models=["timm:a"], data="d",
            split=split,
        )  # fmt: skip
        assert pages.run_report(told) == 0
        limits = given[-1]["limits"]
        assert (limits.images, limits.labeled, limits.workers) == (images, limit, 2)
        assert (given[-1]["data"], given[-1]["common_only"], given[-1]["specs"]) == (data, True, ["timm:a"])


def test_a_table_of_results_shows_three_digits_and_dashes(capsys: Out) -> None:
    common.print_rows([{"model": "m", "x, %": 12.3456, "n": 7, "none": None}])
    titles, line = capsys.readouterr().out.splitlines()
    assert titles.split("  ")[0].strip() == "model"
    assert line.split() == ["m", "12.3", "7", "–"]
    common.print_rows([{"x": 12.3456}], as_json=True)
    assert json.loads(capsys.readouterr().out) == [{"x": 12.3456}]


def test_what_outputs_are_made_from() -> None:
    assert common.models_of(argparse.Namespace(model="a")) == ["a"]
    assert common.models_of(argparse.Namespace(models=["a", "b"])) == ["a", "b"]
    assert common.made_from(argparse.Namespace(models=["a"], accuracy=["x.json"], speed="y.json")) == [
        "a", "x.json", "y.json",
    ]  # fmt: skip
    assert common.made_from(argparse.Namespace(accuracy=None)) == []
