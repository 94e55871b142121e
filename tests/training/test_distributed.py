"""Which device and backend a process takes, what processes decide together, and the strides of gradients."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from sequencer2d.errors import ConfigError, DeviceError
from sequencer2d.training import distributed
from sequencer2d.training.config import DistributedConfig
from sequencer2d.training.distributed import Agreement, Processes, choose_device, processes

CPU, GPU = torch.device("cpu"), torch.device("cuda", 1)


@pytest.fixture
def group() -> Iterator[dist.ProcessGroup]:
    """A process group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("name", "device", "backend"),
    [("auto", CPU, "gloo"), ("auto", GPU, "nccl"), ("gloo", CPU, "gloo"), ("gloo", GPU, "gloo"), ("nccl", GPU, "nccl")],
)
def test_processes_talk_through_nccl_on_gpus_unless_told_otherwise(
    name: str, device: torch.device, backend: str
) -> None:
    assert distributed._backend(name, device) == backend


def test_nccl_is_refused_on_a_cpu() -> None:
    with pytest.raises(ConfigError, match=r"distributed\.backend=nccl needs CUDA devices"):
        distributed._backend("nccl", CPU)


@pytest.mark.parametrize(
    ("name", "count", "local_rank", "device"),
    [("auto", 0, 0, "cpu"), ("cpu", 2, 1, "cpu"), ("auto", 2, 0, "cuda:0"), ("auto", 2, 1, "cuda:1"),
     ("cuda", 2, 1, "cuda:1")],
)  # fmt: skip
def test_each_process_of_a_host_has_a_gpu_of_its_own(
    name: str, count: int, local_rank: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert choose_device(name, local_rank) == torch.device(device)
    with pytest.raises(DeviceError, match="there are 2; start at most 2 processes" if count else "no CUDA device"):
        choose_device("cuda", 2)


def test_without_a_number_a_process_takes_the_first_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device("auto") == torch.device("cuda", 0)


def test_a_process_alone_answers_at_once() -> None:
    for decide in (Agreement(None).exchange, Agreement(None).settle):
        assert decide(True, False) == (True, False)
        assert decide(False, False) == (False, False)


def test_between_steps_the_answer_is_one_step_old_and_at_the_end_of_an_epoch_of_now(group: dist.ProcessGroup) -> None:
    agreement = Agreement(group)
    assert agreement.exchange(True, False, False) == (False, False, False)
    assert agreement.exchange(False, True, False) == (True, False, False)
    assert agreement.settle(False, False, True) == (False, True, True)
    assert agreement.settle(True, False, False) == (True, False, False)
    assert agreement.exchange(False, False, False) == (False, False, False)


def test_what_the_main_process_raises_is_raised_and_others_do_nothing(group: dist.ProcessGroup) -> None:
    done: list[str] = []

    def fail() -> None:
        done.append("tried")
        raise ConfigError("no")

    for control in (None, group):
        here = Processes(rank=0, local_rank=0, world_size=1, device=CPU, control=control)
        assert here.main
        here.on_main(lambda: done.append("did"))
        with pytest.raises(ConfigError, match="no"):
            here.on_main(fail)
        here.barrier()
    assert done == ["did", "tried"] * 2
    second = Processes(rank=1, local_rank=0, world_size=2, device=CPU)
    assert not second.main
    second.on_main(fail)
    assert len(done) == 4


def test_a_mean_is_the_sum_over_processes_divided_by_their_number(group: dist.ProcessGroup) -> None:
    """In a group of one process the sum is its own value."""
    alone = Processes(rank=0, local_rank=0, world_size=1, device=CPU)
    assert alone.mean(torch.tensor([6.0, 2.0])).tolist() == [6.0, 2.0]
    one_of_two = Processes(rank=0, local_rank=0, world_size=2, device=CPU)
    assert one_of_two.mean(torch.tensor([6.0, 2.0])).tolist() == [3.0, 1.0]


@pytest.mark.parametrize(("device", "ids"), [(CPU, None), (GPU, [1])])
def test_a_model_is_wrapped_only_where_there_are_others(
    device: torch.device, ids: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(
        nn.parallel, "DistributedDataParallel", lambda model, **options: (given.append(options), model)[1]
    )
    model = nn.Linear(2, 1)
    assert Processes(rank=0, local_rank=0, world_size=1, device=device).wrap(model) is model
    assert given == []
    Processes(rank=0, local_rank=0, world_size=2, device=device).wrap(model, bucket_cap_mb=3)
    assert given == [{"device_ids": ids, "gradient_as_bucket_view": True, "bucket_cap_mb": 3}]
    assert model.weight._backward_hooks


def test_gradients_of_one_pixel_get_the_strides_of_their_parameters() -> None:
    grad = torch.arange(6.0).as_strided((2, 3, 1, 1), (3, 1, 3, 3))  # as cuDNN returns it
    found = distributed._contiguous_if_free(grad)
    assert found.stride() == (3, 1, 1, 1)
    assert torch.equal(found, grad)
    apart = torch.arange(12.0).as_strided((2, 3), (6, 2))
    assert distributed._contiguous_if_free(apart) is apart


def test_only_parameters_with_an_axis_of_one_are_watched() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 3), nn.Conv2d(3, 2, 1))
    model[2].requires_grad_(False)
    distributed._keep_strides(model)
    watched = [name for name, parameter in model.named_parameters() if parameter._backward_hooks]
    assert watched == ["0.weight"]


def test_a_process_without_torchrun_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with processes(DistributedConfig(), "cpu") as here:
        assert here == Processes(rank=0, local_rank=0, world_size=1, device=CPU)
        assert not dist.is_initialized()


@pytest.mark.parametrize("before", [False, True])
def test_a_process_group_of_the_callers_is_left_standing(before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The group is of this process alone, which torchrun would have started as the second of two."""
    started = SimpleNamespace(rank=1, local_rank=1, world_size=2)
    monkeypatch.setattr(distributed, "launch", lambda: started)
    real, asked = dist.init_process_group, []

    def begin(backend: str, timeout: object) -> None:
        asked.append((backend, timeout))
        real(backend, store=dist.HashStore(), rank=0, world_size=1)

    if before:
        begin("gloo", None)
    monkeypatch.setattr(dist, "init_process_group", begin)
    try:
        with processes(DistributedConfig(timeout_s=30), "cpu") as here:
            assert (here.rank, here.local_rank, here.world_size, here.device) == (1, 1, 2, CPU)
            assert here.control is not None
        assert dist.is_initialized() == before
        assert len(asked) == 1
        if not before:
            assert asked[0][0] == "gloo"
            assert asked[0][1].total_seconds() == 30
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
