"""Runs over several hosts: one that is lost and comes back, and stops that torchrun takes for what they are."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sequencer2d.training.fields import to_dict
from sequencer2d.training.loop import train
from tests.training.conftest import logged
from tests.training.hosts import ADDRESSES, Hosts
from tests.training.test_interruption import children, logged_if_any, wait_for

REPOSITORY = Path(__file__).parents[2]
# What each process draws for itself; without these, losses do not depend on the number of processes.
SAME_EVERYWHERE = {"model__drop_path_rate": 0.0, "data__erasing": 0.0}
ELASTIC = [
    "--nnodes", "1:2", "--nproc-per-node", "1", "--max-restarts", "3", "--monitor-interval", "0.5", "--rdzv-backend",
    "c10d", "--rdzv-endpoint", f"{ADDRESSES[0]}:29400", "--rdzv-id", "run",
]  # fmt: skip


class Torchrun(subprocess.Popen):
    """torchrun with its processes in a session of their own; standard error goes to a file."""

    def __init__(self, arguments: list[str], error: Path, before: list[str] | None = None, **environment: str) -> None:
        command = [*(before or []), sys.executable, "-m", "torch.distributed.run", *arguments]
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), **environment}
        self.error = error
        with error.open("w") as file:
            super().__init__(command, env=variables, stderr=file, stdout=subprocess.DEVNULL, start_new_session=True)

    def stderr_text(self) -> str:
        return self.error.read_text()

    def cut_power(self) -> None:
        """Kill it and all below it at once."""
        for pid in [*children(self.pid), self.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait()


@pytest.fixture
def started():
    """A list of processes that are killed in the end."""
    processes: list[Torchrun] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.cut_power()


@pytest.mark.skipif(not Hosts.available(), reason="network namespaces need root and iproute2")
def test_a_host_is_lost_and_comes_back_and_the_losses_are_those_of_one_process(tiny, tmp_path, started):
    fields = {**SAME_EVERYWHERE, "run__epochs": 5, "run__checkpoint_interval_steps": 2, "distributed__timeout_s": 6}
    train(tiny("alone", **fields))
    config = tmp_path / "config.json"
    config.write_text(json.dumps(to_dict(tiny("run", **fields, run__resume="auto"))))
    worlds = tmp_path / "worlds.txt"

    def start(host: int) -> Torchrun:
        store = f"is_host={host == 0},last_call_timeout=2,keep_alive_interval=1,keep_alive_max_attempt=5"
        arguments = [*ELASTIC, "--rdzv-conf", store, "--local-addr", ADDRESSES[host]]
        arguments += ["-m", "tests.training.run_from_json", str(config), "--slow", "0.15", "--worlds", str(worlds)]
        environment = {"GLOO_SOCKET_IFNAME": hosts.links[host], "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        error = tmp_path / f"{host}-{len(started)}.err"
        started.append(Torchrun(arguments, error, hosts.launcher(host), **environment))
        return started[-1]

    def past(step: int) -> bool:
        return len(logged_if_any(tmp_path / "run")) > step

    with Hosts() as hosts:
        first, second = start(0), start(1)
        wait_for(lambda: past(4), first)
        hosts.cable(plugged=False)
        second.cut_power()
        wait_for(lambda: past(16), first)
        hosts.cable(plugged=True)
        second = start(1)
        for process in (first, second):
            assert process.wait(120) == 0, process.stderr_text()
    assert worlds.read_text().split() == ["2", "1", "2"]
    assert_same_losses(tmp_path / "run", tmp_path / "alone")


@pytest.mark.parametrize("by", ["run.max_steps", "SIGUSR1"])
def test_a_stop_is_no_failure_to_torchrun_and_prints_no_stack(tmp_path, started, by):
    run = tmp_path / "run"
    fields = [
        "model.name=sequencer2d_n", "model.overrides.depths=1,1", "data.batch_size=144", "data.workers=1",
        "schedule.warmup_epochs=1", "run.epochs=300", "run.device=cpu", "run.log_interval=1", "run.tensorboard=false",
        f"run.output={run}", *(["run.max_steps=3"] if by == "run.max_steps" else []),
    ]  # fmt: skip
    arguments = ["--standalone", "--nproc-per-node", "2", "-m", "sequencer2d", "train", "digits", *fields]
    started.append(process := Torchrun(arguments, tmp_path / "err"))
    if by == "SIGUSR1":
        wait_for(lambda: len(logged_if_any(run)) >= 3, process)
        os.kill(children(process.pid)[1], signal.SIGUSR1)
    assert process.wait(120) == 0, process.stderr_text()
    said = process.stderr_text()
    assert "Traceback" not in said
    assert "Error" not in said
    assert said.count(f"stopped by {by}") + said.count("or another process") == 1
    assert (run / "checkpoints/last.pt").exists()
    assert not (run / "summary.json").exists()


def assert_same_losses(run: Path, other: Path) -> None:
    """Equal but for the order of sums, which differs with the number of processes."""
    losses = [[entry["loss"] for entry in logged(folder) if entry["kind"] == "step"] for folder in (run, other)]
    assert len(losses[0]) == len(losses[1])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
