"""`sequencer2d analyze figure1 | figure3`: one command each, from published numbers and measured ones."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sequencer2d.benchmark import timing
from sequencer2d.models import create_model, save_weights
from sequencer2d.models.variants import VARIANTS, model_config

SMALL = "sequencer2d_small"
ROW = model_config(
    "sequencer2d_n", depths=(1, 1), dims=(16, 16), hidden_dims=(4, 4), patch_sizes=(2, 2), img_size=(8, 8)
)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of a small variant, for the digits."""
    monkeypatch.setitem(VARIANTS, SMALL, ROW)
    measure = inspect.unwrap(timing.measure)
    monkeypatch.setattr(measure, "__kwdefaults__", {**measure.__kwdefaults__, "warmup_s": 0.01})
    monkeypatch.setattr(timing, "ceilings", lambda device, **_: {"copy_tb_per_s": 1.0})
    torch.manual_seed(0)
    model = create_model(SMALL, num_classes=10)
    model.head.fc.weight.data.normal_()
    path = tmp_path / "small.safetensors"
    save_weights(model, path, {"class_names": [str(digit) for digit in range(10)]})
    return path


def test_figure_1_joins_published_and_evaluated_models(
    command: Callable[..., Any], small: Path, tmp_path: Path
) -> None:
    evaluated = command("eval", small, "--data", "digits", "--json", "data.workers=0")
    (tmp_path / "s.json").write_text(evaluated.out, encoding="utf-8")
    made = command("analyze", "figure1", "--accuracy", tmp_path / "s.json", "--output", tmp_path / "out", "--json")
    rows = json.loads(made.out)
    assert len(rows) == 24
    (own,) = [row for row in rows if row["source"] == "measured"]
    assert own["model"] == f"{SMALL} at 8²"
    assert own["top-1, %"] == json.loads(evaluated.out)["top1"]
    parameters = sum(p.numel() for p in create_model(SMALL, num_classes=10).parameters())
    assert own["parameters, M"] == pytest.approx(parameters / 1e6)
    figures = {f"figure1.{name}" for name in ("pdf", "svg", "png")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*figures, "models.json"}


def test_figure_3_measures_what_is_not_given(command: Callable[..., Any], small: Path, tmp_path: Path) -> None:
    options = ("--device", "cpu", "--batch-size", "2", "--output", tmp_path, "--formats", "png", "--json")
    data = ("--data", "digits", "--limit", "50", "--seconds", "0.01")
    made = command("analyze", "figure3", small, *data, *options)
    rows = json.loads(made.out)
    accuracy = {row["size"]: row["value"] for row in rows if row["quantity"] == "top-1, %"}
    assert 8 in accuracy
    assert all(0 <= value <= 100 for value in accuracy.values())
    relative = {row["size"]: row["value"] for row in rows if row["quantity"] == "relative, %"}
    assert relative[8] == 100
    speed = json.loads((tmp_path / "figure3-speed.json").read_text(encoding="utf-8"))
    assert [(row["size"], row["form"], row["dtype"], row["batch"]) for row in speed["rows"]] == [
        (size, "paper", "fp32", 2) for size in (8, 16, 24, 32)
    ]
    assert [row["size"] for row in rows if row["quantity"] == "images/s"] == [8, 16, 24, 32]
    assert (tmp_path / "figure3.png").read_bytes().startswith(b"\x89PNG")
    given = ("--speed", tmp_path / "figure3-speed.json", *options)
    again = json.loads(command("analyze", "figure3", *given, "--name", "again").out)
    assert again == [row for row in rows if row["quantity"] == "images/s"]


def test_speed_is_measured_of_variants_only(mistake: Callable[..., str], tiny: Path, tmp_path: Path) -> None:
    said = mistake("analyze", "figure3", tiny, "--device", "cpu", "--output", tmp_path)
    assert "differs from sequencer2d_n in depths, dims" in said
    assert "analyze resolution" in said


def test_a_result_without_the_batch_is_a_mistake(
    mistake: Callable[..., str], command: Callable[..., Any], small: Path, tmp_path: Path
) -> None:
    path = tmp_path / "speed.json"
    bench = ("--device", "cpu", "--models", SMALL, "--batch", "1", "--size", "8", "--seconds", "0.01", "--output", path)
    command("bench", *bench)
    assert "no rate in inference with 16 images" in mistake("analyze", "figure3", "--speed", path)


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "[1",
        '{"top1": 3}',
        '{"model": "m", "image_size": [], "top1": 3}',
        '{"model": "m", "image_size": [8, 8], "top1": null}',
        '{"model": "m", "image_size": [8, 8], "top1": 3, "parameters": "1"}',
    ],
)
def test_a_file_that_eval_did_not_write_is_a_mistake(mistake: Callable[..., str], tmp_path: Path, content: str) -> None:
    (tmp_path / "s.json").write_text(content, encoding="utf-8")
    assert "give what `sequencer2d eval MODEL --json` wrote" in mistake(
        "analyze", "figure1", "--accuracy", tmp_path / "s.json", "--output", tmp_path / "out"
    )


@pytest.mark.parametrize("rows", ["1", "[1]", '[{"size": "x"}]', '{"size": 8}'])
def test_a_file_that_bench_did_not_write_is_a_mistake(mistake: Callable[..., str], tmp_path: Path, rows: str) -> None:
    (tmp_path / "speed.json").write_text(f'{{"device": {{}}, "versions": {{}}, "rows": {rows}}}', encoding="utf-8")
    said = mistake("analyze", "figure3", "--speed", tmp_path / "speed.json")
    assert "its rows lack fields or hold other types" in said
