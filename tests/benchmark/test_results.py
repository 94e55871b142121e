"""Result files: continued, merged, refused where they would not compare; the best of each contender found."""

from pathlib import Path
from typing import Any

import pytest

from sequencer2d import benchmark
from sequencer2d.benchmark import ResultFile
from sequencer2d.benchmark.curves import curves
from sequencer2d.benchmark.results import row_key
from sequencer2d.errors import ConfigError
from tests.benchmark.small import HEADER


def test_the_commands_behind_all_rows_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for command in ("bench --batch 1", "bench --batch 2", "bench --batch 1"):
        results = ResultFile(path, {**HEADER, "command": command})
        results.write()
    assert results.header["command"] == "bench --batch 1; bench --batch 2"
    assert ResultFile(path, HEADER, fresh=True).header["command"] == HEADER["command"]


def test_results_of_another_device_are_refused(tmp_path: Path) -> None:
    ResultFile(tmp_path / "a.json", HEADER).write()
    other = {**HEADER, "device": {"kind": "cpu", "name": "Another CPU", "threads": 2}}
    with pytest.raises(ConfigError, match="Another CPU"):
        ResultFile(tmp_path / "a.json", other)
    with pytest.raises(ConfigError, match="device name"):
        benchmark.merge([{**HEADER, "rows": []}, {**other, "rows": []}], "all")


@pytest.mark.parametrize("content", ["", "{}", "[1]", "{"])
def test_a_file_that_is_no_result_is_a_mistake(content: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"a\.json"):
        ResultFile(path, HEADER)


def a_row(model: str, form: str, rate: float | None, date: str = "1", **more: Any) -> dict[str, Any]:
    library = "sequencer2d" if model == "sequencer2d_n" else "timm"
    row = {"model": model, "library": library, "family": "Seq." if library == "sequencer2d" else "CNN"}
    row |= {"implementation": "auto" if library == "sequencer2d" else "timm", "form": form, "mode": "inference"}
    row |= {"dtype": "bf16", "batch": 1, "size": 224, "sources": "", "images_per_s": rate, "error": None}
    return {**row, "peak_memory_mib": 10.0, "date": date, **more}


def test_the_best_form_counts_and_is_compared_with_the_peers_best() -> None:
    rows = [
        a_row("sequencer2d_n", "eager", 10.0),
        a_row("sequencer2d_n", "graph", 30.0, peak_memory_mib=12.0),
        a_row("sequencer2d_n", "compile", None, error="out of memory"),
        a_row("convnext_tiny", "eager", 20.0),
        a_row("convnext_tiny", "compile", 60.0, batch=2),
    ]
    best = {
        (row["model"], row["batch"]): row for row in benchmark.with_ratio(benchmark.best_rows(rows), "convnext_tiny")
    }
    assert len(best) == 3
    ours = best["sequencer2d_n", 1]
    assert (ours["form"], ours["ratio"], ours["lowest_memory_mib"]) == ("graph", 1.5, 10.0)
    assert best["convnext_tiny", 2]["ratio"] == 1.0


def test_the_memory_of_the_lean_form_stands_beside_no_other_forms_rate() -> None:
    graph, lean = a_row("x", "graph", 3.0), a_row("x", "lean", 2.0, peak_memory_mib=5.0)
    assert benchmark.best_rows([graph, lean])[0]["lowest_memory_mib"] == 10.0
    assert benchmark.best_rows([lean])[0]["lowest_memory_mib"] == 5.0


def test_of_rows_for_other_sources_the_latest_counts_even_if_slower() -> None:
    rows = [
        a_row("sequencer2d_n", "eager", 9.0, "2", sources="b"),
        a_row("sequencer2d_n", "eager", 10.0, "1", sources="a"),
    ]
    assert [row["images_per_s"] for row in benchmark.best_rows(rows)] == [9.0]


