"""Torch's switches during a run, what a device trains in, and its memory."""

import platform
import resource
from types import SimpleNamespace

import pytest
import torch

from sequencer2d.errors import ConfigError, DeviceError
from sequencer2d.training import hardware, prefetch
from sequencer2d.training.config import RunConfig
from sequencer2d.training.numerics import check_compiler, check_precision, compile_mode, memory_errors, numerics
from sequencer2d.training.prefetch import RunAhead, to_device

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def switches() -> tuple[bool, bool, int]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark, torch.get_num_threads()


@pytest.mark.parametrize("tf32", [True, False])
@pytest.mark.parametrize("benchmark", [True, False])
def test_switches_are_those_of_the_run_inside_and_put_back_after_it(tf32: bool, benchmark: bool) -> None:
    before = switches()
    threads = before[2] + 1
    run = RunConfig(tf32=tf32, cudnn_benchmark=benchmark, cpu_threads=threads)
    found: list[tuple[bool, bool, int]] = []

    def fail() -> None:
        found.append(switches())
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"), numerics(run, GPU):
        fail()
    assert found == [(tf32, benchmark, threads)]
    assert switches() == before
    with numerics(run, CPU):
        assert switches() == (*before[:2], threads)
    with numerics(RunConfig(cpu_threads=None), CPU):
        assert switches() == before


@pytest.mark.parametrize(
    "error",
    [MemoryError("no room"), torch.OutOfMemoryError("no room"), RuntimeError("no room: DefaultCPUAllocator: 7 bytes")],
)
def test_running_out_of_memory_says_what_takes_less(error: Exception) -> None:
    with pytest.raises(DeviceError, match=r"out of memory \(no room.*lower data\.batch_size"), memory_errors():
        raise error


def test_other_errors_are_left_as_they_are() -> None:
    with pytest.raises(RuntimeError, match=r"^other$"), memory_errors():
        raise RuntimeError("other")


def test_a_device_is_asked_for_arithmetic_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    for precision in ("fp32", "bf16"):
        check_precision(precision, CPU)
    with pytest.raises(ConfigError, match="fp16"):
        check_precision("fp16", CPU)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an old GPU")
    for supported in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda supported=supported: supported)
        for precision in ("fp32", "fp16"):
            check_precision(precision, GPU)
    with pytest.raises(ConfigError, match="bf16 is not supported by an old GPU"):
        check_precision("bf16", GPU)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    check_precision("bf16", GPU)


def test_a_cpu_compiles_nothing_for_cuda_graphs() -> None:
    found = {
        (mode, device.type): compile_mode(RunConfig(compile=mode), device)
        for mode in (False, True, "blocks", "reduce-overhead")
        for device in (CPU, GPU)
    }
    assert found == {(mode, device): mode for mode, device in found} | {("reduce-overhead", "cpu"): False}


def test_a_compiler_is_looked_for_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import cpp_builder

    def none_found() -> str:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none_found)
    for mode, device in ((False, CPU), ("reduce-overhead", CPU), (True, GPU)):
        check_compiler(RunConfig(compile=mode), device)
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler"):
        check_compiler(RunConfig(compile=True), CPU)


@pytest.mark.parametrize(("system", "peak"), [("linux", 3 * 2**10), ("darwin", 3 * 2**20)])
def test_memory_is_in_mib_whatever_the_system_counts_in(
    system: str, peak: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=peak))
    monkeypatch.setattr(hardware.sys, "platform", system)
    assert hardware.memory_mib(CPU) == 3.0
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 5 * 2**20)
    assert hardware.memory_mib(GPU) == 5.0


def test_a_device_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert hardware.device_name(CPU) == f"cpu ({platform.machine()}, 3 threads)"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    assert hardware.device_name(GPU) == "a GPU"


def test_on_a_cpu_batches_come_as_they_are() -> None:
    batches = [(torch.full((1,), number), {"size": torch.tensor(number)}) for number in range(3)]
    found = list(to_device(batches, CPU))
    assert [(images.item(), targets["size"].item()) for images, targets in found] == [(0, 0), (1, 1), (2, 2)]


class Event:
    """In place of CUDA's: notes which ones were waited for."""

    waited: list[int]
    count = 0

    def __init__(self) -> None:
        self.number, Event.count = Event.count, Event.count + 1

    def record(self) -> None:
        pass

    def synchronize(self) -> None:
        Event.waited.append(self.number)


@pytest.mark.parametrize(("options", "ahead"), [({}, 4), ({"steps": 2}, 2)])
def test_the_cpu_waits_for_the_step_launched_so_many_steps_before(
    options: dict[str, int], ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    Event.waited, Event.count = [], 0
    monkeypatch.setattr(prefetch.torch.cuda, "Event", Event)
    run = RunAhead(GPU, **options)
    for _ in range(7):
        run.mark()
    assert Event.waited == list(range(7 - ahead))
    RunAhead(CPU).mark()
    assert Event.count == 7
