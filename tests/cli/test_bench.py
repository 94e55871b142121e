"""`sequencer2d bench`: one command measures, a second one goes on, mistakes are one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rich.progress
import torch

from sequencer2d.benchmark import FORMS, provenance, timing
from sequencer2d.benchmark.contenders import FINE_TUNED_PEERS, PEERS
from sequencer2d.cli import bench
from tests.cli.conftest import CompleteProgress

SMALL = (
    "--device",
    "cpu",
    "--models",
    "sequencer2d_n,sequencer2d_n@triton,test_resnet",
    "--batch",
    "2",
    "--size",
    "28",
)
FAST = ("--seconds", "0.01", "--peer", "test_resnet")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure no limits of the device."""
    monkeypatch.setattr(timing, "ceilings", lambda device, **_: {"copy_tb_per_s": 1.0})


def test_a_run_writes_rows_and_prints_the_best_with_ratios(command: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "speed.json"
    outcome = command("bench", *SMALL, *FAST, "--output", path)
    assert "inference, fp32, batch 2, 28²" in outcome.out
    assert "× test_resnet" in outcome.out
    assert "Without a rate (1)" in outcome.out
    assert "3 rows" in outcome.err
    result = json.loads(path.read_text(encoding="utf-8"))
    assert (result["name"], result["device"]["kind"], len(result["rows"])) == ("speed", "cpu", 3)
    again = command("bench", *SMALL, *FAST, "--output", path, "--json")
    assert json.loads(path.read_text(encoding="utf-8"))["rows"] == result["rows"]
    best = {row["model"]: row for row in json.loads(again.out)}
    assert best["test_resnet"]["ratio"] == 1.0
    assert best["sequencer2d_n"]["ratio"] == pytest.approx(
        best["sequencer2d_n"]["images_per_s"] / best["test_resnet"]["images_per_s"]
    )
    command("bench", "--merge", path, path, "--output", tmp_path / "all.json")
    assert len(json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))["rows"]) == 3


def test_a_time_limit_says_how_to_go_on(
    command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rich.progress, "Progress", CompleteProgress.__base__)  # the limit stops its bars halfway
    outcome = command("bench", *SMALL, "--time-limit", "1e-9", "--output", tmp_path / "speed.json")
    assert "the same command goes on" in outcome.err


def test_a_plan_is_listed_and_its_parts_cover_it(command: Callable[..., Any]) -> None:
    whole = command("bench", "--device", "cpu", "--plan", "table1", "--dry-run").out.splitlines()
    parts = [
        command("bench", "--device", "cpu", "--plan", "table1", "--dry-run", "--shard", f"{i}/3") for i in (1, 2, 3)
    ]
    assert "sequencer2d_l@auto, inference, fp32, batch 16, 224²: eager" in whole
    assert sorted(whole) == sorted(line for part in parts for line in part.out.splitlines())


def test_the_lean_form_of_the_headline_is_measured_in_training_only(command: Callable[..., Any]) -> None:
    out = command("bench", "--device", "cpu", "--plan", "headline", "--forms", "graph,lean", "--dry-run").out
    lean = [line for line in out.splitlines() if "lean" in line]
    assert all("training" in line for line in lean)
    for name in ("sequencer2d_s@recompute", "convnext_tiny", "deit_small_patch16_224"):
        assert f"{name}, training, fp32, batch 128, 224²: graph, lean" in lean
    assert "lean" not in command("bench", "--device", "cpu", "--plan", "headline", "--dry-run").out


def test_options_replace_what_a_plan_says(command: Callable[..., Any]) -> None:
    out = command("bench", "--device", "cpu", "--plan", "table1", "--models", "resnet18", "--dry-run").out
    workloads = [f"{mode}, fp32, batch 16, {size}²" for size in (224, 392, 384) for mode in ("training", "inference")]
    assert out.splitlines() == [f"resnet18, {work}: {form}" for form in ("paper", "eager") for work in workloads]


