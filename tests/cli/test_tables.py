"""What `compare`, `data` and `bench` print of values known by hand."""

import argparse
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sequencer2d import tasks
from sequencer2d.cli import common, compare, data
from sequencer2d.cli.bench import artifacts, feed, planning
from sequencer2d.data.survey import ImageFacts, Survey
from sequencer2d.errors import ConfigError, InputError
from sequencer2d.training.config import TrainConfig
from tests.cli.asking import words

Out = pytest.CaptureFixture[str]
CONFIG = TrainConfig()


def entry(epoch: float, time_s: float | None = None, **metrics: float) -> dict[str, Any]:
    return {"kind": "epoch", "epoch": epoch, "train_loss": 2.0 / epoch, "time_s": time_s, **metrics}


def test_a_run_is_a_row_of_what_it_has_reached() -> None:
    log = [
        {"kind": "step"},
        entry(1, 60, top1=50.0, val_loss=1.5),
        entry(2, 126, top1=40.0, val_loss=1.25),
        entry(3, 189),
    ]
    row = compare._row(compare.Run(Path("a"), CONFIG, {}, log), "top1")
    assert row == {
        "run": "a", "model": CONFIG.model.name, "parameters": None, "epochs": 3, "of": CONFIG.run.epochs,
        "best_top1": 50, "best_epoch": None, "final_top1": 40, "train_loss": 2 / 3, "val_loss": 1.25, "minutes": 3.1,
        "device": None,
    }  # fmt: skip
    summary = {"best": {"top1": 60.0, "epoch": 7}, "parameters": 5, "device": "cpu"}
    row = compare._row(compare.Run(Path("a"), CONFIG, summary, []), "top1")
    assert (row["best_top1"], row["best_epoch"], row["parameters"], row["device"]) == (60, 7, 5, "cpu")
    assert (row["epochs"], row["final_top1"], row["train_loss"], row["val_loss"]) == (0, None, None, None)
    assert row["minutes"] is None
    assert compare._row(compare.Run(Path("a"), CONFIG, {}, [entry(1)]), "top1")["minutes"] is None


def test_numbers_that_a_run_has_not_reached_are_dashes(capsys: Out) -> None:
    metric = tasks.CLASSIFICATION.decides
    run = compare.Run(Path("a"), CONFIG, {}, [])
    full = {"best": {"top1": 60.0, "epoch": 7}, "parameters": 27_654_321}
    log = [entry(2, 90, top1=12.345, val_loss=1.23456)]
    compare._print([compare._row(run, "top1"), compare._row(replace(run, summary=full, log=log), "top1")], metric)
    _, first, second = capsys.readouterr().out.splitlines()
    epochs, name = CONFIG.run.epochs, CONFIG.model.name
    assert words(first) == ["a", name, "–", f"0 of {epochs}", "–", "–", "–", "–"]
    assert words(second) == ["a", name, "27.65 M", f"2 of {epochs}", "60.00 %", "12.35 %", "1.2346", "1.5"]


def test_every_run_that_is_compared_is_another_one(tmp_path: Path) -> None:
    a, b = tmp_path, tmp_path.parent
    compare._check_runs(argparse.Namespace(runs=[a, b]))
    for same in ([a], [a, a], [a, b, a], [a, a / ".." / a.name]):
        with pytest.raises(ConfigError, match="two different runs"):
            compare._check_runs(argparse.Namespace(runs=same))


def test_what_a_paired_test_says(monkeypatch: pytest.MonkeyPatch) -> None:
    right = {"a": [1, 1, 0, 0, 1], "b": [1, 0, 1, 1, 1]}
    monkeypatch.setattr(compare, "_source", lambda _: object())
    monkeypatch.setattr(compare, "_why_not", lambda first, other, source: "")
    monkeypatch.setattr(compare, "_outcomes", lambda one, *_: np.array(right[one.folder.name], bool))
    (test,) = compare._tests([compare.Run(Path(name), CONFIG, {}, []) for name in "ab"], "cpu")
    assert (test["images"], test["right"], test["only_first"], test["only_second"]) == (5, [4, 3], 1, 2)
    assert test["p"] == 1.0
    assert test["said"].startswith("b against a on 5 images: 80.0 % (95 %")
    assert test["said"].endswith("right alone: 2 against 1 images; McNemar's p = 1")
    monkeypatch.setattr(compare, "_outcomes", lambda *_: "no weights")
    (test,) = compare._tests([compare.Run(Path(name), CONFIG, {}, []) for name in "ab"], "cpu")
    assert test["said"] == "b against a: not tested: no weights"


# data


def facts(name: str, split: str = "", **fields: Any) -> ImageFacts:
    fields = {"size": (30, 20), "mode": "RGB", "format": "PNG", "digest": os.urandom(8), "spread": 9.0, **fields}
    return ImageFacts(f"{split}/{name}/{len(fields)}", split, name, **fields)


def test_classes_and_sizes_of_a_folder_are_counted(capsys: Out) -> None:
    one = [facts("a"), facts("a", size=(40, 50)), facts("a", error="x"), facts("b", mode="L", size=(50, 20))]
    found = Survey(Path("p"), ("",), tuple(one))
    data._print_counts(found)
    data._print_sizes(found)
    _, line, classes, sizes, modes, formats = capsys.readouterr().out.splitlines()
    assert words(line) == ["(none)", "4", "2", "1 to 3, median 2", "1"]
    assert classes == "classes: a 3, b 1"
    assert sizes == "sizes: 40×20 pixels (median); shorter sides 20 to 40 pixels"
    assert (modes, formats) == ("modes: RGB 2 (66.7%), L 1 (33.3%)", "formats: PNG 3 (100.0%)")
    data._print_sizes(Survey(Path("p"), ("",), (facts("a", error="x"),)))
    assert capsys.readouterr().out == ""


