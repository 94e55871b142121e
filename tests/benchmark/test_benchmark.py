"""The benchmark: no rate for a wrong result, no row measured twice, no failure that stops the rest."""

import dataclasses
import functools
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from sequencer2d import benchmark
from sequencer2d.benchmark import Case, Plan, ResultFile, Sweep, contenders, forms, loop, timing
from sequencer2d.benchmark.gate import Gate
from sequencer2d.benchmark.results import row_key
from sequencer2d.errors import ConfigError, ImplementationError

CPU = torch.device("cpu")
SIZE = 28
HEADER = {
    "name": "a",
    "date": "2030-01-01T00:00:00+00:00",
    "device": {"kind": "cpu", "name": "A CPU", "threads": 2},
    "versions": {"torch": "2.99"},
    "commit": "abc",
    "command": "sequencer2d bench",
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "ceilings", lambda device: {"copy_tb_per_s": 1.0})
    monkeypatch.setattr(timing.measure, "__kwdefaults__", {"measure_s": 0.01, "warmup_s": 0.01})


def cases(*models: str, mode: str = "inference", dtype: str = "fp32", form: str = "eager") -> list[Case]:
    sweep = Sweep(models, modes=(mode,), batches=(3,), sizes=(SIZE,))
    return Plan("?", (sweep,)).cases([dtype], [form])


