"""What `sequencer2d bench` prints of known rows: each number in its column, with its unit's digits."""

import json
from typing import Any

import pytest

from sequencer2d.benchmark.table1 import Accuracy
from sequencer2d.cli.bench.report import report, row_line

ROW = {
    "model": "sequencer2d_s",
    "library": "sequencer2d",
    "family": "Seq.",
    "implementation": "auto",
    "resolved": "triton",
    "form": "graph",
    "mode": "inference",
    "dtype": "bf16",
    "batch": 16,
    "size": 224,
    "sources": "",
    "date": "1",
    "images_per_s": 12345.67,
    "latency_ms": 1.2345,
    "peak_memory_mib": 1234.5,
    "parameters": 27_651_688,
    "gmacs": 8.333,
    "error": None,
}
PEER = {
    **ROW,
    "model": "convnext_tiny",
    "library": "timm",
    "family": "CNN",
    "implementation": "timm",
    "resolved": None,
    "images_per_s": 6172.835,
    "parameters": 28_589_128,
    "gmacs": 4.47,
}
FAILED = {**ROW, "form": "compile", "batch": 32, "images_per_s": None, "error": "out of memory"}
PAPER = {**ROW, "form": "paper", "dtype": "fp32", "images_per_s": 347.4, "peak_memory_mib": 196.4}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")


def test_a_table_for_each_workload_has_the_fastest_first(wide: None, capsys: pytest.CaptureFixture[str]) -> None:
    report([PEER, ROW, FAILED], "workloads", peer="convnext_tiny")
    title, titles, first, second, *rest = capsys.readouterr().out.splitlines()
    assert title.strip() == "inference, bf16, batch 16, 224²"
    assert cells(titles)[2:] == [
        *("images/s", "× convnext_tiny", "latency, ms", "peak, MiB", "lowest peak, MiB", "parameters", "GMACs"),
    ]
    assert cells(first) == [
        *("sequencer2d_s (triton)", "graph", "12,345.7", "2.00", "1.234", "1,234", "1,234", "27.7 M", "8.33"),
    ]
    assert cells(second)[:4] == ["convnext_tiny", "graph", "6,172.8", "1.00"]
    assert rest[-2:] == [
        "Without a rate (1):",
        "  sequencer2d_s (triton), compile, inference bf16, batch 32, 224²: out of memory",
    ]


def test_table_1_has_training_left_of_the_slash(wide: None, capsys: pytest.CaptureFixture[str]) -> None:
    training = {**PAPER, "mode": "training", "images_per_s": 110.4, "peak_memory_mib": 1799.0}
    report([ROW, PAPER, training], "table1", peer="", accuracies=[Accuracy("sequencer2d_s", 224, 82.336)])
    _, _, line = capsys.readouterr().out.splitlines()
    assert cells(line) == [
        *("sequencer2d_s (triton)", "Seq.", "16", "224²", "27.7 M", "8.33"),
        *("110/347", "1,799/196", "–/12,346", "–/1,234", "82.34"),
    ]


def test_as_json_the_values_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    report([PEER, ROW], "workloads", peer="convnext_tiny", as_json=True)
    found = {row["model"]: row for row in json.loads(capsys.readouterr().out)}
    assert found["sequencer2d_s"]["ratio"] == pytest.approx(2.0)
    assert found["sequencer2d_s"]["images_per_s"] == ROW["images_per_s"]
    assert found["sequencer2d_s"]["lowest_memory_mib"] == ROW["peak_memory_mib"]


@pytest.mark.parametrize(
    "changes, text",
    [
        ({}, "12,345.7 images/s, 1.234 ms, 1,234 MiB"),
        ({"peak_memory_mib": None}, "12,345.7 images/s, 1.234 ms"),
        ({"error": "wrong result"}, "wrong result"),
    ],
)
def test_a_row_is_one_line(changes: dict[str, Any], text: str) -> None:
    where = "sequencer2d_s (triton), graph, inference bf16, batch 16, 224²"
    assert row_line({**ROW, **changes}) == f"{where}: {text}"