def test_more_than_20_classes_are_the_5_largest_and_the_5_smallest(capsys: Out) -> None:
    for count in (20, 21):
        images = [facts(f"c{number:02d}") for number in range(count) for _ in range(30 - number)]
        data._print_counts(Survey(Path("p"), ("",), tuple(images)))
        names = capsys.readouterr().out.splitlines()[2].removeprefix("classes: ").split(", ")
        assert len(names) == (20 if count == 20 else 11)
    assert names[0] == "c00 30"
    assert names[4:7] == ["c04 26", "…", "c16 14"]
    assert names[-1] == "c20 10"


def test_splits_are_counted_each_for_itself(capsys: Out) -> None:
    images = (facts("a", "train"), facts("a", "train"), facts("b", "train"), facts("b", "train"), facts("a", "val"))
    data._print_counts(Survey(Path("p"), ("train", "val"), images))
    _, train_, val, classes = capsys.readouterr().out.splitlines()
    assert (words(train_), words(val)) == (["train", "4", "2", "2", "0"], ["val", "1", "1", "1", "0"])
    assert classes == "classes: a 2, b 2"


def test_a_list_shows_5_lines_and_how_many_more_there_are(capsys: Out) -> None:
    for count, more in ((5, ""), (6, "\n  … 1 more: --json lists them all")):
        data._list("head", [str(number) for number in range(count)])
        assert capsys.readouterr().out == "head:\n  " + "\n  ".join("01234") + more + "\n"
    data._list("head", [])
    assert capsys.readouterr().out == ""


def test_samples_are_those_of_the_first_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sequencer2d.analysis import samples

    drawn: list[Any] = []
    monkeypatch.setattr(samples, "draw_samples", lambda *given, **named: drawn.append((*given, named)))
    images = (facts("a", "train"), facts("a", "train"), facts("b", "val"), facts("b", "train", error="x"))
    data._draw(Survey(tmp_path / "p", ("train", "val"), images), tmp_path / "x.png")
    ((classes, path, named),) = drawn
    assert classes == {"a": [images[0].path, images[1].path]}
    assert (path, named) == (tmp_path / "x.png", {"title": "p/train: 2 images of 1 class"})
    with pytest.raises(InputError, match="no image can be read"):
        data._draw(Survey(tmp_path, ("",), (facts("a", error="x"),)), tmp_path / "x.png")


# bench


def bench_input(*argv: str) -> TrainConfig:
    parser = argparse.ArgumentParser()
    feed.add_parser(parser)
    return feed.resolve(parser.parse_args(argv))


def test_a_process_takes_256_images_or_fewer_where_the_recipe_does_or_as_many_as_it_is_told() -> None:
    assert bench_input("imagenet_s").data.batch_size == 256
    assert bench_input("imagenet_s", "data.batch_size=16").data.batch_size == 16
    assert bench_input("imagenet_s", "--batch", "512").data.batch_size == 512
    assert bench_input("data.image_size=32").data.size == (32, 32)
    assert bench_input("digits", "--workers", "3").data.workers == 3
    assert bench_input("digits", "data.workers=5").data.workers == 5


def test_the_cores_that_a_training_step_needs(capsys: Out) -> None:
    loader = {"part": "loader", "ms_per_image": 4.0, "images_per_s": 1000.0, "workers": 4}
    step = {"part": "training step", "ms_per_image": 0.5, "images_per_s": 2000.0, "where": "cuda"}
    feed._conclude([loader])
    assert capsys.readouterr().err == ""
    feed._conclude([loader, step])
    said = capsys.readouterr().err
    assert said.startswith("the model waits for images: its step takes 2,000 images/s")
    assert said.endswith("for which the input needs 8.0 cores\n")
    feed._conclude([loader, {**step, "images_per_s": 1000.0}])
    assert capsys.readouterr().err.startswith("the input keeps up")
    common.console().print(feed._table([loader, step, {**step, "part": "crop", "where": "core"}]))
    _, first, second, third = capsys.readouterr().out.splitlines()
    assert words(first) == ["loader", "4 processes", "4.000", "1,000"]
    assert words(second)[1:] == ["one cuda", "0.500", "2,000"]
    assert words(third)[1] == "one core"


def test_times_of_artifacts_stand_in_their_columns(capsys: Out) -> None:
    row = {"path": "m.onnx", "format": "onnx", "precision": "fp32", "batch": 2, "size": (16, 24)}
    common.console().print(artifacts._table([{**row, "images_per_s": 1234.56, "latency_ms": 1.23456}]))
    assert words(capsys.readouterr().out.splitlines()[1]) == [
        "m.onnx",
        "onnx",
        "fp32",
        "2",
        "16×24",
        "1,234.6",
        "1.235",
    ]


def test_parts_take_whole_workloads_if_there_are_enough() -> None:
    cases: Any = [
        SimpleNamespace(name=f"{model}{batch}", mode="training", dtype="fp32", batch=batch, size=32)
        for model in "ab" for batch in (1, 2, 3)
    ]  # fmt: skip

    def part(index: int, count: int) -> list[str]:
        return [case.name for case in planning.shard_of(cases, (index, count))]

    assert [case.name for case in planning.shard_of(cases, None)] == ["a1", "a2", "a3", "b1", "b2", "b3"]
    assert (part(1, 2), part(2, 2)) == (["a1", "a3", "b1", "b3"], ["a2", "b2"])
    assert part(3, 3) == ["a3", "b3"]
    assert (part(1, 4), part(4, 4)) == (["a1", "b2"], ["b1"])
