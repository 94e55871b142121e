"""The images that a classifier gets wrong, the most confident mistakes first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sequencer2d.data.sources import Source
from sequencer2d.evaluation.predict import Prediction, predict
from sequencer2d.evaluation.subject import Subject


@dataclass(frozen=True)
class Judged:
    """A prediction beside the truth."""

    prediction: Prediction
    truth: str

    @property
    def right(self) -> bool:
        """Whether the first guess is the truth."""
        return bool(self.prediction.found.guesses[0].name == self.truth)

    @property
    def confidence(self) -> float:
        """Probability of the first guess, 0 to 1."""
        return float(self.prediction.found.guesses[0].probability)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, one row of a table."""
        guess = self.prediction.found.guesses[0]
        return {
            "path": self.prediction.path,
            "truth": self.truth,
            "predicted": guess.name,
            "probability": round(guess.probability, 4),
        }


def judge(
    subject: Subject,
    source: Source,
    *,
    device: torch.device | str = "cpu",
    amp_dtype: torch.dtype | None = None,
) -> Iterator[Judged]:
    """Predict the image files of a labeled source; those that cannot be read are left out.

    Args:
        subject: a classifier whose class names are those of the source.
        source: of image files.
        device: where the model runs.
        amp_dtype: as `evaluation.predict.predict`.
    """
    _, targets = source.identities()
    paths = [source.describe(index) for index in range(len(source))]
    predictions = predict(
        subject.model,
        paths,
        subject.data,
        class_names=subject.class_names,
        device=device,
        amp_dtype=amp_dtype,
        top_k=3,
    )
    for prediction, target in zip(predictions, targets.tolist(), strict=True):
        if prediction.error is None:
            yield Judged(prediction, source.class_names[target])


def mistakes(judged: Sequence[Judged]) -> list[Judged]:
    """The wrong predictions, the most confident first."""
    return sorted((one for one in judged if not one.right), key=lambda one: -one.confidence)
