"""A run's folder belongs to one run at a time, and nobody takes it away unnoticed."""

import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from sequencer2d.errors import ConfigError, Interrupted, RunError
from sequencer2d.files import atomic_write
from sequencer2d.training import loop
from sequencer2d.training.folder import RunFolder
from sequencer2d.training.loop import train
from tests.training.conftest import logged


def hold(path: Path, ready) -> None:
    with RunFolder(path) as folder:
        folder.open("auto")
        ready.set()
        time.sleep(60)


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    first = context.Process(target=hold, args=(tmp_path / "run", ready))
    first.start()
    assert ready.wait(60)
    for resume in (False, True, "auto"):
        with (
            pytest.raises(RunError, match=f"in use by another run .process {first.pid} on "),
            RunFolder(tmp_path / "run") as folder,
        ):
            folder.open(resume)
    first.kill()
    first.join()
    with RunFolder(tmp_path / "run") as folder:
        folder.open("auto")


def test_a_second_run_of_the_same_process_is_refused(tmp_path):
    with RunFolder(tmp_path / "run") as folder:
        folder.open(False)
        with pytest.raises(RunError, match="this process"), RunFolder(tmp_path / "." / "run") as again:
            again.open(False)
    with RunFolder(tmp_path / "run") as folder:
        folder.open(False)


def race(path: Path, barrier, results) -> None:
    barrier.wait()
    with RunFolder(path) as folder:
        try:
            folder.open(False)
            (path / "log.jsonl").touch()
            results.put("took it")
            time.sleep(1)
        except (RunError, ConfigError) as error:
            results.put(str(error))


def test_of_runs_that_start_at_once_one_takes_the_folder(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(6), context.Queue()
    racers = [context.Process(target=race, args=(tmp_path / "new/run", barrier, results)) for _ in range(6)]
    for racer in racers:
        racer.start()
    said = [results.get(timeout=60) for _ in racers]
    for racer in racers:
        racer.join()
    assert said.count("took it") == 1
    assert all("in use by another run" in text for text in said if text != "took it")


def test_the_lock_of_a_killed_run_does_not_live_on_in_its_workers(tmp_path):
    """A worker that is forked while the lock is held outlives its training process."""
    read_end, write_end = os.pipe()
    trainer = os.fork()
    if trainer == 0:
        folder = RunFolder(tmp_path / "run")
        folder.open("auto")
        worker = os.fork()
        if worker == 0:
            time.sleep(60)
            os._exit(0)
        os.write(write_end, b"%d\n" % worker)
        time.sleep(60)
        os._exit(0)
    worker = int(os.read(read_end, 100))
    try:
        os.kill(trainer, signal.SIGKILL)
        os.waitpid(trainer, 0)
        os.kill(worker, 0)
        with RunFolder(tmp_path / "run") as folder:
            folder.open("auto")
    finally:
        os.kill(worker, signal.SIGKILL)


def write_and_hang(path: Path, ready) -> None:
    with atomic_write(path) as file:
        file.write(b"half")
        file.flush()
        ready.set()
        time.sleep(60)


def test_what_a_killed_writer_left_is_swept_and_what_a_living_one_writes_stays(tmp_path):
    context = multiprocessing.get_context("fork")
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    writers = []
    for name in ("best.safetensors", "checkpoints/step-00000003.pt", "summary.json"):
        ready = context.Event()
        writers.append(context.Process(target=write_and_hang, args=(folder / name, ready)))
        writers[-1].start()
        assert ready.wait(60)
    (folder / ".notes.part.txt").touch()
    for writer in writers[:2]:
        writer.kill()
        writer.join()
    with RunFolder(folder) as run:
        run.open("auto")
    assert [path.name.split(".")[1] for path in folder.rglob(".*.part")] == ["summary"]
    assert (folder / ".notes.part.txt").exists()
    writers[2].kill()
    writers[2].join()
    with atomic_write(folder / "summary.json", "w") as file:
        file.write("{}")
    assert not list(folder.rglob(".*.part"))


@pytest.mark.parametrize("board", [False, True])
@pytest.mark.parametrize("again", [False, True])
def test_a_folder_removed_in_mid_run_is_one_line(tiny, tmp_path, monkeypatch, board, again):
    real, steps = loop.RunAhead.mark, []

    def mark(self):
        steps.append(1)
        if len(steps) == 13:
            shutil.rmtree(tmp_path / "run")
            if again:
                (tmp_path / "run/checkpoints").mkdir(parents=True)
        return real(self)

    monkeypatch.setattr(loop.RunAhead, "mark", mark)
    with pytest.raises(RunError, match="was removed or replaced while the run wrote into it"):
        train(tiny(run__tensorboard=board, run__checkpoint_interval_steps=5, run__log_interval=7))
    assert len(steps) < 20
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not left, "nothing is written into a folder that is no longer the run's"
    assert threading.active_count() < 10


def test_a_disk_that_fills_up_under_the_log_is_one_line(tiny, monkeypatch):
    from sequencer2d.training import runlog

    real = runlog.json.dumps

    def full(entry, **options):
        if entry.get("step") == 3:
            raise OSError(28, "No space left on device")
        return real(entry, **options)

    monkeypatch.setattr(runlog.json, "dumps", full)
    with pytest.raises(RunError, match=r"cannot write the log in .* \(No space left on device\)"):
        train(tiny())


def test_an_epoch_logged_after_the_checkpoint_at_its_end_is_logged_once(tiny, tmp_path, monkeypatch):
    """The checkpoint at step 10 is written before the evaluation of epoch 1; the run dies after that."""
    fields = {"run__checkpoint_interval_steps": 10, "run__tensorboard": True}
    whole = tiny("whole", **fields)
    train(whole)
    real, steps = loop.RunAhead.mark, []

    def mark(self):
        steps.append(1)
        if len(steps) == 13:
            raise InterruptedError("killed")
        return real(self)

    monkeypatch.setattr(loop.RunAhead, "mark", mark)
    with pytest.raises(InterruptedError):
        train(tiny(**fields))
    assert [entry["epoch"] for entry in logged(tmp_path / "run") if entry["kind"] == "epoch"] == [1]
    train(tiny(run__resume=True, **fields))
    assert logged(tmp_path / "run") == logged(tmp_path / "whole")
    assert scalars(tmp_path / "run") == scalars(tmp_path / "whole")


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows, without what depends on the clock."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    clock = ("time_s", "eta_s", "images_per_s", "memory_mib")
    names = [name for name in events.Tags()["scalars"] if not name.endswith(clock)]
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in names}


def test_the_advice_after_a_limit_leads_to_the_end(tiny, tmp_path):
    from sequencer2d.cli.train import resolve

    for limit in ({"run__max_steps": 3}, {"run__time_limit_s": 1e-9}):
        config = tiny("-".join(limit), **limit)
        with pytest.raises(Interrupted, match="--resume"):
            train(config)
        assert json.loads(Path(config.run.output, "config.json").read_text())["run"]["max_steps"] is None
        assert train(resolve(None, [], config.run.output))["steps"] == 20
