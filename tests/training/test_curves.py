import json
import math

import pytest
from PIL import Image

from sequencer2d.training.curves import curves_figure, loss_note, plot_curves
from sequencer2d.training.loop import train
from tests.training.conftest import logged

pytest.importorskip("matplotlib")


def epoch(number: int, train_loss: float, **metrics: float | None) -> dict:
    return {"kind": "epoch", "step": number, "epoch": number, "train_loss": train_loss, **metrics}


def step(number: int, of: int) -> dict:
    return {"kind": "step", "step": number, "epoch": number / of, "loss": 2.0, "lr": 1e-3}


def lines(axes) -> dict[str, list[tuple[float, float]]]:
    return {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in axes.lines}


def test_every_epoch_has_its_training_loss_and_the_best_one_is_named(tiny):
    entries = [
        *(step(number, of=4) for number in range(1, 13)),
        epoch(1, 2.0),
        epoch(2, 1.5, top1=60.0, val_loss=1.4),
        epoch(3, 1.0, top1=50.0, val_loss=1.6),
    ]
    loss, quality, rate = curves_figure(entries, tiny()).axes
    assert lines(loss)["training"] == [(1, 2.0), (2, 1.5), (3, 1.0)]
    assert lines(loss)["validation"] == [(2, 1.4), (3, 1.6)]
    assert len(lines(loss)["training, by step"]) == len(lines(rate)["learning rate"]) == 12
    assert lines(quality)["best: 60.00 % after epoch 2"] == [(2, 60.0)]


def test_single_points_are_marked(tiny):
    """A line between one point and itself, or a gap, would be blank."""
    entries = [step(1, of=1), epoch(1, 2.0, top1=None, val_loss=None), epoch(2, 1.0, top1=9.0, val_loss=2.0)]
    for axes in curves_figure(entries, tiny()).axes:
        shown = [line for line in axes.lines if not all(math.isnan(value) for value in line.get_ydata())]
        assert shown
        assert all(line.get_marker() not in ("", "None", None) for line in shown)


def test_long_runs_have_no_markers(tiny):
    entries = [epoch(number, 1.0, top1=50.0, val_loss=1.0) for number in range(1, 101)]
    loss, _, _ = curves_figure(entries, tiny()).axes
    assert {line.get_marker() for line in loss.lines} == {""}


def test_the_note_names_what_raises_the_training_loss(tiny):
    above, below = [epoch(1, 2.0, val_loss=1.0)], [epoch(1, 1.0, val_loss=2.0)]
    config = tiny(regularization__label_smoothing=0.1, data__erasing=0.0)
    assert loss_note(above, config) == (
        "The training loss lies above the validation loss, which is measured without mixup or cutmix, label smoothing "
        "and stochastic depth."
    )
    assert loss_note(below, config) == loss_note([epoch(1, 2.0)], config) == ""
    plain = tiny(model__drop_path_rate=0.0, data__mixup=0.0, data__cutmix=0.0, data__erasing=0.0)
    assert loss_note(above, plain) == ""


def test_an_epoch_that_is_shorter_than_the_interval_is_logged_and_drawn(tiny):
    config = tiny(run__epochs=1, run__log_interval=1000)
    train(config)
    entries = logged(config.run.output)
    assert [entry["step"] for entry in entries if entry["kind"] == "step"] == [10]
    figure = curves_figure(entries, config)
    assert all(axes.lines for axes in figure.axes)
    assert figure.get_suptitle() == f"{config.run.output}: sequencer2d_n on digits"


def test_curves_are_a_picture_of_1440_by_480_pixels(tiny, tmp_path):
    (tmp_path / "log.jsonl").write_text(json.dumps(epoch(1, 2.0)) + "\n")
    path = plot_curves(tmp_path, tiny())
    assert path == tmp_path / "curves.png"
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size == (1440, 480)


def test_lines_of_steps_are_pale_behind_those_of_epochs(tiny):
    steps = [step(number, of=10) for number in range(1, 42)]
    epochs = [epoch(number, 2.0, val_loss=1.0, top1=5.0) for number in range(1, 41)]
    loss, quality, rate = curves_figure([*steps, *epochs], tiny()).axes
    by_step, training, validation = loss.lines
    assert (by_step.get_alpha(), by_step.get_marker(), by_step.get_color()) == (0.35, "", "C0")
    assert (training.get_alpha(), training.get_marker(), training.get_markersize()) == (None, "o", 4)  # 40 points
    assert (validation.get_color(), rate.lines[0].get_color(), rate.lines[0].get_marker()) == ("C1", "C2", "")
    best = quality.lines[-1]
    assert (best.get_marker(), best.get_markersize(), best.get_linestyle(), best.get_color()) == ("*", 11, "None", "C3")
    assert [axes.get_title() for axes in (loss, quality, rate)][2] == "learning rate"
    assert {axes.get_xlabel() for axes in (loss, quality, rate)} == {"epoch"}
    assert {line.get_alpha() for axes in (loss, quality, rate) for line in axes.get_xgridlines()} == {0.3}
    same = curves_figure([*steps[:40], *epochs], tiny()).axes[0]
    assert [line.get_label() for line in same.lines] == ["training", "validation"]  # a line a step would hide them
