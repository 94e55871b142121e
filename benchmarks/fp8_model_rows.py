"""The parts speed and accuracy of `benchmarks/fp8.py`: whole models, one row for each arm."""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.fp8_models import ARMS, BASELINE, SCALES, Arm, in_short, prepare, say
from benchmarks.fp8_products import shapes, share_in_fp8
from sequencer2d.benchmark import parse_contender
from sequencer2d.benchmark.contenders import build
from sequencer2d.benchmark.cost import count_macs
from sequencer2d.benchmark.timing import measure
from sequencer2d.data.config import DataConfig
from sequencer2d.data.loader import Loader, build_loader
from sequencer2d.evaluation.loop import evaluate
from sequencer2d.evaluation.predict import input_fields
from sequencer2d.models import load_model
from sequencer2d.models.optimizing import Optimized
from sequencer2d.tasks.accuracy import ClassificationResult

LIMIT = 0.3
"""Largest relative difference of the logits from bf16's with which an arm still counts as the same model."""
ROUNDS = 3


# Speed


def speed_rows(arguments: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """One row for each arm: rate of the whole model, and how far its logits are from bf16's."""
    model = build(parse_contender(arguments.model), arguments.size).to(device)
    found, macs = shapes(model, arguments.size), count_macs(model, arguments.size)
    images = torch.randn(arguments.batch, 3, arguments.size, arguments.size, generator=torch.Generator().manual_seed(0))
    images = images.to(device, torch.bfloat16)
    with torch.inference_mode():
        expected = prepare(model, BASELINE)(images).float()
    rows, runs = [], []
    for arm in ARMS:
        row = {"model": arguments.model, "batch": arguments.batch, "size": arguments.size, **arm.said}
        row["macs_share"] = share_in_fp8(found, macs, arm.products)
        begin = time.monotonic()
        try:
            run = compiled(model, arm, images)
            row["relative_difference"] = float((run().float() - expected).norm() / expected.norm())
            if not row["relative_difference"] <= LIMIT:
                raise RuntimeError(f"logits differ from bf16's by {row['relative_difference']:.2g}")
        except Exception as error:
            # A library, a compiler and a driver are in play; the table says which arm failed, the others go on.
            row["error"] = in_short(error)
            run = None
        row["prepare_s"] = time.monotonic() - begin
        rows.append(row)
        runs.append(run)
        say(f"{arm}: " + row.get("error", f"ready, difference {row.get('relative_difference', 0):.3g}"))
    for row, times in zip(rows, in_turns(runs, device), strict=True):
        if times:
            row["ms"] = statistics.median(times)
            row["images_per_second"] = 1000 * arguments.batch / row["ms"]
    add_ratios(rows)
    for arm, row in zip(ARMS, rows, strict=True):
        say(f"{arm}: " + (f"{row['images_per_second']:,.0f} images/s" if "ms" in row else row["error"]))
    return rows


def compiled(model: nn.Module, arm: Arm, images: Tensor) -> Callable[[], Tensor]:
    """The arm as `optimize` would run it, compiled and captured for these images."""
    torch._dynamo.reset()  # else the arms before would count against the limit of recompilations
    run = Optimized(prepare(model, arm), torch.bfloat16, compile=True, graph=images.is_cuda)
    run(images)
    return lambda: run(images)


def in_turns(runs: list[Callable[[], Tensor] | None], device: torch.device) -> list[list[float]]:
    """Milliseconds of a step in each round, for each run; what the device does falls on all alike."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(ROUNDS):
        for run, found in zip(runs, times, strict=True):
            if run is not None:
                found.append(measure(run, device, measure_s=0.3, warmup_s=0.1).step_ms)
    return times


def add_ratios(rows: list[dict[str, Any]]) -> None:
    """Add rates over those of bf16 in the same form, and over those of `optimize` in bf16."""
    for row in rows:
        for key, form in (("over_bf16", row["form"]), ("over_optimize", BASELINE.form)):
            base = next((r for r in rows if r["form"] == form and r["arithmetic"] == SCALES[""] and "ms" in r), None)
            if base and "ms" in row:
                row[key] = base["ms"] / row["ms"]


# Accuracy


class Kept:
    """A loader whose batches were read once, for several models."""

    def __init__(self, loader: Loader) -> None:
        self.batches = list(loader)
        self.normalize, self.class_names, self.broken = loader.normalize, loader.class_names, loader.broken

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.batches)


class Recorder(nn.Module):
    """A model that keeps its logits, in fp32 on the CPU."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.logits: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images).float()
        self.logits.append(logits.cpu())
        return logits


def accuracy_rows(arguments: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """One row for each checkpoint and arm, after one for fp32: top-1, and how far the logits are from fp32's."""
    rows = []
    for checkpoint, data in zip(arguments.checkpoint, arguments.data, strict=True):
        model: Any = load_model(checkpoint)
        place = {"source": "digits"} if data == "digits" else {"root": data}
        config = DataConfig(**input_fields(model), **place, batch_size=arguments.batch)
        loader = Kept(build_loader(config, config.val_split, train=False, rank=0, world_size=1))
        say(f"{checkpoint}: {model.variant}, images read")
        rows += checkpoint_rows(model.to(device), loader, device)
    return rows


def checkpoint_rows(model: Any, loader: Kept, device: torch.device) -> list[dict[str, Any]]:
    """The rows of one checkpoint."""
    exact, bf16 = None, None
    rows = []
    for arm in (None, *ARMS):
        row = {"model": model.variant, "classes": len(loader.class_names)}
        row |= {"form": "eager", "arithmetic": "fp32", "in_fp8": "–"} if arm is None else arm.said
        rows.append(row)
        try:
            result, logits = judge(model, arm, loader, device)
        except Exception as error:
            if arm is None or arm == BASELINE:  # what the others are compared with
                raise
            row["error"] = in_short(error)
            say(f"{arm}: {row['error']}")
            continue
        exact = logits if exact is None else exact
        row |= {"images": result.count, "top1_percent": result.top1, "cross_entropy": result.cross_entropy}
        row["largest_difference"] = float((logits - exact).abs().max() / exact.abs().max())
        row["relative_difference"] = float((logits - exact).norm() / exact.norm())
        if arm == BASELINE:
            bf16 = row
        say(f"{arm or 'fp32'}: top-1 {result.top1:.2f} %, largest difference {row['largest_difference']:.2g}")
    for row in rows:
        if "top1_percent" in row:
            row["top1_change_points"] = row["top1_percent"] - bf16["top1_percent"]  # type: ignore[index]
    return rows


def judge(model: nn.Module, arm: Arm | None, loader: Kept, device: torch.device) -> tuple[ClassificationResult, Tensor]:
    """What the arm (None: the model as it is, in fp32) makes of the images, and its logits (N, classes), on the CPU."""
    network = model if arm is None else Optimized(prepare(model, arm), torch.bfloat16, compile=False, graph=False)
    recorder = Recorder(network)
    result = evaluate(recorder, loader, device=device)  # type: ignore[arg-type]
    return result, torch.cat(recorder.logits)
