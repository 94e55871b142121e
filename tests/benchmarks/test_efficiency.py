"""Tables and figures of the efficiency benchmark show what its rows say."""

import itertools
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import tables
from benchmarks.efficiency import plots, running, table1
from sequencer2d.benchmark import parse_contender
from sequencer2d.files import read_json, write_json

RATES = {"sequencer2d_s": 20.0, "timm:sequencer2d_s": 5.0, "convnext_tiny": 10.0, "deit_small": 40.0}


def row(name: str, mode: str, batch: int, size: int, form: str = "eager", **more: Any) -> dict[str, Any]:
    contender = parse_contender(name)
    rate = RATES[name.removesuffix("@recompute")] * batch * (224 / size) ** 2
    found = {"model": contender.model, "library": contender.library, "implementation": contender.implementation}
    found |= {"family": contender.family, "form": form, "mode": mode, "dtype": "bf16", "batch": batch, "size": size}
    found |= {"sources": "", "images_per_s": rate, "latency_ms": 1e3 * batch / rate, "peak_memory_mib": 3.0 * batch}
    return {**found, "parameters": 28_000_000, "gmacs": 8.3, "error": None, "date": "2030", "resolved": None, **more}


@pytest.fixture
def result() -> dict[str, Any]:
    workloads = [(256, 224), (128, 224), (1, 224), (16, 224), (16, 448), (16, 896)]
    rows = [
        row(name, mode, batch, size)
        for name, mode, (batch, size) in itertools.product(RATES, ("inference", "training"), workloads)
    ]
    rows.append(row("convnext_tiny", "inference", 256, 224, "graph", images_per_s=5120.0, peak_memory_mib=900.0))
    rows.append(row("deit_small", "inference", 256, 224, "graph", images_per_s=None, error="out of memory"))
    return {
        "name": "efficiency",
        "date": "2030-01-02T03:04:05+00:00",
        "device": {"kind": "cuda", "name": "A GPU", "count": 1},
        "versions": {"torch": "2.99"},
        "commit": "0123456789abcdef",
        "command": "",
        "rows": rows,
    }


def shown(name: str, result: dict[str, Any]) -> str:
    return tables.render(f"<!-- table: {name} -->\n<!-- end: {name} -->", {tables.TABLES[name].result: result})


def test_every_form_and_the_ratio_of_the_best_are_in_the_table(result: dict[str, Any]) -> None:
    text = shown("efficiency-inference", result)
    assert "| convnext_tiny | 28.0 M | 8.3 | 2,560 | – | 5,120 | – | 1.00 | 768 |" in text
    assert "| sequencer2d_s (auto) | 28.0 M | 8.3 | 5,120 | – | – | – | 1.00 | 768 |" in text
    assert "| deit_small | 28.0 M | 8.3 | 10,240 | – | – | – | 2.00 | 768 |" in text


def test_who_is_ahead_of_sequencer_is_said_class_by_class(result: dict[str, Any]) -> None:
    assert [[row.name for row in group][-1] for group in table1.classes()] == [
        *(f"Sequencer2D-{size}" for size in "SML"),
        "Sequencer2D-L↑",
    ]
    assert [len(group) for group in table1.classes()] == [8, 6, 9, 4]
    result["rows"].append(row("convnext_tiny", "inference", 16, 224, "graph", images_per_s=500.0))
    (found,) = [entry for entry in table1.ahead(result["rows"]) if entry["mode"] == "inference"]
    assert found == {
        "protocol": "each at its best",
        "mode": "inference",
        "name": "Sequencer2D-S",
        "rate": 320.0,  # ours, not timm's
        "ahead": "DeiT-S 640, ConvNeXt-T 500",
        "peers": 2,
        "missing": "RegNetY-4GF, Swin-T, ViP-S/7, CycleMLP-B2, PoolFormer-S24",
    }