def test_the_papers_protocol_is_fp32_whatever_else_runs(command: Callable[..., Any]) -> None:
    plan = ("bench", "--device", "cpu", "--plan", "table1", "--dry-run")
    bf16 = command(*plan, "--models", "resnet18", "--size", "224", "--dtype", "bf16,fp32", "--forms", "paper,eager")
    assert bf16.out.splitlines() == [
        "resnet18, training, fp32, batch 16, 224²: paper",
        "resnet18, inference, fp32, batch 16, 224²: paper",
        "resnet18, training, bf16, batch 16, 224²: eager",
        "resnet18, training, fp32, batch 16, 224²: eager",
        "resnet18, inference, bf16, batch 16, 224²: eager",
        "resnet18, inference, fp32, batch 16, 224²: eager",
    ]
    paper = command(*plan, "--forms", "paper").out.splitlines()
    assert len(paper) == 2 * (3 + 3 + len(PEERS) + 2 + len(FINE_TUNED_PEERS))
    assert "gfnet_h_s, training, fp32, batch 16, 224²: paper" in paper
    assert all(line.endswith(": paper") and "fp32" in line for line in paper)
    for model in ("sequencer2d_l@auto", "timm:sequencer2d_l"):
        assert f"{model}, training, fp32, batch 16, 392²: paper" in paper
    assert "swin_base_patch4_window12_384, inference, fp32, batch 16, 384²: paper" in paper


def test_table_1_joins_protocols_modes_and_accuracies(command: Callable[..., Any], tmp_path: Path, tiny: Path) -> None:
    plan = ("--plan", "table1", "--models", "sequencer2d_n,test_resnet", "--batch", "2", "--size", "28")
    measured = command("bench", "--device", "cpu", *plan, *FAST, "--output", tmp_path / "a.json")
    assert "paper's protocol" in measured.out
    evaluated = command("eval", tiny, "--data", "digits", "--json", "data.workers=0")
    (tmp_path / "n.json").write_text(evaluated.out)
    top1 = json.loads(evaluated.out)["top1"]
    assert json.loads(evaluated.out)["model"] == "sequencer2d_n"
    written = {**json.loads(evaluated.out), "image_size": [28, 28]}
    (tmp_path / "n.json").write_text(json.dumps(written))
    merge = ("bench", "--merge", tmp_path / "a.json", "--layout", "table1", "--accuracy", tmp_path / "n.json")
    found = {row["model"]: row for row in json.loads(command(*merge, "--json").out)}
    rows = {
        (row["model"], row["form"], row["mode"]): row["images_per_s"]
        for row in json.loads((tmp_path / "a.json").read_text())["rows"]
    }
    for model in ("sequencer2d_n", "test_resnet"):
        for protocol, form in (("paper", "paper"), ("best", "eager")):
            for mode in ("training", "inference"):
                assert found[model][f"{protocol}_{mode}_rate"] == rows[model, form, mode]
    assert found["sequencer2d_n"]["top1"] == top1
    assert found["test_resnet"]["top1"] is None


@pytest.mark.parametrize(
    "options, hint",
    [
        (("--models", "convnxt_tiny"), "convnext_tiny"),
        (("--models", "sequencer2d_s@cuda"), "cudnn"),
        (("--plan", "table2"), "table1"),
        (("--mode", "test"), "inference, training"),
        (("--dtype", "int8"), "bf16"),
        (("--forms", "fast"), "lean"),
        (("--forms", "paper", "--dtype", "bf16"), "'paper' is for fp32"),
        (("--accuracy", "nowhere.json", "--merge", "nowhere.json"), "nowhere.json"),
        (("--batch", "0"), "at least 1"),
        (("--shard", "3/2"), "I/N"),
        (("--merge", "nowhere.json"), "nowhere.json"),
    ],
)
def test_a_mistake_is_one_line(options: tuple[str, ...], hint: str, mistake: Callable[..., str]) -> None:
    assert hint in mistake("bench", "--device", "cpu", *options, *(() if "--merge" in options else ("--dry-run",)))


def test_the_result_is_named_after_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bench._default_output(torch.device("cpu")) == "bench-cpu.json"
    monkeypatch.setattr(provenance, "device", lambda kind: {"name": "NVIDIA H100 80GB HBM3"})
    assert bench._default_output(torch.device("cuda")) == "bench-nvidia-h100-80gb-hbm3.json"


def test_the_help_of_forms_names_them_all(command: Callable[..., Any]) -> None:
    text = " ".join(command("bench", "--help").out.split())
    described = text.rpartition("--forms A,B")[2]
    assert all(form in described.partition("--shard I/N")[0] for form in FORMS)
