import json

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
    with RunLog(tmp_path, total_steps=10, first_step=2, tensorboard=False, progress="none") as log:
        log.step(entry(3))
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2, 3]


def test_lines_show_what_matters(tmp_path, capfd):
    with RunLog(tmp_path, total_steps=10, first_step=0, tensorboard=False, progress="lines") as log:
        log.step(entry(1))
        log.epoch({"step": 10, "epoch": 1, "train_loss": 1.0, "time_s": 9.0, "top1": 98.5, "val_loss": 0.1})
    shown = capfd.readouterr().err
    for part in ("step 1/10", "loss 1.0000", "5 images/s", "1 MiB", "0:01:00 left", "top-1 98.50 %"):
        assert part in shown


def test_a_bar_leaves_the_log_as_it_is(tmp_path):
    with RunLog(tmp_path, total_steps=10, first_step=0, tensorboard=False, progress="bar") as log:
        log.step(entry(1))
        log.advance(1)
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