def test_table_1_has_the_papers_protocol_beside_the_best(result: dict[str, Any]) -> None:
    for mode, rate in (("training", 11.0), ("inference", 33.0)):
        exact = row("sequencer2d_s", mode, 16, 224, "paper", dtype="fp32", images_per_s=rate, peak_memory_mib=rate + 1)
        result["rows"].append(exact)
    markers = "<!-- table: efficiency-table1 -->\n<!-- end: efficiency-table1 -->"
    text = tables.render(markers, {"efficiency-table1": result})
    assert (
        "| sequencer2d_s (auto) | Seq. | 224² | 28.0 M | 8.3 | 11/33 | 12/34 | 320/320 | 48/48 | 110/347 | 1,799/196 |"
        in text
    )
    assert "| convnext_tiny | CNN | 224² | 28.0 M | 8.3 | –/– | –/– | 160/160 | 48/48 | 337/1,124 | 1,418/248 |" in text


def test_a_sweep_has_a_column_per_value(result: dict[str, Any]) -> None:
    assert "| sequencer2d_s (auto) | 320 | 80 | – | 20 |" in shown("efficiency-resolution", result)
    assert "| deit_small | 40 | – | 640 | – | 10,240 |" in shown("efficiency-batch", result)
    assert "| convnext_tiny | 160 | – | 1,280 |" in shown("efficiency-batch-training", result)
    assert "| convnext_tiny | 160 | 40 | – | 10 |" in shown("efficiency-resolution-training", result)
    assert "| convnext_tiny | 48 | 48 | – | 48 |" in shown("efficiency-resolution-memory", result)


def test_comparisons_name_both_sides_at_their_best(result: dict[str, Any]) -> None:
    text = shown("efficiency-ratios", result)
    assert "| sequencer2d_s (auto), eager | 5,120 | convnext_tiny, graph | 5,120 | 1.00 |" in text
    assert "| training, batch 128, 224² | images/s | sequencer2d_s (auto), eager | 2,560 | timm sequencer2d_s" in text
    assert "swin" not in text  # not measured


def test_the_lean_forms_memory_is_compared_with_the_peers_same_and_fastest_form(result: dict[str, Any]) -> None:
    at = ("training", 128, 224)
    result["rows"] += [
        row("sequencer2d_s@recompute", *at, "graph", peak_memory_mib=400.0),
        row("sequencer2d_s@recompute", *at, "lean", images_per_s=1280.0, peak_memory_mib=200.0),
        row("convnext_tiny", *at, "lean", images_per_s=640.0, peak_memory_mib=250.0),
    ]
    lines = shown("efficiency-ratios", result).splitlines()
    ours = "sequencer2d_s (recompute, gates recomputed)"
    memory = [line.split(" MiB | ")[1] for line in lines if "MiB" in line and "gates recomputed" in line]
    assert memory == [
        f"{ours} | 400 | convnext_tiny | 384 | 1.04 |",
        f"{ours} | 400 | deit_small | 384 | 1.04 |",
        f"{ours}, lean | 200 | convnext_tiny, eager | 384 | 0.52 |",
        f"{ours}, lean | 200 | convnext_tiny, lean | 250 | 0.80 |",
        f"{ours}, lean | 200 | deit_small, eager | 384 | 0.52 |",
    ]
    assert any(f"images/s | {ours}, lean | 1,280 | convnext_tiny, eager | 1,280 | 1.00 |" in line for line in lines)


@pytest.mark.parametrize("name", [name for name in tables.TABLES if name.startswith("efficiency")])
def test_every_table_can_be_made(name: str, result: dict[str, Any]) -> None:
    assert "|" in tables.render(f"<!-- table: {name} -->\n<!-- end: {name} -->", {tables.TABLES[name].result: result})


def test_figures_are_drawn_and_equal_when_drawn_again(result: dict[str, Any], tmp_path: Path) -> None:
    for name in ("efficiency", "efficiency-resolutions"):
        write_json(tmp_path / f"{name}.json", result)
    command = ["--results", str(tmp_path), "--folder", str(tmp_path)]
    assert plots.main(command) == 0
    first = {path.name: path.read_bytes() for path in tmp_path.glob("*.svg")}
    assert len(first) == 4
    plots.main(command)
    assert first == {path.name: path.read_bytes() for path in tmp_path.glob("*.svg")}
    lines = plots.lines_of(result["rows"], "inference", "size", {"batch": 16}, "images_per_s")
    assert lines["sequencer2d_s (auto)"].points == [(224, 320.0), (448, 80.0), (896, 20.0)]


