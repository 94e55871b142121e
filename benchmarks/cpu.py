"""Models on a CPU, in PyTorch, ONNX Runtime and OpenVINO: writes `benchmarks/results/cpu.json`.

    python -m benchmarks.cpu [--models A,B] [--forms A,B] [--batches 1,8] [--threads 1]

All models and forms are prepared first and then timed in turns, round after round, so that whatever else the machine
does falls on all alike; the fastest round counts. With one thread the clock is the process's CPU time, which other
processes do not lengthen; with more it is the wall clock. Every form's logits are compared with eager fp32's.
"""

import argparse
import copy
import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.record import RESULTS, command_line, origin, write_result

NAME = "cpu"
SCRIPT = "benchmarks.cpu"
SIZE = 224
MODELS = "sequencer2d_s,sequencer2d_t,sequencer2d_n,timm:sequencer2d_s,convnext_tiny,swin_tiny,deit_small"
PEER, BASELINE = "convnext_tiny", "timm:sequencer2d_s"
LIMITS = {"fp32": 1e-3, "bf16": 0.1, "int8": 0.5}
"""Largest relative difference from eager fp32 with which a form still counts as the same model."""

Run = Callable[[Tensor], Tensor]


@dataclasses.dataclass
class Arm:
    """One model in one form, ready to run, and the milliseconds of its rounds."""

    model: str
    form: str
    precision: str
    run: Run
    difference: float = 0.0
    times: list[float] = dataclasses.field(default_factory=list)


def eager(model: nn.Module, ours: bool, images: Tensor, precision: str) -> Run:
    dtype = _dtype(precision)
    model = copy.deepcopy(model).to(dtype)
    return lambda x: model(x.to(dtype)).float()


def compiled(model: nn.Module, ours: bool, images: Tensor, precision: str) -> Run:
    """torch.compile for the shape; for ours `sequencer2d.optimize`, which compiles too."""
    from sequencer2d.models.optimizing import optimize

    dtype = _dtype(precision)
    if ours:
        optimized = optimize(model, dtype=dtype, whole=True)
        return lambda x: optimized(x).float()
    fast = torch.compile(copy.deepcopy(model).to(dtype), dynamic=False)
    return lambda x: fast(x.to(dtype)).float()


def onnx_runtime(model: nn.Module, ours: bool, images: Tensor, precision: str) -> Run:
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = _onnx(model, ours, images, Path(folder), precision)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


def openvino(model: nn.Module, ours: bool, images: Tensor, precision: str) -> Run:
    import openvino as runtime

    with tempfile.TemporaryDirectory() as folder:
        converted = runtime.convert_model(_onnx(model, ours, images, Path(folder), "fp32"))
        hint = {"fp32": "f32", "bf16": "bf16"}[precision]
        config = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        fast = runtime.compile_model(converted, "CPU", config)
    return lambda x: torch.from_numpy(fast(x.numpy())[0].copy())


