"""What a run trains on: its name, and the memory that it took."""

import platform
import resource
import sys

import torch

from sequencer2d.errors import counted


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's kind."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({platform.machine()}, {counted(torch.get_num_threads(), 'thread')})"


def memory_mib(device: torch.device) -> float:
    """The most memory held so far, in MiB: by torch on a GPU, by the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
