"""What the other verbs choose and print, with values known by hand."""

import argparse
import contextlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sequencer2d.cli import (
    demo,
    evaluate,
    models,
    pack,
    predict,
    similar,
    train,
)
from sequencer2d.cli.analyze import paper
from sequencer2d.data.packed.writing import Packed
from sequencer2d.errors import DataError, InputError
from sequencer2d.evaluation.features import Features
from sequencer2d.evaluation.resolution import ResolutionResult
from sequencer2d.training.config import TrainConfig
from sequencer2d.training.runfiles import write_config
from tests.cli.asking import words
from tests.training.conftest import configuration

Out = pytest.CaptureFixture[str]
CONFIG = TrainConfig()


@pytest.mark.parametrize(
    ("cell", "axes", "both_ways", "fusion", "signs"),
    [
        ("lstm", "both", True, "concat", "lstm ↓↑→← concat"),
        ("lstm", "both", False, "concat", "lstm ↓→ concat"),
        ("lstm", "vertical", True, "add", "lstm ↓↑ add"),
        ("rnn", "horizontal", True, "add", "rnn →← add"),
        ("gru", "flatten", True, "none", "gru flat →← unfused"),
    ],
)
def test_the_mixer_of_a_model_in_a_few_signs(cell: str, axes: str, both_ways: bool, fusion: str, signs: str) -> None:
    config = SimpleNamespace(cell=cell, axes=axes, bidirectional=both_ways, fusion=fusion)
    assert models._mixer(config) == signs


def test_the_table_of_models(capsys: Out) -> None:
    row = models.describe_model("sequencer2d_s", 224)
    assert row == {
        "name": "sequencer2d_s", "parameters": 27_651_688, "macs": row["macs"], "size": 224,
        "strides": [7, 14, 14, 14], "blocks": [4, 3, 8, 3], "channels": [192, 384, 384, 384],
        "hidden": [48, 96, 96, 96], "mixer": "lstm ↓↑→← concat",
    }  # fmt: skip
    models._print_table([row], "GMACs", ("size", "strides"))
    _, line = capsys.readouterr().out.splitlines()
    assert words(line) == ["sequencer2d_s", "27.65 M", f"{row['macs'] / 1e9:.2f}", "224", "7 14 14 14", row["mixer"]]
    peer = models.describe_peer("gfnet_h_s")
    assert (peer["size"], type(peer["strides"]), type(peer["blocks"]), type(peer["channels"])) == (
        224,
        list,
        list,
        list,
    )


def test_shards_are_shown_in_gb(capsys: Out) -> None:
    pack._print([Packed("train", 1234, 5, 1_234_000_000)])
    assert words(capsys.readouterr().out.splitlines()[1]) == ["train", "1,234", "5", "1.23"]


def test_shards_hold_a_million_bytes_for_each_mb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sequencer2d.data.packed import writing as packing

    given: dict[str, Any] = {}
    monkeypatch.setattr(packing, "open_splits", lambda folder: {})
    monkeypatch.setattr(packing, "pack", lambda *_, **named: given.update(named) or [])
    pack.run(argparse.Namespace(folder=tmp_path / "a", output=tmp_path / "b", shard_mb=3))
    assert given["shard_bytes"] == 3_000_000
    for inside in (tmp_path / "a", tmp_path / "a" / "b"):
        with pytest.raises(DataError, match="would be taken for a class"):
            pack.run(argparse.Namespace(folder=tmp_path / "a", output=inside, shard_mb=3))


def features(*paths: str) -> Features:
    vectors = np.array([[1, 0], [0.6, 0.8], [0, 1], [-1, 0]], np.float32)[: len(paths)]
    return Features(vectors, paths, "m", "w")


def test_neighbors_are_the_nearest_but_not_the_image_itself(capsys: Out) -> None:
    ((path, pairs),) = similar._neighbors(features("x/../a"), features("a", "b", "c", "d"), 2)
    assert (path, [name for name, _ in pairs]) == ("x/../a", ["b", "c"])
    assert [value for _, value in pairs] == pytest.approx([0.6, 0], abs=1e-6)
    ((_, pairs),) = similar._neighbors(features("new"), features("a", "b", "c", "d"), 2)
    assert [name for name, _ in pairs] == ["a", "b"]
    similar._print([("q", [("a", 0.98765), ("b", 0.5)]), ("r", [("c", -0.25)])])
    lines = [words(line) for line in capsys.readouterr().out.splitlines()[1:]]
    assert lines == [["q", "a", "0.988"], ["b", "0.500"], ["r", "c", "-0.250"]]


def test_images_or_a_file_of_features_are_searched(tmp_path: Path) -> None:
    (tmp_path / "x.npz").touch()
    (tmp_path / "x.csv").touch()
    for found in (tmp_path, tmp_path / "x.npz"):
        similar._check_among(argparse.Namespace(among=str(found)))
    for wrong in ("x.csv", "none.npz"):
        with pytest.raises(DataError, match="expected a folder of images"):
            similar._check_among(argparse.Namespace(among=str(tmp_path / wrong)))