FORMS: dict[str, tuple[Callable[[nn.Module, bool, Tensor, str], Run], str]] = {
    "eager": (eager, "fp32"),
    "eager, bf16": (eager, "bf16"),
    "compiled": (compiled, "fp32"),
    "compiled, bf16": (compiled, "bf16"),
    "ONNX Runtime": (onnx_runtime, "fp32"),
    "ONNX Runtime, int8": (onnx_runtime, "int8"),
    "OpenVINO": (openvino, "fp32"),
    "OpenVINO, bf16": (openvino, "bf16"),
}


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    if {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"} & set(os.environ):
        raise SystemExit("benchmarks/cpu.py: unset OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE first")
    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    command = command_line(SCRIPT, argv)
    path = arguments.result or RESULTS / f"{NAME}.json"
    kept = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() and not arguments.force else []
    for batch in arguments.batches:
        rows = measure(arguments.models, arguments.forms, batch, arguments.rounds)
        fresh = {(row["model"], row["form"], row["batch"], row["threads"]) for row in rows}
        kept = [row for row in kept if (row["model"], row["form"], row["batch"], row["threads"]) not in fresh] + rows
        result = origin(path.stem, SCRIPT, command)
        result["device"]["name"] = processor()
        kept = with_ratios(kept)
        kept.sort(key=lambda row: (row["threads"], row["batch"], row["model"], list(FORMS).index(row["form"])))
        write_result({**result, "rows": kept}, path)
    return 0


def measure(models: list[str], forms: list[str], batch: int, rounds: int) -> list[dict[str, Any]]:
    """Rows of all models in all forms for one batch size; a form that fails gives a row with its error."""
    images = torch.randn(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    arms, rows = [], []
    about = {}
    for name in models:
        model, ours, about[name] = _build(name)
        expected = model(images)
        for form in forms:
            prepare, precision = FORMS[form]
            row = {
                "model": name,
                "form": form,
                "precision": precision,
                "batch": batch,
                "threads": torch.get_num_threads(),
            }
            try:
                arm = Arm(name, form, precision, prepare(model, ours, images, precision))
                arm.difference = float((arm.run(images) - expected).abs().max() / expected.abs().max())
                if not arm.difference <= LIMITS[precision]:
                    raise RuntimeError(f"differs from eager fp32 by {arm.difference:.1e}")
            except Exception as error:
                # Other people's exporters fail in many ways; the table says in which.
                rows.append(row | {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]})
                print(rows[-1], flush=True)
                continue
            print(f"prepared {name}, {form}, batch {batch}: difference {arm.difference:.1e}", flush=True)
            arms.append(arm)
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for _ in range(rounds):
        for arm in arms:
            arm.run(images)
            start = clock()
            arm.run(images)
            arm.times.append(1000 * (clock() - start))
    for arm in arms:
        best = min(arm.times)
        row = {
            "model": arm.model,
            "form": arm.form,
            "precision": arm.precision,
            "batch": batch,
            "threads": torch.get_num_threads(),
            "clock": "CPU time" if torch.get_num_threads() == 1 else "wall",
            "rounds": rounds,
            "milliseconds": best,
            "median_milliseconds": statistics.median(arm.times),
            "images_per_second": 1000 * batch / best,
            "relative_difference": arm.difference,
            **about[arm.model],
        }
        row["gmacs_per_second"] = row["gmacs"] * row["images_per_second"]
        rows.append(row)
        print({key: row[key] for key in ("model", "form", "batch", "milliseconds", "median_milliseconds")}, flush=True)
    return rows


def with_ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add to each row two ratios, for the same batch and threads.

    `rate_over_timm_eager`: images/s over those of timm's Sequencer in eager fp32; `macs_over_peer`:
    multiply-accumulates per second over the peer's in the same form.
    """
    rates = {(r["model"], r["form"], r["batch"], r["threads"]): r for r in rows if "error" not in r}
    for row in rates.values():
        workload = (row["batch"], row["threads"])
        for key, unit, against in (
            ("rate_over_timm_eager", "images_per_second", (BASELINE, "eager", *workload)),
            ("macs_over_peer", "gmacs_per_second", (PEER, row["form"], *workload)),
        ):
            other = rates.get(against)
            row[key] = row[unit] / other[unit] if other else None
    return rows


def processor() -> str:
    """The processor's name and which units for bf16 and int8 it has, where Linux tells."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return torch.backends.cpu.get_cpu_capability()
    entries = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in entries.items()}
    known = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8")
    units = [flag for flag in known if flag in fields.get("flags", "").split()]
    return f"{fields.get('model name', 'unknown')}, {fields.get('cpu MHz', '?')} MHz, {' '.join(units)}"


def _build(name: str) -> tuple[nn.Module, bool, dict[str, Any]]:
    from sequencer2d.benchmark import parse_contender
    from sequencer2d.benchmark.contenders import build
    from sequencer2d.benchmark.cost import count_macs, count_parameters

    contender = parse_contender(name)
    model = build(contender, SIZE).eval().requires_grad_(False)
    about = {"gmacs": round(count_macs(model, SIZE) / 1e9, 3), "parameters": count_parameters(model)}
    return model, contender.library == "sequencer2d", about


def _onnx(model: nn.Module, ours: bool, images: Tensor, folder: Path, precision: str) -> Path:
    from sequencer2d.export.formats import write_onnx
    from sequencer2d.export.int8 import quantize_file
    from sequencer2d.export.metadata import describe

    path = folder / "model.onnx"
    if ours:
        write_onnx(model, path, describe(model, "onnx", precision))
        return path
    torch.onnx.export(model, (images,), path, dynamo=True, opset_version=18, external_data=False, verbose=False)
    if precision == "int8":
        quantize_file(path)
    return path


def _dtype(precision: str) -> torch.dtype:
    return torch.bfloat16 if precision == "bf16" else torch.float32


def _parser() -> argparse.ArgumentParser:
    def names(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=names, default=MODELS.split(","), metavar="A,B")
    parser.add_argument("--forms", type=lambda text: text.split("+"), default=list(FORMS), metavar="A+B")
    parser.add_argument("--batches", type=lambda text: [int(n) for n in text.split(",")], default=[1, 8], metavar="N,…")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default: 1, timed by CPU time")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="default: 7")
    parser.add_argument("--result", type=Path, metavar="FILE", help=f"default: benchmarks/results/{NAME}.json")
    parser.add_argument("--force", action="store_true", help="begin the result file anew")
    return parser


if __name__ == "__main__":
    sys.exit(main())
