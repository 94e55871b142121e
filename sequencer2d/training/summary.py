"""`summary.json`: what came out of a run, on what, with what."""

import platform
from typing import Any

import timm
import torch
from torch import nn

import sequencer2d
from sequencer2d.training.config import TrainConfig
from sequencer2d.training.distributed import Processes
from sequencer2d.training.fields import to_dict
from sequencer2d.training.hardware import device_name, memory_mib
from sequencer2d.training.state import RunState


def summarize(config: TrainConfig, state: RunState, model: nn.Module, here: Processes) -> dict[str, Any]:
    """The summary as JSON values. Duration (seconds) and images/s count all calls of the run."""
    speed = state.speed.overall()
    return {
        "model": config.model.name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "final": state.final,
        "best": state.best,
        "epochs": config.run.epochs,
        "steps": state.step,
        "duration_s": round(state.time_s, 3),
        "images_per_s": None if speed is None else round(speed, 1),
        "memory_mib": round(memory_mib(here.device), 1),
        "device": device_name(here.device),
        "processes": here.world_size,
        "versions": versions(),
        "config": to_dict(config),
    }


def versions() -> dict[str, str | None]:
    """Versions of what the numbers depend on."""
    return {
        "sequencer2d": sequencer2d.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda,
        "timm": timm.__version__,
    }