def test_predictions_that_are_all_broken_say_how_many_more() -> None:
    broken: Any = SimpleNamespace(path="a", error="no image", found=None)
    fine: Any = SimpleNamespace(path="b", error="", found=object())
    assert predict._report_broken([fine, broken]) == 0
    for count, more in ((1, ""), (3, r" \(and 2 more\)")):
        with pytest.raises(InputError, match=f"a: no image{more}$"):
            predict._report_broken([broken] * count)


def test_pictures_are_numbered_with_as_many_digits_as_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    from sequencer2d.evaluation import predict as evaluation

    monkeypatch.setattr(evaluation, "picture_of", lambda *_: Image.new("RGB", (2, 2)))
    one: Any = SimpleNamespace(path="x/photo.jpg", found=object())
    config: Any = None
    with predict._pictures(tmp_path / "new", config, 10) as draw:
        draw(one)
        draw(SimpleNamespace(path="x/bad.jpg", found=None))  # type: ignore[arg-type]
        draw(one)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["00-photo.png", "02-photo.png"]


def test_the_precision_of_a_run_is_evals_but_for_fp16_on_a_cpu(tmp_path: Path) -> None:
    cpu = torch.device("cpu")

    def chosen(said: str | None, run: str | None) -> tuple[str, bool]:
        if run:
            write_config(tmp_path, configuration(tmp_path, {"precision": run}))
        told = argparse.Namespace(precision=said, checkpoint=str(tmp_path if run else tmp_path / "none"))
        precision, block = evaluate.choose_precision(told, cpu)
        return precision, isinstance(block, contextlib.nullcontext)

    assert chosen(None, None) == ("fp32", True)
    assert chosen("bf16", "fp32") == ("bf16", True)
    assert chosen(None, "bf16") == ("bf16", False)
    assert chosen(None, "fp16") == ("fp32", False)


def test_a_recurrence_runs_as_in_its_run_where_the_device_can(tmp_path: Path, capsys: Out) -> None:
    cpu = torch.device("cpu")
    for named, runs in (("aten", "aten"), ("triton", "auto"), ("cudnn", "auto"), ("reference", "reference")):
        overrides = {"model.overrides": {"implementation": named}}
        write_config(tmp_path, configuration(tmp_path, overrides))
        set_: list[str] = []
        model = SimpleNamespace(set_implementation=set_.append)
        assert evaluate.take_implementation(model, tmp_path, cpu, say=True) == runs
        assert set_ == [runs]
        assert ("which needs cuda" in capsys.readouterr().err) == (runs == "auto")
        evaluate.take_implementation(model, tmp_path, cpu, say=False)
        assert capsys.readouterr().err == ""
    assert evaluate.take_implementation(model, tmp_path / "none", cpu, say=True) == "auto"
    assert evaluate.take_implementation(object(), tmp_path, cpu, say=True) is None


def test_the_end_of_a_training_is_one_line(capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "launch", lambda: SimpleNamespace(rank=0))
    summary = {"duration_s": 90.0, "final": {"top1": 12.5}, "best": {"top1": 50.0, "epoch": 3}}
    train._report(CONFIG, summary)
    said = capsys.readouterr().err
    assert said.startswith("done in 1.5 min: ")
    assert "12.50 % after the last epoch, 50.00 % after epoch 3 (best.safetensors); everything is in" in said
    train._report(CONFIG, {**summary, "best": {}})
    assert "after the last epoch; everything" in capsys.readouterr().err
    monkeypatch.setattr(train, "launch", lambda: SimpleNamespace(rank=1))
    train._report(CONFIG, summary)
    assert capsys.readouterr().err == ""


def test_the_demo_says_how_it_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/x/pytest"])
    assert demo._command() == "python -m sequencer2d"
    program = tmp_path / "a b" / "sequencer2d"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(program)])
    monkeypatch.setenv("PATH", "")
    assert demo._command() == f"'{program}'"
    monkeypatch.setenv("PATH", str(program.parent))
    assert demo._command() == "sequencer2d"


def test_the_demo_counts_digits_that_are_right(tmp_path: Path, capsys: Out) -> None:
    (tmp_path / "summary.json").write_text('{"final": {"top1": 90.126}, "best": {"top1": 95.5}}')
    guesses: Any = [
        SimpleNamespace(found=SimpleNamespace(guesses=[SimpleNamespace(name=name), SimpleNamespace(name="7")]))
        for name in "123"
    ]
    demo._report(tmp_path, guesses, ["1", "7", "3"], 61.6)
    said = capsys.readouterr().out
    assert "test accuracy 90.13 % after the last epoch, 95.50 % after the best" in said
    assert "2 of the 3 digits drawn are right; 62 s in all" in said


def test_rows_of_figure_3_have_their_units() -> None:
    result = ResolutionResult("m", 32, np.asarray([16, 32]), np.asarray([0.25, 0.5]), 9, {})
    rows = paper._rows([result], {"m": [(16, 100.4)]}, {"m": [(16, 99.5)]})
    assert [(row["size"], row["quantity"], row["value"]) for row in rows] == [
        (16, "top-1, %", 25), (32, "top-1, %", 50), (16, "relative, %", 50), (32, "relative, %", 100),
        (16, "peak memory, MiB", 100), (16, "images/s", 99.5),
    ]  # fmt: skip
    assert {row["model"] for row in rows} == {"m"}
    assert type(rows[0]["size"]) is int
