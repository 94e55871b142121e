"""A paired test of two models: what is counted, and p-values that are published or counted by hand."""

import json
from dataclasses import replace
from math import comb

import numpy as np
import pytest
from PIL import Image

from sequencer2d.data.images import BrokenImageError
from sequencer2d.evaluation.paired import mcnemar, outcomes
from sequencer2d.evaluation.subject import subject_of
from tests.evaluation.subjects import MeanColor


def pair(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    cells = [(True, True)] * both + [(True, False)] * first + [(False, True)] * second + [(False, False)] * neither
    a, b = zip(*cells, strict=True)
    return np.array(a), np.array(b)


def test_images_on_which_one_alone_is_right_are_counted() -> None:
    result = mcnemar(*pair(50, 2, 9, 7))
    assert json.loads(json.dumps(result)) == [2, 9, result.p]
    assert result.p == pytest.approx(2 * sum(comb(11, k) for k in range(3)) / 2**11)
    assert mcnemar(*pair(50, 9, 2, 7)).p == result.p


def test_equal_models_do_not_differ() -> None:
    assert mcnemar(*pair(5, 0, 0, 5)).p == 1
    assert mcnemar(*pair(5, 3, 3, 5)).p == 1


def test_thousands_of_images_do_not_overflow() -> None:
    assert mcnemar(*pair(10, 5000, 5200, 10)).p == pytest.approx(0.0488, abs=2e-3), "the normal limit: z = 1.97"
    assert mcnemar(*pair(10, 0, 5000, 10)).p == 0


class Colors:
    """Red, green, broken, blue, and red that is labeled green."""

    class_names = ("red", "green", "blue")
    rows = (((200, 0, 0), 0), ((0, 200, 0), 1), None, ((0, 0, 200), 2), ((200, 0, 0), 1))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        row = self.rows[index]
        if row is None:
            raise BrokenImageError("cut off")
        return Image.new("RGB", (8, 8), row[0]), row[1]


def test_outcomes_stay_with_their_images_where_one_is_broken() -> None:
    subject = replace(subject_of(MeanColor(), name="colors"), class_names=Colors.class_names)
    assert outcomes(subject, Colors(), batch_size=2).tolist() == [True, True, False, True, False]  # type: ignore[arg-type]
