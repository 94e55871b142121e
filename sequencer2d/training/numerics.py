"""Torch's global switches for speed, set for the length of a run and put back after it."""

import contextlib
from collections.abc import Iterator

import torch

from sequencer2d.errors import ConfigError, DeviceError, first_line
from sequencer2d.ops.precision import tf32
from sequencer2d.training.config import FP16_NEEDS_CUDA, RunConfig


@contextlib.contextmanager
def numerics(run: RunConfig, device: torch.device) -> Iterator[None]:
    """TF32, cuDNN's benchmark mode and the number of CPU threads as `run` asks, inside the block only."""
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    on_gpu = device.type == "cuda"
    with tf32(run.tf32) if on_gpu else contextlib.nullcontext():
        if on_gpu:
            torch.backends.cudnn.benchmark = run.cudnn_benchmark
        if run.cpu_threads is not None:
            torch.set_num_threads(run.cpu_threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.backends.cudnn.benchmark = benchmark


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Turn running out of memory into a `DeviceError` that says what takes less."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        known = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(error)
        if not known:
            raise
        raise DeviceError(
            f"out of memory ({first_line(error)}); lower data.batch_size or data.image_size, split the batch with "
            "optimizer.accumulation, or set precision=bf16"
        ) from error


def check_precision(precision: str, device: torch.device) -> None:
    """Raise `ConfigError` for an arithmetic that the device does not train in."""
    if precision == "fp16" and device.type != "cuda":
        raise ConfigError(FP16_NEEDS_CUDA)
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ConfigError(f"precision=bf16 is not supported by {torch.cuda.get_device_name(device)}; use fp16 or fp32")


def compile_mode(run: RunConfig, device: torch.device) -> bool | str:
    """What `run.compile` means on a device: "reduce-overhead" is for CUDA graphs, so a CPU compiles nothing for it."""
    return False if device.type == "cpu" and run.compile == "reduce-overhead" else run.compile


def check_compiler(run: RunConfig, device: torch.device) -> None:
    """Raise `ConfigError` where `run.compile` would need a C++ compiler that is not there."""
    if not compile_mode(run, device) or device.type != "cpu":
        return
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, RuntimeError) as error:
        raise ConfigError(
            "run.compile on a CPU needs a C++ compiler, and none is found: install g++ or clang++ (or name one in the "
            "environment variable CXX), or set run.compile=false"
        ) from error
