"""mIoU and pixel accuracy equal a count by hand, whatever the batches and the number of processes."""

import json
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sequencer2d.errors import DataError, NumericalError
from sequencer2d.tasks.overlap import OverlapMeter, SegmentationResult

NAMES = ("road", "car", "sky", "tree")
LABELS = torch.tensor([[[0, 0, 1], [1, 2, 255]], [[0, 0, 0], [2, 2, 2]]])
FOUND = torch.tensor([[[0, 1, 1], [1, 1, 3]], [[0, 0, 2], [2, 2, 0]]])
BY_HAND = {"road": 3 / 6, "car": 2 / 4, "sky": 2 / 5, "tree": None}
"""Road: 3 pixels are both, 5 labeled, 4 predicted. Car: 2, 2, 4. Sky: 2, 4, 3. Tree is predicted on the ignored pixel
alone."""


def logits(found: torch.Tensor, classes: int = len(NAMES)) -> torch.Tensor:
    return F.one_hot(found, classes).movedim(-1, 1).float()


def measured(parts: list[slice], outputs: np.ndarray | None = None) -> SegmentationResult:
    meters = [OverlapMeter(NAMES, outputs) for _ in parts]
    for meter, part in zip(meters, parts, strict=True):
        meter.add(logits(FOUND[part]), LABELS[part])
    states = [pickle.loads(pickle.dumps(meter.state())) for meter in meters]
    return meters[0].result(states, broken=1)


def test_the_numbers_are_those_of_a_count_by_hand() -> None:
    result = measured([slice(None)])
    assert result.per_class == tuple(None if iou is None else pytest.approx(100 * iou) for iou in BY_HAND.values())
    assert result.mean_iou == pytest.approx(100 * (3 / 6 + 2 / 4 + 2 / 5) / 3)
    assert result.pixel_accuracy == pytest.approx(100 * 7 / 11)
    assert (result.count, result.broken) == (2, 1)


def test_the_numbers_are_those_of_a_loop_over_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    found = torch.randint(4, (3, 9, 7), generator=generator)
    labels = torch.randint(5, (3, 9, 7), generator=generator)
    labels[labels == 4] = 255
    meter = OverlapMeter(NAMES)
    meter.add(logits(found), labels)
    result = meter.result([meter.state()], 0)
    pixels = [pair for pair in zip(labels.flatten().tolist(), found.flatten().tolist(), strict=True) if pair[0] != 255]
    ious = [sum(a == b == k for a, b in pixels) / sum(k in (a, b) for a, b in pixels) for k in range(4)]
    assert result.per_class == pytest.approx([100 * iou for iou in ious])
    assert result.mean_iou == pytest.approx(100 * sum(ious) / 4)
    assert result.pixel_accuracy == pytest.approx(100 * sum(a == b for a, b in pixels) / len(pixels))


def test_processes_and_batches_add_up_to_the_result_of_the_whole() -> None:
    whole = measured([slice(None)])
    assert measured([slice(0, 1), slice(1, 2)]) == whole
    meter = OverlapMeter(NAMES)
    for part in (slice(0, 1), slice(1, 2)):
        meter.add(logits(FOUND[part]), LABELS[part])
    empty = OverlapMeter(NAMES)
    assert meter.result([empty.state(), meter.state()], 1) == whole


def test_a_class_that_is_predicted_but_not_labeled_counts_as_0() -> None:
    meter = OverlapMeter(NAMES)
    meter.add(logits(torch.tensor([[[0, 3]]])), torch.tensor([[[0, 0]]]))
    result = meter.result([meter.state()], 0)
    assert result.per_class == (50, None, None, 0)
    assert result.mean_iou == 25


def test_classes_of_the_data_are_matched_with_outputs() -> None:
    order = np.array([2, 0, 1, 3])
    meter = OverlapMeter(NAMES, order)
    outputs = torch.from_numpy(order)[FOUND]
    meter.add(logits(outputs), LABELS)
    result = meter.result([meter.state()], 1)
    expected = measured([slice(None)])
    assert result.per_class == tuple(expected.per_class[k] for k in (1, 2, 0, 3))
    assert result.mean_iou == pytest.approx(expected.mean_iou)


def test_a_result_is_shown_and_written() -> None:
    result = measured([slice(None)])
    assert result.rows() == [("mIoU", "46.67 %"), ("pixel accuracy", "63.64 %")]
    assert result.class_rows() == [
        ("road", "50.00 %  (20 % taken for sky)"),
        ("car", "50.00 %"),
        ("sky", "40.00 %  (25 % taken for car)"),
        ("tree", "none"),
    ]
    assert result.confusion == ((3, 1, 1, 0), (0, 2, 0, 0), (1, 1, 2, 0), (0, 0, 0, 0)), "rows are labels"
    assert json.loads(json.dumps(result.to_dict()))["per_class"][3] is None


def test_nothing_to_measure_is_an_error() -> None:
    meter = OverlapMeter(NAMES)
    with pytest.raises(DataError, match=r"no images to evaluate \(2 could not be read\)"):
        meter.result([meter.state()], 2)
    meter.add(logits(FOUND), torch.full_like(LABELS, 255))
    with pytest.raises(DataError, match="every pixel of the 2 masks is ignored"):
        meter.result([meter.state()], 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite_are_an_error(value: float) -> None:
    meter, outputs = OverlapMeter(NAMES), logits(FOUND)
    outputs[1, 2, 0, 0] = value
    meter.add(outputs, LABELS)
    with pytest.raises(NumericalError, match="1 of 2 images"):
        meter.result([meter.state()], 0)


def test_maps_of_several_sizes_are_resized_to_their_labels_and_counted() -> None:
    meter, maps = OverlapMeter(NAMES), list(logits(FOUND))
    maps[1][2, 0, 0] = float("nan")
    meter.add([maps[0], maps[1]], [{"labels": labels} for labels in LABELS])
    state = meter.state()
    assert (state.images, state.not_finite) == (2, 1)
    assert type(state.not_finite) is int, "processes exchange plain numbers"
    larger = {"labels": LABELS[0].repeat_interleave(2, 0).repeat_interleave(2, 1)}
    whole = OverlapMeter(NAMES)
    whole.add([maps[0]], [larger])
    assert whole.state().confusion.sum() == 4 * 5, "an ignored pixel is four in the double size"


def test_maps_in_16_bits_are_resized_in_float32() -> None:
    """A quarter of the way from 1 to the next bfloat16 above it is more than 1, and no bfloat16."""
    meter = OverlapMeter(("a", "b"))
    meter.add([torch.tensor([[[1.0, 1.0]], [[1.0, 1.0078125]]]).bfloat16()], [{"labels": torch.ones(1, 4).long()}])
    assert meter.state().confusion.tolist() == [[0, 0], [1, 3]]


@pytest.mark.parametrize("shape", [(2, 5, 2, 3), (2, 4, 4, 6), (2, 4)])
def test_outputs_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"masks of 4 classes need \(2, 4, 2, 3\)"):
        OverlapMeter(NAMES).add(torch.zeros(shape), LABELS)


def test_maps_of_several_sizes_with_other_classes_are_refused() -> None:
    with pytest.raises(DataError, match=r"shape \(5, 2, 3\); masks of 4 classes need \(4, 2, 3\)"):
        OverlapMeter(NAMES).add([torch.zeros(5, 2, 3)], [{"labels": LABELS[0]}])


def test_names_of_classes_may_be_a_list() -> None:
    meter = OverlapMeter(list(NAMES))
    meter.add(logits(FOUND), LABELS)
    assert meter.result([meter.state()], 0).class_names == NAMES
