"""Whether two models differ in accuracy, tested on the same images."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from sequencer2d.data.images import BrokenImageError
from sequencer2d.data.sources import Source
from sequencer2d.evaluation.predict import predict
from sequencer2d.evaluation.subject import Subject


class McNemar(NamedTuple):
    """McNemar's exact test of two models on the same images.

    Attributes:
        only_first: images that the first model alone classifies correctly.
        only_second: images that the second model alone classifies correctly.
        p: probability of a difference at least as large if both were equally accurate, two-sided, 0 to 1.
    """

    only_first: int
    only_second: int
    p: float


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """Compare two models by the images on which one of them alone is right (McNemar, Psychometrika 12, 1947).

    Args:
        first: bool (N,), whether the first model is right about each image.
        second: bool (N,), the same for the second model.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    count, fewer = only_first + only_second, min(only_first, only_second)
    # log of binomial(count, k) / 2^count, so that thousands of images do not overflow
    tail = sum(
        math.exp(math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) - count * math.log(2))
        for k in range(fewer + 1)
    )
    return McNemar(only_first, only_second, min(1.0, 2 * tail))


def outcomes(
    subject: Subject,
    source: Source,
    *,
    device: torch.device | str = "cpu",
    amp_dtype: torch.dtype | None = None,
    batch_size: int = 32,
) -> np.ndarray:
    """Whether a classifier is right about each image of a source: bool (N,). What cannot be read counts as wrong.

    Args:
        subject: a classifier whose outputs are the classes of the source, in their order.
        source: the images.
        device: where the model runs.
        amp_dtype: as `evaluation.predict.predict`.
        batch_size: images in one forward pass.
    """
    read: list[tuple[int, int]] = []

    def images() -> Iterator[Image.Image]:
        for index in range(len(source)):
            try:
                image, target = source[index]
            except BrokenImageError:
                continue
            read.append((index, int(target)))
            yield image

    right = np.zeros(len(source), bool)
    predictions = predict(
        subject.model,
        images(),
        subject.data,
        class_names=subject.class_names,
        device=device,
        amp_dtype=amp_dtype,
        top_k=1,
        batch_size=batch_size,
    )
    for number, prediction in enumerate(predictions):
        if prediction.error is None:
            index, target = read[number]
            right[index] = prediction.found.guesses[0].index == target
    return right
