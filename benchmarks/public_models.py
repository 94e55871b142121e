"""What `fuse` does to public models whose code is not ours: equal outputs, speed before and after, the same loss curve.

    pip install asteroid python-doctr easyocr pyannote.audio
    python -m benchmarks.public_models [--models asteroid.DPRNNTasNet ...] [--time-limit 100] [--output FILE]
    python -m benchmarks.public_models --curve 300 [--output FILE]

Models have random weights and see random data. For each dtype, bfloat16 by autocast, a row has: the layers that were
replaced; the relative error of the fused model's output and of the original's against the original in float64; and the
milliseconds of inference and of a training step (forward, backward, AdamW) of both. float32 runs with TF32 allowed.

`--curve` trains asteroid's DPRNN to separate synthetic tones, with its own loss, from two seeds without `fuse` and from
the first seed with it, on the same data. `spread` is the difference of the losses of the two seeds, which the
difference that `fuse` makes is to be compared with; both are means over steps of absolute differences.
"""

import argparse
import copy
import functools
import importlib
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import sequencer2d
from benchmarks.columns import Column, fixed, measured
from benchmarks.record import command_line, origin, write_result
from benchmarks.recurrence_timing import milliseconds
from benchmarks.recurrences import error
from sequencer2d.errors import first_line
from sequencer2d.ops.precision import tf32

NAME, CURVES, SCRIPT = "public_models", "public_curves", "benchmarks.public_models"

# The fields of a row for the model before and after `fuse`; None if it was not measured.
MEASURED = tuple(
    f"{name}_{kind}" for name in ("before", "after") for kind in ("error", "inference_ms", "training_ms")
) + ("inference_ratio", "training_ratio")
PUBLIC_MODELS_COLUMNS = (
    Column("model", "model"),
    Column("replaced", "layers replaced", lambda replaced: str(len(replaced))),
    Column("left", "left", lambda left: str(len(left))),
    Column("dtype", "dtype"),
    *(Column(f"{name}_error", f"error {name}", measured("{:.1e}".format)) for name in ("before", "after")),
    *(Column(f"{kind}_ratio", f"speed-up, {kind}", measured(fixed(2))) for kind in ("inference", "training")),
)


@dataclass(frozen=True)
class Public:
    """A public model.

    Attributes:
        package: its distribution on PyPI.
        build: makes the model.
        shape: of a training batch that its users run.
        run: calls the model on a batch and returns what its loss takes.
    """

    package: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    run: Callable[[nn.Module, Tensor], Tensor] = lambda model, x: model(x)


def _attribute(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def _pyannet() -> nn.Module:
    task = importlib.import_module("pyannote.audio.core.task")
    model: nn.Module = _attribute("pyannote.audio.models.segmentation", "PyanNet")(num_channels=1)
    model.specifications = task.Specifications(
        problem=task.Problem.MULTI_LABEL_CLASSIFICATION,
        resolution=task.Resolution.FRAME,
        duration=10.0,
        classes=["a", "b", "c"],
    )
    model.build()  # type: ignore[operator]
    return model


MODELS = {
    "asteroid.DPRNNTasNet": Public(
        "asteroid", lambda: _attribute("asteroid.models", "DPRNNTasNet")(n_src=2), (2, 32000)
    ),
    "doctr.crnn_vgg16_bn": Public(
        "python-doctr",
        # "exportable" returns logits. While it trains, the model wants texts even so.
        lambda: _attribute("doctr.models", "crnn_vgg16_bn")(
            pretrained=False, pretrained_backbone=False, exportable=True
        ),
        (64, 3, 32, 128),
        lambda model, x: model(x, ["text"] * len(x))["logits"],
    ),
    "easyocr.vgg_model": Public(
        "easyocr",
        lambda: _attribute("easyocr.model.vgg_model", "Model")(1, 256, 256, 97),
        (64, 1, 64, 256),
        lambda model, x: model(x, None),
    ),
    "pyannote.PyanNet": Public("pyannote.audio", _pyannet, (32, 1, 160000)),
}


def training_step(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], Any]:
    """A step with AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    return step


def measure(public: Public, x: Tensor, dtype: str, implementation: str, repeats: int) -> dict[str, Any]:
    """One row: what was replaced, errors, and times in milliseconds of the model before and after `fuse`."""
    torch.manual_seed(0)
    before = public.build().to(x.device)
    models = {"before": before, "after": copy.deepcopy(before)}
    report = sequencer2d.fuse(models["after"], implementation=implementation)
    row: dict[str, Any] = {
        "replaced": [entry.before for entry in report],
        "left": [str(entry) for entry in report.left],
    }

    def call(model: nn.Module) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
            return public.run(model, x)

    with torch.no_grad():
        expected = public.run(copy.deepcopy(before).double().eval(), x.double())
        for name, model in models.items():
            row[f"{name}_error"] = error(call(model.eval()), expected)
    if repeats == 0:
        return row
    for name, model in models.items():
        with torch.no_grad():
            row[f"{name}_inference_ms"] = milliseconds(functools.partial(call, model.eval()), x.device.type, repeats)
        model.train()
        step = training_step(model, lambda model=model: call(model).float().square().mean())
        row[f"{name}_training_ms"] = milliseconds(step, x.device.type, repeats)
    for kind in ("inference", "training"):
        row[f"{kind}_ratio"] = row[f"before_{kind}_ms"] / row[f"after_{kind}_ms"]
    return row


def tones(batch: int, samples: int, seed: int, device: str) -> tuple[Tensor, Tensor]:
    """Mixtures (B, samples) of two tones of other pitch and envelope, at 8 kHz, and the tones, (B, 2, samples)."""
    generator = torch.Generator().manual_seed(seed)
    octaves = torch.rand(batch, 2, 1, generator=generator) + torch.tensor([[0.0], [2.5]])
    phases, beats = torch.rand(2, batch, 2, 1, generator=generator)
    at = torch.arange(samples) / 8000
    envelope = 0.6 + 0.4 * torch.sin(2 * math.pi * (2 + 6 * beats) * at)
    sources = envelope * torch.sin(2 * math.pi * (150 * 2**octaves * at + phases))
    return sources.sum(1).to(device), sources.to(device)


def train(fused: bool, seed: int, steps: int, args: argparse.Namespace) -> Iterator[float]:
    """The losses of a training of asteroid's DPRNN; the data are the same for all seeds."""
    losses = importlib.import_module("asteroid.losses")
    criterion = losses.PITLossWrapper(losses.pairwise_neg_sisdr, pit_from="pw_mtx")
    torch.manual_seed(seed)
    model = _attribute("asteroid.models", "DPRNNTasNet")(n_src=2, n_repeats=args.repeats_of_blocks).to(args.device)
    if fused:
        sequencer2d.fuse(model, implementation=args.implementation)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(steps):
        mixture, sources = tones(args.batch, args.samples, step, args.device)
        optimizer.zero_grad(set_to_none=True)
        loss = criterion(model(mixture), sources)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        yield loss.item()


