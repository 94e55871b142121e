"""The lines of a run, of known entries."""

import pytest

from sequencer2d.tasks.task import Metric
from sequencer2d.training.messages import epoch_text, step_text

STEP = {"loss": 1.23456, "lr": 0.00025, "images_per_s": 12345.6, "memory_mib": 1234.5}
METRICS = (
    Metric("top1", field="top1", label="top-1", unit="%"),
    Metric("top5", field="top5", label="top-5", brief=False),
)


@pytest.mark.parametrize(
    ("seconds", "left"),
    [
        (None, ""),
        (float("inf"), ""),
        (float("nan"), ""),
        (0.0, "  0:00:00 left"),
        (59.9, "  0:00:59 left"),
        (60, "  0:01:00 left"),
        (3661, "  1:01:01 left"),
        (90000, "  25:00:00 left"),
    ],
)
def test_a_step(seconds, left):
    entry = STEP if seconds is None else {**STEP, "eta_s": seconds}
    assert step_text(entry) == "loss 1.2346  lr 2.50e-04  12,346 images/s  1,234 MiB" + left


def test_an_epoch_shows_the_metrics_that_are_brief_and_there():
    entry = {"epoch": 3, "train_loss": 0.123456, "time_s": 61.5, "top1": 98.765, "top5": 99.9}
    assert epoch_text(entry, METRICS) == "epoch 3  train loss 0.1235  top-1 98.77 %  62 s"
    assert epoch_text({"epoch": 1, "train_loss": 2, "time_s": 1}, METRICS) == "epoch 1  train loss 2.0000  1 s"
