"""What a run says: its first lines, the entries of its log, and these as lines of text."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from sequencer2d.errors import counted
from sequencer2d.tasks.task import Metric
from sequencer2d.training.config import RunConfig, TrainConfig
from sequencer2d.training.distributed import Processes
from sequencer2d.training.hardware import device_name, memory_mib
from sequencer2d.training.numerics import compile_mode
from sequencer2d.training.state import RunState


def announcement(config: TrainConfig, model: nn.Module, here: Processes, state: RunState) -> Iterator[str]:
    """Lines about what is about to run."""
    run = config.run
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    yield f"{config.model.name}, {millions:.2f} M parameters, on {here.world_size} × {device_name(here.device)}"
    yield (
        f"{counted(state.total_steps, 'step')} ({counted(run.epochs, 'epoch')} × {state.steps_per_epoch}) of "
        f"{counted(config.data.batch_size, 'image')} into {run.output}"
    )
    if run.resume:
        yield f"resumed at step {state.step}" if state.step else "no checkpoint there yet: starting anew"
    if notice := compiling_notice(run, here.device):
        yield notice


def compiling_notice(run: RunConfig, device: torch.device) -> str:
    """What to expect of `run.compile` on a device; empty if nothing was asked for."""
    if not run.compile:
        return ""
    if not compile_mode(run, device):
        return (
            f"not compiled: run.compile={run.compile} captures CUDA graphs, which a CPU has not; run.compile=true "
            "compiles for the CPU, which takes minutes"
        )
    if device.type == "cpu":
        return (
            "compiling for the CPU: the first step of training and of evaluation takes minutes, in which nothing else "
            "is shown; run.compile=false starts at once"
        )
    return "compiling: the first step of training takes about a minute, that of evaluation less"


def step_entry(state: RunState, lr: float, *, batch: int, device: torch.device) -> dict[str, Any]:
    """The log's entry of the step that is done, with the mean loss since the last one.

    Args:
        state: where the run stands; its window is drained.
        lr: learning rate of the step.
        batch: images of a step over all processes.
        device: whose memory is reported.
    """
    loss, norm = state.window.take_mean()
    speed = state.speed.recent()
    return {
        "step": state.step,
        "epoch": state.step / state.steps_per_epoch,
        "loss": loss,
        "lr": lr,
        **({} if norm is None else {"grad_norm": norm}),
        "images_per_s": round(speed, 1),
        "memory_mib": round(memory_mib(device), 1),
        "time_s": round(state.time_s, 3),
        "eta_s": round((state.total_steps - state.step) * batch / speed, 1),
    }


def step_text(entry: dict[str, Any]) -> str:
    return (
        f"loss {entry['loss']:.4f}  lr {entry['lr']:.2e}  {entry['images_per_s']:,.0f} images/s  "
        f"{entry['memory_mib']:,.0f} MiB{_eta_text(entry)}"
    )


def _eta_text(entry: dict[str, Any]) -> str:
    seconds = entry.get("eta_s")
    if seconds is None or not math.isfinite(seconds):
        return ""
    return f"  {duration_text(seconds)} left"


def duration_text(seconds: float) -> str:
    """Hours, minutes and seconds as `0:02:05`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def epoch_text(entry: dict[str, Any], metrics: Sequence[Metric]) -> str:
    shown = [metric for metric in metrics if metric.brief and metric.key in entry]
    parts = [
        f"epoch {entry['epoch']}",
        f"train loss {entry['train_loss']:.4f}",
        *(f"{metric.label} {metric.show(entry[metric.key])}" for metric in shown),
        f"{entry['time_s']:.0f} s",
    ]
    return "  ".join(parts)
