"""`summary.json`: what came out of a run, on what, with what."""

import platform
from typing import Any

import timm
import torch

import sequencer2d
from sequencer2d.training.config import TrainConfig
from sequencer2d.training.fields import to_dict


def summarize(
    config: TrainConfig,
    *,
    final: dict[str, Any],
    best: dict[str, Any] | None,
    steps: int,
    duration_s: float,
    images_per_s: float | None,
    device: torch.device,
    world_size: int,
    parameters: int,
    memory_mib: float,
) -> dict[str, Any]:
    """The summary as JSON values. `duration_s` and `images_per_s` count all calls of the run."""
    return {
        "model": config.model.name,
        "parameters": parameters,
        "final": final,
        "best": best,
        "epochs": config.run.epochs,
        "steps": steps,
        "duration_s": round(duration_s, 3),
        "images_per_s": None if images_per_s is None else round(images_per_s, 1),
        "memory_mib": round(memory_mib, 1),
        "device": device_name(device),
        "processes": world_size,
        "versions": versions(),
        "config": to_dict(config),
    }


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's kind."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"


def versions() -> dict[str, str | None]:
    """Versions of what the numbers depend on."""
    return {
        "sequencer2d": sequencer2d.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "timm": timm.__version__,
    }
