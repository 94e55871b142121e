"""One process or many: the same program on a CPU, a GPU, eight GPUs or several hosts.

`torchrun` starts the processes and tells each who it is through RANK, LOCAL_RANK and WORLD_SIZE; without it there is
one process and no process group.
"""

import contextlib
import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sequencer2d.environment import launch
from sequencer2d.errors import ConfigError, DeviceError
from sequencer2d.training.config import DistributedConfig


@dataclass(frozen=True)
class Processes:
    """Who this process is, and how it meets the others."""

    rank: int
    local_rank: int
    world_size: int
    device: torch.device
    control: dist.ProcessGroup | None = None
    """A gloo group for decisions between the CPUs, which never wait for the GPU; none in a single process."""

    @property
    def main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """The mean over processes of a tensor that lies on `device`; every process must call."""
        if self.world_size > 1:
            dist.all_reduce(values)
            values /= self.world_size
        return values

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.control is not None:
            dist.barrier(self.control)

    def on_main(self, action: Callable[[], None]) -> None:
        """Run `action` in the main process only; the others wait, and raise what it raised."""
        failure: list[Exception | None] = [None]
        if self.main:
            try:
                action()
            except Exception as error:
                failure[0] = error
        if self.control is not None:
            dist.broadcast_object_list(failure, src=0, group=self.control)
        if failure[0] is not None:
            raise failure[0]

    def wrap(self, model: nn.Module, **options: Any) -> nn.Module:
        """`model` with its gradients averaged over the processes in the backward pass; options are those of DDP."""
        if self.world_size == 1:
            return model
        device_ids = [self.device.index] if self.device.type == "cuda" else None
        _keep_strides(model)
        return nn.parallel.DistributedDataParallel(
            model, device_ids=device_ids, gradient_as_bucket_view=True, **options
        )


def _keep_strides(model: nn.Module) -> None:
    """Give gradients the strides of their parameters where they differ along axes of size 1 alone.

    Such are the gradients that cuDNN returns for convolutions of one pixel in channels last. Autograd takes them as
    they are, and DDP warns about them and copies them more slowly.
    """
    for parameter in model.parameters():
        if parameter.requires_grad and 1 in parameter.shape and parameter.is_contiguous():
            parameter.register_hook(_contiguous_if_free)


def _contiguous_if_free(grad: Tensor) -> Tensor:
    """A contiguous gradient with the strides that `torch.empty` gives; any other as it is."""
    return grad.view(-1).view(grad.shape) if grad.is_contiguous() else grad


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device of this process for "auto", "cpu" or "cuda".

    Raises `DeviceError` if CUDA is asked for and not there, or has fewer GPUs than processes on this host.
    """
    available = torch.cuda.is_available()
    if name == "cpu" or (name == "auto" and not available):
        return torch.device("cpu")
    if not available:
        raise DeviceError(
            "run.device=cuda was asked for, but torch sees no CUDA device; "
            "use run.device=cpu, or a build of torch with CUDA and a working driver"
        )
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise DeviceError(
            f"process {local_rank} of this host has no GPU: there are {count}; "
            f"start at most {count} processes (torchrun --nproc-per-node {count})"
        )
    return torch.device("cuda", local_rank)


@contextlib.contextmanager
def processes(config: DistributedConfig, device: str) -> Iterator[Processes]:
    """Join the processes that torchrun started, and leave them at the end; alone without torchrun.

    A process group that the caller has set up is used and left standing.
    """
    started = launch()
    rank, local_rank, size = started.rank, started.local_rank, started.world_size
    chosen = choose_device(device, local_rank)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if size == 1:
        yield Processes(rank=0, local_rank=local_rank, world_size=1, device=chosen)
        return
    owned = not dist.is_initialized()
    timeout = dt.timedelta(seconds=config.timeout_s)
    if owned:
        dist.init_process_group(_backend(config.backend, chosen), timeout=timeout)
    try:
        control: Any = dist.new_group(backend="gloo", timeout=timeout)
        yield Processes(rank=rank, local_rank=local_rank, world_size=size, device=chosen, control=control)
    finally:
        if owned:
            dist.destroy_process_group()


class Agreement:
    """What the processes decide together after each step: to save, to stop. The answer is one step old.

    Each step starts an exchange of flags between the CPUs and takes the result of the one before: every process acts
    at the same step, and neither the GPU nor the step waits for the exchange.
    """

    def __init__(self, group: dist.ProcessGroup | None) -> None:
        self._group = group
        self._pending: tuple[dist.Work | None, Tensor] | None = None

    def exchange(self, *flags: bool) -> tuple[bool, ...]:
        """Give this process's flags; whether any process had each flag set (alone: now; else: one step ago)."""
        if self._group is None:
            return flags
        previous = self._take(len(flags))
        values = torch.tensor(flags, dtype=torch.int32)
        self._pending = (dist.all_reduce(values, op=dist.ReduceOp.MAX, group=self._group, async_op=True), values)
        return previous

    def settle(self, *flags: bool) -> tuple[bool, ...]:
        """As `exchange`, but the answer includes this step's flags and every earlier one still under way."""
        if self._group is None:
            return flags
        earlier = self.exchange(*flags)
        return tuple(a or b for a, b in zip(earlier, self._take(len(flags)), strict=True))

    def _take(self, count: int) -> tuple[bool, ...]:
        if self._pending is None:
            return (False,) * count
        work, values = self._pending
        self._pending = None
        if work is not None:
            work.wait()
        return tuple(bool(value) for value in values.tolist())


def _backend(name: str, device: torch.device) -> str:
    backend = {"cpu": "gloo", "cuda": "nccl"}[device.type] if name == "auto" else name
    if backend == "nccl" and device.type != "cuda":
        raise ConfigError("distributed.backend=nccl needs CUDA devices; use gloo or auto on the CPU")
    return backend
