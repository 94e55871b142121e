"""Runs the Gluon kernels on a CPU, as Triton's interpreter does not: their Python functions, with a `gl` made of torch.

Layouts mean nothing here; values, addresses, masks and the order of asynchronous copies do. Shared memory begins as
NaN, so does the target of a copy until it was waited for; an address outside a tensor is an error unless it is masked.
"""

import inspect
import itertools
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import pytest
import torch

from sequencer2d.ops.kernels import gluon_backward, gluon_common, gluon_forward, gluon_spread, spread

MODULES = (gluon_common, gluon_spread, gluon_forward, gluon_backward)
KERNELS = {gluon_forward: "forward_kernel", gluon_backward: "backward_kernel"}
MACHINES = ("gl", "async_copy", "mma_v2", "gdc_launch_dependents", "gdc_wait")


class Value(torch.Tensor):
    """A block of values; its layout is nothing."""

    @property
    def type(self) -> Any:
        return SimpleNamespace(layout=None)

    def __iadd__(self, other: Any) -> "Value":
        return self + other  # a new block: a kernel's values never change


class Scalar(int):
    def to(self, _: Any) -> "Scalar":
        return self


def value(data: Any) -> Value:
    return torch.as_tensor(data).as_subclass(Value)


class Pointer:
    """Addresses in a tensor's memory."""

    in_use: ClassVar[set[int]] = set()  # tensors that the launch before may still be writing or reading

    def __init__(self, tensor: torch.Tensor, offset: Any = 0) -> None:
        assert tensor.is_contiguous()
        self.tensor, self.offset = tensor, offset
        self.dtype = SimpleNamespace(element_ty=tensor.dtype)

    def __add__(self, offset: Any) -> "Pointer":
        return Pointer(self.tensor, self.offset + offset)

    def places(self, mask: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Offsets and which of them count, of one shape; those that do not are 0."""
        assert self.tensor.data_ptr() not in self.in_use, "used before the launch before has ended"
        offset = torch.as_tensor(self.offset)
        mask = torch.as_tensor(True if mask is None else mask)
        offset, mask = torch.broadcast_tensors(offset, mask)
        used = offset[mask]
        inside = not used.numel() or (used.min() >= 0 and used.max() < self.tensor.numel())
        assert inside, "an address outside the tensor"
        return offset.where(mask, torch.zeros_like(offset)), mask

    def load(self, mask: Any = None) -> Value:
        offset, mask = self.places(mask)
        if not self.tensor.numel():
            return value(torch.zeros(offset.shape, dtype=self.tensor.dtype))
        loaded = self.tensor.view(-1)[offset]
        return value(loaded.where(mask, torch.zeros_like(loaded)))

    def store(self, stored: torch.Tensor, mask: Any = None) -> None:
        offset, mask = self.places(mask)
        assert stored.dtype == self.tensor.dtype
        self.tensor.view(-1)[offset[mask]] = torch.broadcast_to(stored, offset.shape)[mask].as_subclass(torch.Tensor)


class Shared:
    """A block of shared memory, or a view of one."""

    def __init__(self, data: torch.Tensor) -> None:
        self.data = data

    def index(self, place: int) -> "Shared":
        return Shared(self.data[place])

    def permute(self, order: list[int]) -> "Shared":
        return Shared(self.data.permute(order))

    def load(self, _layout: Any) -> Value:
        return value(self.data.clone())

    def store(self, stored: torch.Tensor) -> None:
        assert (stored.shape, stored.dtype) == (self.data.shape, self.data.dtype)
        self.data.copy_(stored)


class Copy(NamedTuple):
    """An asynchronous copy under way."""

    target: Shared
    pointer: Pointer
    mask: Any
    value: Value


class Machine:
    """One program at a time: `gl`, `async_copy` and `mma_v2` as the kernels use them."""

    def __init__(self) -> None:
        self.program, self.grid = (0, 0), (1, 1)
        self.uncommitted: list[Copy] = []
        self.groups: list[list[Copy]] = []
        nothing = lambda *_, **__: None  # noqa: E731
        same = lambda x, *_, **__: x  # noqa: E731
        self.gl = SimpleNamespace(
            constexpr=object, float32=torch.float32, int64=torch.int64, static_range=range,
            NVMMADistributedLayout=nothing, DotOperandLayout=nothing, SliceLayout=nothing, BlockedLayout=nothing,
            SwizzledSharedLayout=nothing, DistributedLinearLayout=nothing,
            program_id=lambda axis: self.program[axis], num_programs=lambda axis: self.grid[axis],
            arange=lambda begin, end, _: value(torch.arange(begin, end)),
            zeros=lambda shape, dtype, _: value(torch.zeros(shape, dtype=dtype)),
            allocate_shared_memory=lambda dtype, shape, _: Shared(torch.full(shape, float("nan"), dtype=dtype)),
            where=lambda c, a, b: torch.where(c, a, b) if isinstance(c, torch.Tensor) else Scalar(a if c else b),
            minimum=lambda x, limit: x.clamp(max=limit), cdiv=lambda a, b: -(-a // b), exp=torch.exp, abs=torch.abs,
            split=lambda x: x.unbind(-1), join=lambda a, b: torch.stack((a, b), -1),
            load=lambda pointer, mask=None, other=0.0, volatile=False: pointer.load(mask),
            store=lambda pointer, stored, mask=None: pointer.store(stored, mask),
            convert_layout=same, multiple_of=same, max_contiguous=same,
        )  # fmt: skip
        self.gdc_launch_dependents, self.gdc_wait = nothing, Pointer.in_use.clear
        self.async_copy = SimpleNamespace(commit_group=self.commit, wait_group=self.wait)

    def copy(self, target: Shared, pointer: Pointer, mask: Any = None) -> None:
        self.uncommitted.append(Copy(target, pointer, mask, pointer.load(mask)))
        target.data.fill_(float("nan"))

    def commit(self) -> None:
        self.groups.append(self.uncommitted)
        self.uncommitted = []

    def wait(self, left: int) -> None:
        while len(self.groups) > left:
            for copy in self.groups.pop(0):
                assert torch.equal(copy.pointer.load(copy.mask), copy.value), "overwritten while it was copied"
                copy.target.store(copy.value)

    @staticmethod
    def mma_v2(a: torch.Tensor, b: torch.Tensor, total: torch.Tensor) -> Value:
        return value(a.float() @ b.float() + total)

    def kernel(self, function: Any) -> Any:
        return Kernel(self, function)


class Kernel:
    """Stands for a kernel: a launch runs its programs one after another."""

    def __init__(self, machine: Machine, function: Any) -> None:
        self.machine, self.function = machine, function
        self.names = list(inspect.signature(function).parameters)

    def __getitem__(self, grid: tuple[int, int]) -> Any:
        def launch(
            *arguments: Any, num_warps: int, launch_pdl: bool = False, enable_fp_fusion: bool, **options: Any
        ) -> None:
            named = zip(self.names, arguments, strict=False)
            others = [a for name, a in named if isinstance(a, torch.Tensor) and name != "weight"]
            arguments = tuple(Pointer(a) if isinstance(a, torch.Tensor) else a for a in arguments)
            self.machine.grid = grid
            for program in itertools.product(*(range(size) for size in grid)):
                self.machine.program, self.machine.groups, self.machine.uncommitted = program, [], []
                Pointer.in_use.clear()
                if launch_pdl:
                    Pointer.in_use.update(tensor.data_ptr() for tensor in others)
                self.function(*arguments, **options)

        return launch


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the kernels' launches run here for the rest of a test."""
    machine = Machine()
    for module in MODULES:
        for name, attribute in list(vars(module).items()):
            if hasattr(attribute, "fn") and name not in KERNELS.values():
                monkeypatch.setattr(module, name, attribute.fn)
        for name in MACHINES:
            if hasattr(module, name):
                monkeypatch.setattr(module, name, getattr(machine, name))
    monkeypatch.setattr(gluon_common, "GATES", 4)
    for name in ("REGISTERS", "SHARED", "MEMORY"):
        monkeypatch.setattr(gluon_spread, name, getattr(spread, name))
    monkeypatch.setattr(gluon_common, "copy_async", machine.copy)
    for module, name in KERNELS.items():
        monkeypatch.setattr(module, name, machine.kernel(getattr(module, name).fn))
