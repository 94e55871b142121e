"""Classification's row: its loss, what it finds in an image, and the metrics whose names logs of earlier runs hold."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sequencer2d.data.samples import map_tensors, split
from sequencer2d.errors import DataError, Interrupted, NumericalError
from sequencer2d.tasks import CLASSIFICATION
from sequencer2d.tasks.accuracy import AccuracyMeter
from sequencer2d.tasks.classification import Guess, Guesses, best_guesses, cross_entropy, csv_file
from sequencer2d.tasks.finite import require_probabilities
from sequencer2d.tasks.task import Metric
from sequencer2d.training.loop import train
from tests.training.conftest import configuration, logged

NAMES = tuple("abcdefg")


def test_the_loss_is_the_mean_cross_entropy_in_float32() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.25, 0.0]])
    log_p = logits.double().log_softmax(1)
    hard = cross_entropy(lambda images: logits.bfloat16(), torch.empty(2, 3, 1, 1), torch.tensor([0, 2]), 0.0)
    assert hard.dtype == torch.float32
    assert hard.item() == pytest.approx(-(log_p[0, 0] + log_p[1, 2]).item() / 2, rel=1e-6)
    smooth = cross_entropy(lambda images: logits, torch.empty(2, 3, 1, 1), torch.tensor([0, 2]), 0.3)
    expected = 0.7 * -(log_p[0, 0] + log_p[1, 2]) / 2 + 0.3 * -log_p.mean(1).mean()
    assert smooth.item() == pytest.approx(expected.item(), rel=1e-6)
    mixed = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]])
    soft = cross_entropy(lambda images: logits, torch.empty(2, 3, 1, 1), mixed, 0.0)
    assert soft.item() == pytest.approx(-(mixed * log_p).sum(1).mean().item(), rel=1e-6)


def test_weights_of_classes_multiply_the_loss_of_each_image() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.25, 0.0]])
    log_p, weights = logits.double().log_softmax(1), torch.tensor([0.5, 1.0, 3.0])
    loss = cross_entropy(
        lambda images: logits, torch.empty(2, 3, 1, 1), torch.tensor([0, 2]), 0.0, class_weights=weights
    )
    assert loss.item() == pytest.approx(-(0.5 * log_p[0, 0] + 3 * log_p[1, 2]).item() / 2, rel=1e-6)


def test_guesses_are_the_most_probable_classes_first() -> None:
    logits = torch.tensor([[0.0, math.log(6), math.log(3)], [math.log(8), 0.0, 0.0]])
    first, second = best_guesses(logits, [(1, 1)] * 2, NAMES, 2)
    assert [(guess.index, guess.name) for guess in first.guesses] == [(1, "b"), (2, "c")]
    assert [guess.probability for guess in first.guesses] == pytest.approx([0.6, 0.3])
    assert second.guesses[0].probability == pytest.approx(0.8)
    (all_of_them, _) = best_guesses(logits, [(1, 1)] * 2, NAMES, 9)
    assert len(all_of_them.guesses) == 3


def test_guesses_are_written_in_percent_and_as_shares() -> None:
    found = Guesses((Guess(3, "cat", 0.98765), Guess(0, "dog", 0.0123)))
    assert found.rows() == [("cat", " 98.77%"), ("dog", "  1.23%")]
    assert json.loads(json.dumps(found.to_dict())) == {
        "guesses": [
            {"index": 3, "name": "cat", "probability": 0.98765},
            {"index": 0, "name": "dog", "probability": 0.0123},
        ]
    }


def test_the_fifth_class_counts_and_the_sixth_does_not() -> None:
    logits = torch.arange(7.0, 0.0, -1.0).expand(7, 7)
    meter = AccuracyMeter(NAMES)
    meter.add(logits, torch.arange(7))
    result = meter.result([meter.state()], broken=2)
    assert (result.top1, result.top5) == (pytest.approx(100 / 7), pytest.approx(500 / 7))
    assert (result.count, result.broken, result.per_class) == (7, 2, (100.0,) + (0.0,) * 6)
    log_p = logits[0].double().log_softmax(0)
    assert result.cross_entropy == pytest.approx(-log_p.mean().item(), rel=1e-6)
    confidence = log_p[0].exp().item()
    assert result.calibration_error == pytest.approx(100 * abs(1 / 7 - confidence), rel=1e-6)


def test_a_table_shows_each_number_with_its_unit() -> None:
    meter = AccuracyMeter(("a", "b", "c"), np.array([1, 0]))
    meter.add(torch.tensor([[0.0, 9.0, 0.0], [0.0, 9.0, 0.0]]), torch.tensor([0, 1]))
    result = meter.result([meter.state()], broken=0)
    assert dict(result.rows()) == {
        "top-1": "50.00 %",
        "top-5": "100.00 %",
        "cross entropy": "4.5002 nats",
        "calibration error": "49.98 %",
    }
    assert result.class_rows() == [("a", "0.00 %"), ("b", "100.00 %"), ("c", "no images")]


def test_a_model_needs_an_output_for_each_class() -> None:
    AccuracyMeter(NAMES).add(torch.zeros(1, 7), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(DataError, match=r"\(1, 6\), the data have 7 classes"):
        AccuracyMeter(NAMES).add(torch.zeros(1, 6), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(DataError, match=r"no images to evaluate \(3 could not be read\)"):
        AccuracyMeter(NAMES).result([[]], broken=3)


@pytest.mark.parametrize("row", [[math.nan, 0.0], [math.inf, 0.0], [-math.inf, -math.inf]])
def test_outputs_without_a_softmax_are_counted(row: list[float]) -> None:
    sound = torch.tensor([[0.0, -math.inf], [60000.0, -60000.0]])
    assert require_probabilities(sound) is sound, "one class may be impossible"
    with pytest.raises(NumericalError, match="outputs for 1 of 3 images are not finite"):
        require_probabilities(torch.cat([sound, torch.tensor([row])]))


def test_the_log_keeps_its_names() -> None:
    """Logs, summaries and checkpoints of earlier runs hold these keys."""
    result = SimpleNamespace(top1=np.float64(50), top5=75.0, cross_entropy=math.inf)
    assert CLASSIFICATION.entry(result) == {"top1": 50.0, "top5": 75.0, "val_loss": None}
    assert type(CLASSIFICATION.entry(result)["top1"]) is float
    assert (CLASSIFICATION.name, CLASSIFICATION.decides.key) == ("classification", "top1")
    assert [metric.brief for metric in CLASSIFICATION.metrics] == [True, False, True]
    assert [metric.axis for metric in CLASSIFICATION.metrics] == ["accuracy, %", "accuracy, %", "val loss"]


def test_a_metric_improves_in_its_direction() -> None:
    higher = Metric("a", field="a", label="a", unit="%")
    lower = Metric("b", field="b", label="b", digits=4, higher_is_better=False)
    assert (higher.improves(2, 1), higher.improves(1, 1), higher.improves(1, 2)) == (True, False, False)
    assert (lower.improves(1, 2), lower.improves(1, 1), lower.improves(2, 1)) == (True, False, False)
    for metric in (higher, lower):
        assert metric.improves(0, None)
        assert not metric.improves(None, 0)
        assert not metric.improves(None, None)
    assert (higher.show(98.456), lower.show(0.25), lower.show(None)) == ("98.46 %", "0.2500", "not finite")


def test_targets_of_any_kind_are_moved_and_split() -> None:
    tensor = torch.arange(6)
    targets = {"masks": tensor, "boxes": [{"box": torch.full((1,), i), "name": str(i)} for i in range(6)]}
    doubled = map_tensors(lambda part: part * 2, targets)
    assert torch.equal(doubled["masks"], tensor * 2)
    assert [(entry["box"].item(), entry["name"]) for entry in doubled["boxes"]] == [(2 * i, str(i)) for i in range(6)]
    assert map_tensors(torch.neg, (tensor, None))[1] is None
    parts = split(targets, 3)
    assert [part["masks"].tolist() for part in parts] == [[0, 1], [2, 3], [4, 5]]
    assert [[entry["name"] for entry in part["boxes"]] for part in parts] == [["0", "1"], ["2", "3"], ["4", "5"]]


def test_runs_of_before_name_no_task_and_go_on(tmp_path) -> None:
    with pytest.raises(Interrupted):
        train(configuration(tmp_path / "old", {"run.max_steps": 13}))
    path = tmp_path / "old" / "config.json"
    stored = json.loads(path.read_text())
    assert stored.pop("task") == "classification"
    path.write_text(json.dumps(stored))
    assert "task" not in torch.load(tmp_path / "old" / "checkpoints" / "last.pt")["meta"]
    train(configuration(tmp_path / "old", {"run.resume": True}))
    train(configuration(tmp_path / "new", {}))
    assert logged(tmp_path / "old") == logged(tmp_path / "new")


def test_weighted_classes_count_the_same_in_every_batch():
    logits, targets = torch.randn(6, 3), torch.tensor([0, 0, 0, 0, 1, 2])
    weights = torch.tensor([0.5, 2.0, 2.0])
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    weighted = CLASSIFICATION.loss(lambda _: logits, logits, targets, 0.0, class_weights=weights)
    torch.testing.assert_close(weighted, (losses * weights[targets]).mean())
    mixed = torch.nn.functional.one_hot(targets, 3).float()
    torch.testing.assert_close(
        CLASSIFICATION.loss(lambda _: logits, logits, mixed, 0.0, class_weights=weights), weighted
    )


def test_guesses_at_the_threshold_stay_and_a_table_of_them_counts_ranks_from_1(tmp_path) -> None:
    found = Guesses((Guess(3, "cat\x1b", 0.75), Guess(0, "dog", 0.25)))
    assert [len(found.above(least).guesses) for least in (0.25, 0.26, 0.75, 0.76)] == [2, 1, 1, 0]
    with csv_file(tmp_path / "x.csv", ("dog",)) as add:
        add("a,b.png", found)
        add("c.png", found.above(0.5))
    assert (tmp_path / "x.csv").read_text().splitlines() == [
        "path,rank,index,class,probability",
        '"a,b.png",1,3,cat\\x1b,0.750000',
        '"a,b.png",2,0,dog,0.250000',
        "c.png,1,3,cat\\x1b,0.750000",
    ]
