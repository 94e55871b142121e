"""A run small enough for tests: digits, a Sequencer2D of 5,000 parameters, a few steps."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sequencer2d.training.config import TrainConfig
from sequencer2d.training.fields import to_dict, with_overrides
from tests.processes import REPOSITORY, Call, Child, Preloaded, free_port

TINY = {
    "model.name": "sequencer2d_n",
    "model.drop_path_rate": 0.2,
    "model.overrides": {"depths": (1, 1), "dims": (16, 16), "hidden_dims": (4, 4), "patch_sizes": (2, 1)},
    "data.source": "digits",
    "data.image_size": 8,
    "data.batch_size": 144,
    "data.workers": 0,
    "data.crop": "pad",
    "data.crop_padding": 1,
    "data.auto_augment": "",
    "data.mixup": 0.2,
    "data.cutmix": 1.0,
    "data.mixup_switch_prob": 0.5,
    "optimizer.lr": 4e-3,
    "optimizer.clip_grad_norm": 1.0,
    "schedule.warmup_epochs": 1,
    "schedule.update": "step",
    "regularization.ema_decay": 0.9,
    "run.epochs": 2,
    "run.device": "cpu",
    "run.cpu_threads": 1,
    "run.log_interval": 1,
    "run.checkpoint_interval_s": None,
    "run.tensorboard": False,
    "run.progress": "none",
}
"""10 steps an epoch."""


@pytest.fixture(autouse=True)
def event_files_counted_from_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard reads the files of a folder by name: second, host, process, number in this process.

    Number 10 is read before number 9 of the same second, and then 9 seems to be the resumed call.
    """
    writer = sys.modules.get("tensorboard.summary.writer.event_file_writer")
    if writer:
        monkeypatch.setattr(writer, "_global_uid", writer.AtomicCounter(0))


@pytest.fixture(scope="session")
def preloaded() -> Iterator[Preloaded]:
    """Starts runs as processes of their own, without waiting for imports."""
    process = Preloaded("tests.training.run_from_json", "tests.training.kills")
    yield process
    process.close()


@pytest.fixture
def start(preloaded: Preloaded) -> Callable[..., Child | Call]:
    """Starts a run as a process of its own; `processes` under torchrun, or `forks`, which start faster."""

    def start_run(
        config: TrainConfig, folder: Path, *, slow: float = 0.0, processes: int = 1, forks: int = 1
    ) -> Child | Call:
        path = folder / f"{Path(config.run.output).name}-{time.monotonic_ns()}.json"
        path.write_text(json.dumps(to_dict(config)))
        module, arguments = "tests.training.run_from_json", [str(path), "--slow", str(slow), "--fork", str(forks)]
        if processes == 1:
            return preloaded.start(module, *arguments, folder=folder)
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
        command = [*torchrun, "--master-port", str(free_port()), "-m", module, *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
        return Child(command, folder, environment)

    return start_run


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., TrainConfig]:
    """Builds the tiny configuration, with fields given as section__field=value; runs go below `tmp_path`."""

    def build(name: str = "run", **fields: Any) -> TrainConfig:
        return configuration(tmp_path / name, {path.replace("__", "."): value for path, value in fields.items()})

    return build


def configuration(output: Path, fields: dict[str, Any]) -> TrainConfig:
    """The tiny configuration with fields given by their paths."""
    return with_overrides(TrainConfig(), {**TINY, "run.output": str(output), **fields})


def logged(folder: str | Path) -> list[dict[str, Any]]:
    """The log without what depends on the clock and the machine."""
    clock = {"time_s", "eta_s", "images_per_s", "memory_mib"}
    lines = (Path(folder) / "log.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in clock} for line in lines]


def equal(a: Any, b: Any) -> bool:
    """Whether two trees of dictionaries, sequences, tensors and plain values are the same, bit by bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(equal(*pair) for pair in zip(a, b, strict=True))
    return type(a) is type(b) and a == b