def test_processes_share_a_plan_and_the_parts_are_merged(result: dict[str, Any], tmp_path: Path) -> None:
    options = running.parse(["--gpus", "2", "--parts", str(tmp_path), "--", "--retry"])
    command = running.bench_command("latency", 1, options, 60.0, tmp_path)
    assert command[3:] == [
        *("bench", "--plan", "latency", "--output", str(tmp_path / "part-1.json")),
        *("--shard", "2/2", "--time-limit", "60", "--retry"),
    ]
    for index in range(2):
        write_json(tmp_path / f"part-{index}.json", {**result, "rows": result["rows"][index::2]})
    running.merge_parts(tmp_path, tmp_path / "efficiency.json", "python -m benchmarks.efficiency")
    merged = read_json(tmp_path / "efficiency.json")
    assert len(merged["rows"]) == len(result["rows"])
    assert merged["script"] == "benchmarks.efficiency"
    assert merged["command"] == "python -m benchmarks.efficiency"


def test_a_process_does_not_measure_what_another_one_has(result: dict[str, Any], tmp_path: Path) -> None:
    ceilings = [{"matmul_tflop_per_s": 700.0, "date": "2030"}]
    for index in range(2):
        write_json(tmp_path / f"part-{index}.json", {**result, "ceilings": ceilings, "rows": result["rows"][index::2]})
    running.share_rows(tmp_path, 3)
    for index in range(3):
        part = read_json(tmp_path / f"part-{index}.json")
        assert len(part["rows"]) == len(result["rows"])
        assert part["ceilings"] == ceilings


def test_processes_on_one_device_take_turns(tmp_path: Path) -> None:
    """Two processes that share a plan measure each of its cases once."""
    small = ["--models", "sequencer2d_n,resnet18", "--size", "32", "--device", "cpu", "--seconds", "0.05"]
    output = tmp_path / "efficiency.json"
    command = ["--plans", "latency", "--processes", "2", "--parts", str(tmp_path / "parts"), "--output", str(output)]
    assert running.main([*command, "--", *small]) == 0
    rows = read_json(output)["rows"]
    assert sorted(row["model"] for row in rows) == ["resnet18", "sequencer2d_n"]
    assert all(row["images_per_s"] > 1 and row["error"] is None for row in rows)
    assert len(read_json(output)["ceilings"]) == 1


def test_a_killed_process_leaves_nobody_standing_still() -> None:
    sleeping = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1)"])
    sleeping.send_signal(signal.SIGSTOP)
    killed = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    killed.kill()
    assert running.wait([sleeping, killed]) == [0, -signal.SIGKILL]


def test_the_front_page_shows_each_model_once_with_its_accuracy_and_its_rates(result):
    larger = [{**line, "size": 448, "gmacs": 99.0} for line in result["rows"]]
    lines = cells_of(shown("front-models", {**result, "rows": [*larger, *result["rows"]]}))
    cells = {name: rest for name, *rest in lines}
    assert cells["Sequencer2D-S"] == ["82.3", "28.0 M", "8.3", "5,120", "2,560"]
    assert cells["ConvNeXt-T"] == ["82.1", "28.0 M", "8.3", "5,120", "1,280"], "the faster of its two forms"
    assert cells["DeiT-S"] == ["79.9", "28.0 M", "8.3", "10,240", "5,120"]
    assert len(cells) == 3, "timm's own Sequencer is the same model"


def test_the_front_page_has_four_rows_of_speed_and_one_in_which_a_peer_leads(result):
    lines = cells_of(shown("front-speed", result))
    assert [line[0] for line in lines] == [
        "inference, batch 256, 224²", "training, batch 128, 224²", "inference, batch 1, 224²",
        "inference, batch 16, 448²",
    ]  # fmt: skip
    assert (lines[3][4], lines[3][-1]) == ("deit_small, eager", "0.50")


def cells_of(table: str) -> list[list[str]]:
    """The cells of a Markdown table, without its head."""
    return [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")][1:]