def test_parts_are_merged_with_the_latest_of_equal_rows() -> None:
    old, new, other = a_row("x", "eager", 1.0, "1"), a_row("x", "eager", 2.0, "2"), a_row("y", "eager", 3.0)
    merged = benchmark.merge([{**HEADER, "rows": [new]}, {**HEADER, "commit": "def", "rows": [old, other]}], "all")
    assert {row_key(row): row["images_per_s"] for row in merged["rows"]} == {row_key(new): 2.0, row_key(other): 3.0}
    assert (merged["name"], merged["commit"]) == ("all", "abc, def")


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({}, "sequencer2d_n (auto)"),
        ({"resolved": "triton"}, "sequencer2d_n (triton)"),
        ({"implementation": "recompute", "resolved": "cudnn"}, "sequencer2d_n (cudnn, gates recomputed)"),
        ({"model": "sequencer2d_s", "library": "timm", "implementation": "timm"}, "timm sequencer2d_s"),
        ({"model": "sequencer2d_s", "library": "timm", "implementation": "fuse"}, "timm sequencer2d_s (fused)"),
        ({"model": "swin_tiny_patch4_window7_224", "library": "timm", "family": "Trans."}, "swin_tiny"),
        ({"model": "mixer_b16_224", "library": "timm", "family": "GMLP"}, "mixer_b16"),
    ],
)
def test_labels_name_the_model_and_what_runs_it(changes: dict[str, Any], expected: str) -> None:
    assert benchmark.label({**a_row("sequencer2d_n", "eager", 1.0), **changes}) == expected


def test_a_merged_result_keeps_commands_ceilings_and_the_latest_date() -> None:
    first = {**HEADER, "date": "2030-01-03", "command": "bench --batch 1; bench --batch 2", "rows": []}
    second = {**HEADER, "date": "2030-01-02", "command": "bench --batch 2", "rows": []}
    limits = {"copy_tb_per_s": 1.0, "date": "1"}
    merged = benchmark.merge(
        [{**first, "ceilings": [limits]}, {**second, "ceilings": [limits, {**limits, "date": "2"}]}], "all"
    )
    assert merged["date"] == "2030-01-03"
    assert merged["command"] == "bench --batch 1; bench --batch 2"
    assert [found["date"] for found in merged["ceilings"]] == ["1", "2"]
    assert merged["commit"] == "abc"
    with pytest.raises(ConfigError, match="at least one result file"):
        benchmark.merge([], "all")


@pytest.mark.parametrize(
    "part, key",
    [("device", "kind"), ("device", "threads"), ("device", "cuda"), ("versions", "torch"), ("versions", "timm")],
)
def test_results_of_other_machines_and_versions_do_not_mix(part: str, key: str) -> None:
    other = {**HEADER, part: {**HEADER[part], key: "another"}}
    with pytest.raises(ConfigError, match=f"{part} {key}"):
        benchmark.merge([{**HEADER, "rows": []}, {**other, "rows": []}], "all")


def test_a_ratio_needs_the_peer_on_the_same_workload() -> None:
    rows = [a_row("sequencer2d_n", "eager", 10.0), a_row("convnext_tiny", "eager", 20.0, size=448)]
    assert [row["ratio"] for row in benchmark.with_ratio(benchmark.best_rows(rows), "convnext_tiny")] == [None, 1.0]


def test_curves_hold_the_best_form_at_each_point() -> None:
    rows = [
        a_row("sequencer2d_n", "eager", 5.0, size=448),
        a_row("sequencer2d_n", "eager", 10.0),
        a_row("sequencer2d_n", "graph", 30.0),
        a_row("sequencer2d_n", "graph", 90.0, batch=2),
        a_row("convnext_tiny", "eager", 20.0, peak_memory_mib=None),
    ]
    found = curves(rows, "size", "images_per_s", mode="inference", batch=1)
    assert found == {"sequencer2d_n (auto)": [(224, 30.0), (448, 5.0)], "convnext_tiny": [(224, 20.0)]}
    assert set(curves(rows, "size", "lowest_memory_mib", batch=1)) == {"sequencer2d_n (auto)"}
    assert curves(rows, "batch", "images_per_s", size=224)["sequencer2d_n (auto)"] == [(1, 30.0), (2, 90.0)]
