"""Accuracy, cross entropy and calibration of known outcomes."""

import dataclasses
import math

import numpy as np
import pytest

from sequencer2d.errors import DataError
from sequencer2d.tasks.accuracy import Outcomes, calibration_error, concatenate, summarize


def test_calibration_error_of_a_known_case() -> None:
    confidences = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55])
    hits = np.array([True, True, True, False, True, False])
    assert calibration_error(confidences, hits) == pytest.approx((4 * 0.20 + 2 * 0.05) / 6)
    assert calibration_error(np.ones(5), np.ones(5, dtype=bool)) == 0
    edges, right = np.array([0.8, 1.0]), np.array([True, False])
    assert calibration_error(edges, right, bins=5) == pytest.approx(0.6), "an edge belongs to the bin below it"
    together, hits = np.array([0.66, 0.61]), np.array([True, False])
    assert calibration_error(together, hits) == pytest.approx(0.135), "of 15 bins, the tenth holds both"


def test_order_of_images_changes_no_bit() -> None:
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 4, 999)
    outcomes = Outcomes(
        targets,
        generator.integers(0, 4, 999),
        generator.random(999) < 0.9,
        generator.random(999).astype(np.float32),
        generator.exponential(size=999).astype(np.float32),
    )
    order = generator.permutation(999)
    shuffled = Outcomes(*(getattr(outcomes, field.name)[order] for field in dataclasses.fields(Outcomes)))
    assert summarize(outcomes, tuple("abcd")) == summarize(shuffled, tuple("abcd"))


def test_few_classes_and_empty_classes() -> None:
    outcomes = Outcomes(
        np.array([0, 2]), np.array([0, 1]), np.array([True, True]), np.array([0.9, 0.8]), np.array([0.1, np.inf])
    )
    result = summarize(outcomes, ("a", "b", "c"))
    assert (result.top1, result.top5, result.per_class) == (50.0, 100.0, (100.0, None, 0.0))
    numbers = (result.top1, result.top5, *result.per_class)
    assert {type(number) for number in numbers} == {float, type(None)}, "plain numbers, which JSON takes"
    assert math.isnan(result.cross_entropy)
    assert result.to_dict()["cross_entropy"] is None
    with pytest.raises(DataError, match="no images"):
        summarize(concatenate([]), ("a",))


def test_confidences_fall_into_bins_in_double_precision() -> None:
    """The float32 next to 0.6 lies above it, in the bin of 0.61; a confidence of 0 lies in the first bin."""
    edge = np.array([0.6, 0.61], np.float32)
    assert calibration_error(edge, np.array([True, False])) == pytest.approx(0.105)
    assert calibration_error(np.array([0.0]), np.array([True])) == 1
    assert math.isnan(calibration_error(np.array([np.nan, 0.5]), np.array([True, True])))