def measure(wanted: list[Case], path: Path, **options: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows that a run yields, and what it measured for them."""
    rows: list[dict[str, Any]] = []
    started: list[str] = []
    results = ResultFile(path, HEADER, fresh=options.pop("fresh", False))
    benchmark.run(
        wanted,
        results,
        CPU,
        measure_s=0.01,
        on_start=lambda case, form: started.append(f"{case}, {form}"),
        on_row=rows.append,
        **options,
    )
    return rows, started


def workload(mode: str = "inference", dtype: torch.dtype = torch.float32) -> tuple[benchmark.Contender, forms.Workload]:
    contender = benchmark.parse_contender("sequencer2d_n")
    return contender, forms.workload(contenders.build(contender, SIZE), mode, dtype, 5, SIZE, CPU)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("sequencer2d_n", ("sequencer2d_n", "sequencer2d", "auto")),
        ("sequencer2d_n@reference", ("sequencer2d_n", "sequencer2d", "reference")),
        ("timm:sequencer2d_s", ("sequencer2d_s", "timm", "timm")),
        ("timm:sequencer2d_s@fuse", ("sequencer2d_s", "timm", "fuse")),
        ("swin_tiny", ("swin_tiny_patch4_window7_224", "timm", "timm")),
        ("resnet50", ("resnet50", "timm", "timm")),
    ],
)
def test_a_contender_is_named_by_model_and_implementation(text: str, expected: tuple[str, str, str]) -> None:
    contender = benchmark.parse_contender(text)
    assert (contender.model, contender.library, contender.implementation) == expected


@pytest.mark.parametrize("text", ["convnxt_tiny", "sequencer2d_n@cuda", "resnet50@fuse", "timm:resnet50@cudnn"])
def test_an_unknown_contender_is_a_mistake(text: str) -> None:
    with pytest.raises(ConfigError):
        benchmark.parse_contender(text)


def test_every_plan_names_models_that_exist() -> None:
    for plan in benchmark.PLANS.values():
        assert plan.cases(["bf16"], ["eager"])


def test_all_implementations_get_the_same_weights_and_a_head_that_is_not_zero() -> None:
    first, second = (
        contenders.build(benchmark.parse_contender(f"sequencer2d_n@{name}"), SIZE) for name in ("auto", "reference")
    )
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, msg=name)
    assert first.get_submodule("head.fc").weight.std() > 0.01


def test_a_step_is_timed_by_its_median() -> None:
    durations = iter([0.0] * 3 + [0.002, 0.05, 0.002, 0.002, 0.002] + [0.0] * 1000)
    found = timing.measure(lambda: time.sleep(next(durations)), CPU, measure_s=0.0, warmup_s=0.0)
    assert found.repeats == 5
    assert 2.0 <= found.step_ms < 20.0
    assert found.latency_ms == found.step_ms


def test_the_ceilings_are_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(timing, "REPEATS", (2, 3))
    found = timing.ceilings(CPU)
    assert 1e-4 < found["matmul_tflop_per_s"] < 1e3
    assert 1e-5 < found["copy_tb_per_s"] < 1e2


@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_row_holds_rate_cost_and_verdict(mode: str, dtype: str, tmp_path: Path) -> None:
    (row,), _ = measure(cases("sequencer2d_n", mode=mode, dtype=dtype), tmp_path / "a.json")
    assert row["error"] is None
    assert row["images_per_s"] == pytest.approx(3e3 / row["step_ms"])
    assert row["gate"]["passed"]
    assert 0 < row["gate"]["limit"] < 0.5
    assert row["resolved"] == "aten"
    assert row["family"] == "Seq."
    assert 4.0e6 < row["parameters"] < 4.3e6
    assert 0 < row["gmacs"] < 0.1
    assert row["peak_memory_mib"] is None  # PyTorch does not count a CPU's memory


def test_a_peer_needs_no_verdict(tmp_path: Path) -> None:
    (row,), _ = measure(cases("timm:sequencer2d_s"), tmp_path / "a.json")
    assert row["error"] is None
    assert row["gate"] is None
    assert row["sources"] == ""


def test_timms_model_is_measured_with_our_recurrences(tmp_path: Path) -> None:
    (row,), _ = measure(cases("timm:sequencer2d_s@fuse"), tmp_path / "a.json")
    assert row["error"] is None
    assert row["gate"]["passed"]
    assert (row["library"], row["implementation"], row["resolved"]) == ("timm", "fuse", "aten")


def test_the_optimised_form_is_for_inference_of_ours() -> None:
    everything = Plan("?", (Sweep(("sequencer2d_n", "resnet18"), modes=("inference", "training")),))
    with_it = [case for case in everything.cases(["fp32"], ["eager", "optimized"]) if "optimized" in case.forms]
    assert [str(case) for case in with_it] == ["sequencer2d_n@auto, inference, fp32, batch 256, 224²"]


def test_the_optimised_form_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "optimize", functools.partial(forms.optimize, compile=False))
    contender, work = workload()
    assert Gate(contender, work).check(forms.prepare(work, "optimized")).passed


def test_the_lean_form_is_for_training_of_every_model() -> None:
    everything = Plan("?", (Sweep(("sequencer2d_n", "resnet18"), modes=("inference", "training"), batches=(2,)),))
    with_it = [case for case in everything.cases(["bf16"], ["eager", "lean"]) if "lean" in case.forms]
    assert [str(case) for case in with_it] == [
        f"{name}, training, bf16, batch 2, 224²" for name in ("sequencer2d_n@auto", "resnet18")
    ]
    assert "lean" not in forms.available_forms(torch.device("cuda"))
    with pytest.raises(ImplementationError, match="for training"):
        forms.prepare(workload()[1], "lean")


def test_the_lean_forms_code_is_its_own_keeps_less_and_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    partitioned = torch._dynamo.lookup_backend("aot_eager_decomp_partition")  # as inductor, without its code
    monkeypatch.setattr(torch._dynamo, "lookup_backend", lambda name: partitioned)
    monkeypatch.setattr(forms, "MEMORY_BUDGET", 0.1)
    contender, work = workload("training")
    gate = Gate(contender, work)
    kept: dict[str, list[int]] = {"usual": [], "lean": []}
    for name, backend in (("usual", partitioned), ("lean", forms.compile_lean)):
        forward = torch.compile(work.model, dynamic=False, backend=backend)

        def pack(x: torch.Tensor, sizes: list[int] = kept[name]) -> torch.Tensor:
            sizes.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            assert gate.check(forms.Form(lambda: None, forward)).passed
    assert 0 < sum(kept["lean"]) < sum(kept["usual"])


def test_rows_are_kept_and_not_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    first, started = measure(cases("sequencer2d_n@reference", "resnet18"), path)
    assert len(started) == 4  # once for the model, once for its form
    again, started = measure(cases("sequencer2d_n@reference", "resnet18"), path)
    assert started == []
    assert again == first == json.loads(path.read_text(encoding="utf-8"))["rows"]
    _, started = measure(cases("resnet18"), path, fresh=True)
    assert started


def test_the_commands_behind_all_rows_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for command in ("bench --batch 1", "bench --batch 2", "bench --batch 1"):
        results = ResultFile(path, {**HEADER, "command": command})
        results.write()
    assert results.header["command"] == "bench --batch 1; bench --batch 2"
    assert ResultFile(path, HEADER, fresh=True).header["command"] == HEADER["command"]


def test_a_change_of_our_sources_asks_for_new_rows_of_our_models_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    measure(cases("sequencer2d_n@reference", "resnet18"), path)
    monkeypatch.setattr(loop.provenance, "source_digest", lambda: "changed")
    loop._sources.cache_clear()
    _, started = measure(cases("sequencer2d_n@reference", "resnet18"), path)
    loop._sources.cache_clear()
    assert {text.split(",")[0] for text in started} == {"sequencer2d_n@reference"}


def test_a_model_that_cannot_be_built_is_a_row_and_the_rest_goes_on(tmp_path: Path) -> None:
    rows, _ = measure(cases("swin_tiny", "sequencer2d_n@triton", "resnet18"), tmp_path / "a.json")
    assert rows[1]["images_per_s"] is None
    assert "triton" in rows[1]["error"]
    assert rows[2]["error"] is None


def test_memory_that_does_not_suffice_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. And much more text")

    prepare = forms.prepare
    path = tmp_path / "a.json"
    monkeypatch.setattr(forms, "prepare", full)
    (row,), _ = measure(cases("resnet18"), path)
    assert row["error"] == "out of memory: CUDA out of memory"
    monkeypatch.setattr(forms, "prepare", prepare)
    (row,), started = measure(cases("resnet18"), path)
    assert row["error"]
    assert not started
    (row,), started = measure(cases("resnet18"), path, retry=True)
    assert row["error"] is None
    assert started


def test_a_wrong_result_has_no_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = forms.prepare

    def slightly_wrong(work: forms.Workload, form: str) -> forms.Form:
        right = prepare(work, form)
        return forms.Form(lambda: right.step() * 1.001, right.forward)

    monkeypatch.setattr(forms, "prepare", slightly_wrong)
    (row,), _ = measure(cases("sequencer2d_n"), tmp_path / "a.json")
    assert row["images_per_s"] is None
    assert "wrong result: logits" in row["error"]
    assert row["gate"]["error"] == pytest.approx(1e-3, rel=0.01)


def test_the_gate_sees_a_single_wrong_image_at_either_end_of_the_batch() -> None:
    contender, work = workload()
    gate = Gate(contender, work)
    right = forms.prepare(work, "eager")
    assert gate.check(right).passed
    for image in (0, 4):
        logits = right.step().clone()
        logits[image, 0] = torch.nan
        assert not gate.check(forms.Form(lambda logits=logits: logits, right.forward)).passed


def test_the_gate_sees_a_wrong_gradient_also_after_steps_have_changed_the_weights() -> None:
    contender, work = workload("training")
    gate = Gate(contender, work)
    right = forms.prepare(work, "eager")
    right.step()
    assert gate.check(right).passed

    def half(x: torch.Tensor) -> torch.Tensor:
        y = work.model(x)
        return y.detach() + (y - y.detach()) * 0.5

    verdict = gate.check(forms.Form(right.step, half))
    assert not verdict.passed
    assert verdict.error == pytest.approx(0.5, rel=1e-3)


def test_training_changes_the_weights() -> None:
    _, work = workload("training")
    before = [parameter.detach().clone() for parameter in work.model.parameters()]
    forms.prepare(work, "eager").step()
    assert all((a != b).any() for a, b in zip(before, work.model.parameters(), strict=True))


def test_the_compiled_form_is_checked_and_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    (row,), _ = measure(cases("sequencer2d_n", form="compile"), tmp_path / "a.json")
    assert row["error"] is None
    assert row["gate"]["passed"]


def test_a_graph_on_a_cpu_is_refused() -> None:
    _, work = workload()
    with pytest.raises(ImplementationError, match="needs a CUDA device"):
        forms.prepare(work, "graph")


def test_after_the_time_limit_nothing_is_begun(tmp_path: Path) -> None:
    results = ResultFile(tmp_path / "a.json", HEADER)
    assert not benchmark.run(cases("resnet18"), results, CPU, deadline=time.monotonic() - 1)
    assert not results.rows


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


def test_the_papers_protocol_is_eager_exact_fp32_with_sgd_and_the_usual_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    (case,) = cases("test_resnet", mode="training", form="paper")
    session = loop._Session(dataclasses.replace(case, size=64), CPU)
    model, images = session.work.model, session.work.images
    assert images.is_contiguous()
    assert all(parameter.is_contiguous() for parameter in model.parameters())
    assert not cases("test_resnet", dtype="bf16", form="paper")
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    seen = []
    model.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    monkeypatch.setattr(forms, "LEARNING_RATE", 0.25)
    torch.backends.cudnn.allow_tf32, restore = True, torch.backends.cudnn.allow_tf32
    try:
        forms.prepare(session.work, "paper").step()
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = restore
    assert seen == [False]
    for name, parameter in model.named_parameters():  # Nesterov's first step: the gradient and 0.9 of it
        expected = before[name] - 0.25 * 1.9 * parameter.grad
        torch.testing.assert_close(parameter.detach(), expected, msg=name)


def test_the_papers_protocol_does_not_compete(tmp_path: Path) -> None:
    both = [*cases("test_resnet"), *cases("test_resnet", form="paper")]
    wanted = [dataclasses.replace(case, size=64) for case in both]
    rows, _ = measure(wanted, tmp_path / "a.json")
    assert {row["form"] for row in benchmark.best_rows(rows)} == {"eager", "paper"}
    ratios = benchmark.with_ratio(benchmark.best_rows(rows), "test_resnet")
    assert [row["ratio"] for row in ratios] == [1.0, 1.0]
