"""The loop: no rate for a wrong result, no row measured twice, no failure that stops the rest."""

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sequencer2d import benchmark
from sequencer2d.benchmark import ResultFile, contenders, loop, session
from sequencer2d.benchmark.cost import count_macs, count_parameters
from sequencer2d.benchmark.steps import Step
from sequencer2d.benchmark.workload import Workload
from sequencer2d.models import create_model
from sequencer2d.nn.rnn2d import RNN2D
from tests.benchmark.small import BATCH, CPU, HEADER, PEER, SIZE, SMALL, TickingClock, cases, measure


@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize("dtype, limit", [("fp32", 1e-5), ("bf16", 0.1)])
def test_a_row_holds_rate_cost_and_verdict(mode: str, dtype: str, limit: float, tmp_path: Path) -> None:
    (row,), _ = measure(cases(SMALL, mode=mode, dtype=dtype), tmp_path / "a.json")
    assert row["error"] is None
    assert (row["step_ms"], row["latency_ms"], row["spread_percent"], row["repeats"]) == (500.0, 500.0, 0.0, 5)
    assert row["images_per_s"] == BATCH / 0.5
    assert row["prepare_s"] == 0.5
    assert row["gate"]["passed"]
    assert row["gate"]["error"] <= row["gate"]["limit"] < limit
    assert row["resolved"] == "aten"
    assert row["family"] == "Seq."
    model = create_model(SMALL)
    assert row["parameters"] == count_parameters(model)
    assert row["gmacs"] == round(count_macs(model, SIZE) / 1e9, 3)
    assert row["peak_memory_mib"] is None  # PyTorch does not count a CPU's memory


def test_a_peer_needs_no_verdict(tmp_path: Path) -> None:
    (row,), _ = measure(cases(PEER), tmp_path / "a.json")
    assert row["error"] is None
    assert row["gate"] is None
    assert row["sources"] == ""


def test_timms_model_is_measured_with_our_recurrences(tmp_path: Path) -> None:
    (row,), _ = measure(cases("timm:sequencer2d_s@fuse"), tmp_path / "a.json")
    assert row["error"] is None
    assert row["gate"]["passed"]
    assert (row["library"], row["implementation"], row["resolved"]) == ("timm", "fuse", "aten")


def test_the_compiled_form_is_checked_and_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    (row,), _ = measure(cases(SMALL, form="compile"), tmp_path / "a.json")
    assert row["error"] is None
    assert row["gate"]["passed"]


def test_rows_are_kept_and_not_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    wanted = cases(f"{SMALL}@reference", PEER)
    first, started = measure(wanted, path)
    assert len(started) == 4  # once for the model, once for its form
    again, started = measure(wanted, path)
    assert started == []
    assert again == first == json.loads(path.read_text(encoding="utf-8"))["rows"]
    _, started = measure(wanted[1:], path, fresh=True)
    assert len(started) == 2


def test_a_change_of_our_sources_asks_for_new_rows_of_our_models_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    wanted = cases(f"{SMALL}@reference", PEER)
    measure(wanted, path)
    monkeypatch.setattr(loop.provenance, "source_digest", lambda: "changed")
    loop._sources.cache_clear()
    _, started = measure(wanted, path)
    loop._sources.cache_clear()
    assert {text.split(",")[0] for text in started} == {f"{SMALL}@reference"}


def test_a_model_that_cannot_be_built_is_a_row_and_the_rest_goes_on(tmp_path: Path) -> None:
    rows, _ = measure(cases("test_vit", f"{SMALL}@triton", PEER), tmp_path / "a.json")
    assert rows[1]["images_per_s"] is None
    assert "triton" in rows[1]["error"]
    assert rows[2]["error"] is None


def test_memory_that_does_not_suffice_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. And much more text")

    prepare = session.prepare
    path = tmp_path / "a.json"
    monkeypatch.setattr(session, "prepare", full)
    (row,), _ = measure(cases(PEER), path)
    assert row["error"] == "out of memory: CUDA out of memory"
    monkeypatch.setattr(session, "prepare", prepare)
    (row,), started = measure(cases(PEER), path)
    assert row["error"]
    assert not started
    (row,), started = measure(cases(PEER), path, retry=True)
    assert row["error"] is None
    assert started


def test_a_wrong_result_has_no_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = session.prepare

    def slightly_wrong(work: Workload, form: str) -> Step:
        right = prepare(work, form)
        return Step(lambda: right.run() * 1.001, right.forward)

    monkeypatch.setattr(session, "prepare", slightly_wrong)
    (row,), _ = measure(cases(SMALL), tmp_path / "a.json")
    assert row["images_per_s"] is None
    assert "wrong result: logits" in row["error"]
    assert row["gate"]["error"] == pytest.approx(1e-3, rel=0.01)


def test_after_the_time_limit_nothing_is_begun(tmp_path: Path) -> None:
    results = ResultFile(tmp_path / "a.json", HEADER)
    options = {"deadline": 1.0, "clock": TickingClock(0.6)}
    assert not benchmark.run(cases(PEER), results, CPU, **options)  # late when the form begins, 1.2 s after the start
    assert not results.rows
    assert results.ceilings
    results = ResultFile(tmp_path / "b.json", HEADER)
    assert not benchmark.run(cases(PEER), results, CPU, deadline=1.0, clock=TickingClock(1.1))
    assert not results.ceilings


def test_the_papers_protocol_does_not_compete(tmp_path: Path) -> None:
    rows, _ = measure([*cases(PEER), *cases(PEER, form="paper")], tmp_path / "a.json")
    assert {row["form"] for row in benchmark.best_rows(rows)} == {"eager", "paper"}
    ratios = benchmark.with_ratio(benchmark.best_rows(rows), PEER)
    assert [row["ratio"] for row in ratios] == [1.0, 1.0]


@pytest.mark.parametrize(
    "error, text",
    [
        (ValueError("two\n  lines"), "ValueError: two lines"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "out of memory: CUDA out of memory"),
        (ValueError("x" * 400), "ValueError: " + "x" * 288),
    ],
)
def test_an_error_is_one_line_of_bounded_length(error: Exception, text: str) -> None:
    assert session.describe(error) == text


@pytest.mark.parametrize("name", ["sequencer2d_s", "timm:sequencer2d_s", "swin_tiny", "vip_s7", "mixer_b16"])
def test_nothing_is_dropped_at_random_while_a_model_is_measured(name: str) -> None:
    with torch.device("meta"):
        model = contenders.build(benchmark.parse_contender(name), 224)
    rates = [getattr(module, "drop_prob", 0.0) for module in model.modules()]
    rates += [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    assert set(rates) == {0.0}


def test_where_blocks_run_differently_both_implementations_are_named() -> None:
    model = contenders.build(benchmark.parse_contender(f"{SMALL}@reference"), SIZE)
    assert contenders.resolved(model, CPU, torch.float32) == "reference"
    mixers = [module for module in model.modules() if isinstance(module, RNN2D)]
    mixers[0].implementation = "auto"
    assert contenders.resolved(model, CPU, torch.float32) == "aten+reference"
