"""Where a model's time goes: GPU time by kernel, for inference or a training step, after torch.compile.

    python -m benchmarks.kernels.profile_model sequencer2d_s --mode inference --batch 256 --output profile.json

Names starting with `timm/` are timm's models (`timm/convnext_tiny`).
"""

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path

import torch
from torch._functorch import config as functorch_config

from benchmarks.record import command_line, origin, write_result

NAME = "profile"
SCRIPT = "benchmarks.kernels.profile_model"


def build(name: str, implementation: str, gates: str) -> torch.nn.Module:
    if name.startswith("timm/"):
        import timm

        return timm.create_model(name.removeprefix("timm/")).cuda()
    import sequencer2d

    model = sequencer2d.create_model(name, gates=gates).cuda()
    model.set_implementation(implementation)
    return model


def inference_step(model, batch: int, size: int, mode: str | None):
    model = model.eval().to(torch.bfloat16, memory_format=torch.channels_last)
    x = torch.randn(batch, 3, size, size, device="cuda", dtype=torch.bfloat16)
    x = x.to(memory_format=torch.channels_last)
    if mode == "optimized":
        import sequencer2d

        compiled = sequencer2d.optimize(model, graph=False, whole=True)
    else:
        compiled = torch.compile(model, mode=mode) if mode != "eager" else model

    def step():
        with torch.inference_mode():
            return compiled(x)

    return step


def training_step(model, batch: int, size: int, mode: str | None):
    model = model.train().to(memory_format=torch.channels_last)
    x = torch.randn(batch, 3, size, size, device="cuda").to(memory_format=torch.channels_last)
    y = torch.randint(0, 1000, (batch,), device="cuda")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    compiled = torch.compile(model, mode=mode) if mode != "eager" else model

    def step():
        with torch.autocast("cuda", torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(compiled(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def milliseconds(step, repeats: int = 20) -> float:
    for _ in range(5):
        step()
    times = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        step()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def graphed(step):
    """The step as one CUDA graph."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def kernels(step, count: int = 30) -> list[dict]:
    """GPU time by kernel over one step, in milliseconds, largest first."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        step()
        torch.cuda.synchronize()
    totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    for event in profiler.events():
        totals[event.name][0] += event.device_time_total / 1000
        totals[event.name][1] += 1
    rows = [{"kernel": name[:110], "ms": round(ms, 4), "calls": calls} for name, (ms, calls) in totals.items()]
    return sorted(rows, key=lambda row: -row["ms"])[:count]


def measure(name: str, args: argparse.Namespace) -> dict:
    """One row: time of a step, in inference as a CUDA graph too, peak memory, and GPU time by kernel."""
    make = inference_step if args.mode == "inference" else training_step
    torch._dynamo.reset()
    step = make(build(name, args.implementation, args.gates), args.batch, args.size, args.compile)
    torch.cuda.reset_peak_memory_stats()
    ms = milliseconds(step)
    row = {"model": name, "mode": args.mode, "form": args.compile, "implementation": args.implementation}
    row |= {"gates": args.gates, "memory_budget": args.memory_budget}
    row |= {"batch": args.batch, "size": args.size, "ms": ms, "images_per_s": args.batch / ms * 1000}
    row["peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
    row["graph_ms"] = milliseconds(graphed(step)) if args.mode == "inference" else None
    row["kernels"] = kernels(step)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--mode", choices=("inference", "training"), default="inference")
    parser.add_argument("--batch", type=int, default=256, help="images")
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--compile", default="default", help="eager, default, optimized, or torch.compile's mode")
    parser.add_argument("--implementation", default="auto")
    parser.add_argument(
        "--gates", choices=("stored", "recomputed"), default="stored", help="of our models, in training"
    )
    parser.add_argument(
        "--memory-budget",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="of the activations that the compiler may keep for backward; it computes the others again",
    )
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/profile.json")
    args = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    functorch_config.activation_memory_budget = args.memory_budget
    rows = []
    for name in args.models:
        rows.append(measure(name, args))
        print(json.dumps({key: value for key, value in rows[-1].items() if key != "kernels"}))
        for kernel in rows[-1]["kernels"]:
            print(f"{kernel['ms']:9.3f} ms {kernel['calls']:5d}  {kernel['kernel']}")
        write_result({**origin(NAME, SCRIPT, command_line(SCRIPT)), "rows": rows}, args.output)


if __name__ == "__main__":
    main()
