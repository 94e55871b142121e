import json

import pytest
import torch

from sequencer2d.training.bar import bar_of
from sequencer2d.training.logfile import read_log
from sequencer2d.training.runlog import RunLog
from sequencer2d.training.speed import Speedometer


def entry(step: int) -> dict:
    return {
        "step": step,
        "epoch": step / 10,
        "loss": 1.0,
        "lr": 1e-3,
        "images_per_s": 5.0,
        "memory_mib": 1.0,
        "eta_s": 60.0,
    }


def test_resuming_drops_the_lines_after_the_checkpoint_and_a_broken_one(tmp_path):
    lines = [json.dumps({"kind": "step", **entry(step)}) for step in (1, 2, 3)]
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + '\n{"kind": "st')
    with RunLog(tmp_path, total_steps=10, first_step=2, trackers=(), progress="none") as log:
        log.step(entry(3))
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2, 3]


def test_lines_show_what_matters(tmp_path, capfd):
    with RunLog(tmp_path, total_steps=10, first_step=0, trackers=(), progress="lines") as log:
        log.step(entry(1))
        log.epoch({"step": 10, "epoch": 1, "train_loss": 1.0, "time_s": 9.0, "top1": 98.5, "val_loss": 0.1})
    shown = capfd.readouterr().err
    for part in ("step 1/10", "loss 1.0000", "5 images/s", "1 MiB", "0:01:00 left", "top-1 98.50 %"):
        assert part in shown


def test_a_bar_leaves_the_log_as_it_is(tmp_path):
    bar = bar_of(total_steps=10, first_step=0, steps_per_epoch=10, batch=1, memory=lambda: 1.0)
    with RunLog(tmp_path, total_steps=10, first_step=0, trackers=(), progress="bar", bar=bar) as log:
        log.step(entry(1))
        log.show("evaluating")
        log.advance(1, torch.tensor(1.0), 1e-3)
    assert [line["step"] for line in read_log(tmp_path)] == [1]


def test_speed_leaves_out_pauses(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("sequencer2d.training.speed.time.monotonic", lambda: now[0])
    speed = Speedometer(batch=10)
    assert speed.overall() is None
    speed.start()
    speed.count()
    now[0] = 2.0
    assert speed.recent() == 5.0
    speed.pause()
    now[0] = 100.0
    assert speed.overall() == 5.0
    resumed = Speedometer(batch=10)
    resumed.load_state_dict(speed.state_dict())
    assert resumed.overall() == 5.0


def test_a_line_is_in_the_file_as_soon_as_it_is_logged(tmp_path):
    """Not when the run ends: a killed run keeps its log, and others may watch it."""
    with RunLog(tmp_path, total_steps=10, first_step=0, trackers=(), progress="none") as log:
        log.step(entry(1))
        assert read_log(tmp_path) == [{"kind": "step", **entry(1)}]
        log.epoch({"step": 10, "epoch": 1, "train_loss": 1.0, "time_s": 9.0})
        assert [line["kind"] for line in read_log(tmp_path)] == ["step", "epoch"]


def scalars(folder):
    """TensorBoard's curves: name → [(step, value), …]."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    names = events.Tags()["scalars"]
    return {name: [(event.step, round(event.value, 6)) for event in events.Scalars(name)] for name in names}


def test_tensorboard_has_the_numbers_of_the_log_at_their_steps(tmp_path):
    done = {"step": 10, "epoch": 1, "train_loss": 0.75, "time_s": 9.0, "top1": 98.5, "val_loss": None}
    with RunLog(tmp_path, total_steps=20, first_step=0, trackers=("tensorboard",), progress="none") as log:
        for step in (5, 10):
            log.step({**entry(step), "loss": 1 / step, "lr": step / 1000})
        log.epoch(done)
    curves = scalars(tmp_path)
    assert curves["step/loss"] == [(5, 0.2), (10, 0.1)]
    assert curves["step/lr"] == [(5, 0.005), (10, 0.01)]
    assert curves["step/images_per_s"] == [(5, 5.0), (10, 5.0)]
    assert curves["epoch/top1"] == [(10, 98.5)]
    assert curves["epoch/train_loss"] == [(10, 0.75)]
    assert "epoch/val_loss" not in curves, "it was not finite"
    assert not {"step/step", "epoch/step"} & set(curves)


def test_a_resumed_run_takes_its_dropped_steps_from_tensorboard_too(tmp_path):
    with RunLog(tmp_path, total_steps=20, first_step=0, trackers=("tensorboard",), progress="none") as log:
        for step in (1, 2, 3):
            log.step({**entry(step), "loss": 1.0})
    with RunLog(tmp_path, total_steps=20, first_step=2, trackers=("tensorboard",), progress="none") as log:
        log.step({**entry(3), "loss": 0.5})
    assert scalars(tmp_path)["step/loss"] == [(1, 1.0), (2, 1.0), (3, 0.5)]


def test_without_tensorboard_there_is_no_folder_of_its(tmp_path):
    with RunLog(tmp_path, total_steps=10, first_step=0, trackers=(), progress="none") as log:
        log.step(entry(1))
    assert not (tmp_path / "tensorboard").exists()