def curves(args: argparse.Namespace) -> dict[str, Any]:
    """The losses of three training runs, and their distances."""
    runs = {}
    for name, fused, seed in (("torch, seed 0", False, 0), ("torch, seed 1", False, 1), ("fused, seed 0", True, 0)):
        runs[name] = list(train(fused, seed, args.curve, args))
        print(f"{name}: {runs[name][0]:.2f} to {runs[name][-1]:.2f} dB", flush=True)

    def distance(one: str, other: str) -> float:
        return statistics.fmean(abs(a - b) for a, b in zip(runs[one], runs[other], strict=True))

    return {
        "rows": [
            {"step": step, **dict(zip(runs, losses, strict=True))}
            for step, losses in enumerate(zip(*runs.values(), strict=True))
        ],
        "spread": distance("torch, seed 0", "torch, seed 1"),
        "difference": distance("torch, seed 0", "fused, seed 0"),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"], choices=("bfloat16", "float32"))
    parser.add_argument("--implementation", default="auto", help="of the fused layers")
    parser.add_argument("--shrink", type=int, default=1, help="divide the batch, and the samples of sound, by this")
    parser.add_argument("--repeats", type=int, default=7, help="timed calls; 0 compares outputs only")
    parser.add_argument("--time-limit", type=float, default=100, help="seconds after which no other row begins")
    parser.add_argument("--curve", type=int, metavar="STEPS", help="compare loss curves instead")
    parser.add_argument("--batch", type=int, default=4, help="mixtures in a step of --curve")
    parser.add_argument("--samples", type=int, default=8000, help="of a mixture in --curve")
    parser.add_argument("--repeats-of-blocks", type=int, default=2, help="dual-path blocks in --curve (the paper's: 6)")
    parser.add_argument(
        "--output", type=Path, help="default: benchmarks/results/public_models.json, of --curve public_curves.json"
    )
    args = parser.parse_args(arguments)
    begin, rows = time.monotonic(), []

    def save(name: str = NAME, **fields: Any) -> None:
        write_result({**origin(name, SCRIPT, command_line(SCRIPT, arguments)), **fields}, args.output)

    if args.curve:
        with tf32(True):
            result = curves(args)
        print(f"difference {result['difference']:.3f} dB, spread of seeds {result['spread']:.3f} dB")
        save(CURVES, **result)
        return
    for name in args.models:
        batch, *rest = MODELS[name].shape
        rest[-1] //= args.shrink if len(rest) < 3 else 1
        for dtype in args.dtypes:
            if time.monotonic() - begin > args.time_limit:
                print(f"not measured: {name}, {dtype}", flush=True)
                continue
            x = torch.randn(max(batch // args.shrink, 1), *rest, device=args.device)
            row: dict[str, Any] = {"model": name, "dtype": dtype, "input": list(x.shape), "failure": None}
            row |= {"implementation": args.implementation, "replaced": [], "left": [], **dict.fromkeys(MEASURED)}
            try:
                with tf32(True):
                    row |= measure(MODELS[name], x, dtype, args.implementation, args.repeats)
            except Exception as failure:
                row["failure"] = first_line(failure)
            rows.append(row)
            print(f"{time.monotonic() - begin:.0f} s {row}", flush=True)
            save(rows=rows)


if __name__ == "__main__":
    main()
