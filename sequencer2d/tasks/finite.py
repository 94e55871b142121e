"""Outputs that are not finite: measured, they would look like those of a bad model."""

from torch import Tensor

from sequencer2d.errors import NumericalError


def require_probabilities(logits: Tensor) -> Tensor:
    """Return `logits` (N, classes) if every row has a softmax: no NaN, no +∞, and not −∞ alone.

    Raises:
        NumericalError: a row has none.
    """
    broken = int(logits.log_softmax(dim=1).isnan().any(dim=1).sum())
    refuse_broken(broken, len(logits))
    return logits


def refuse_broken(broken: int, images: int) -> None:
    """Raise `NumericalError` if there are `broken` images, of all that were evaluated, whose outputs are not finite."""
    if broken:
        raise NumericalError(
            f"the model's outputs for {broken} of {images} images are not finite numbers (NaN or infinity): there is "
            "nothing to measure. In 16 bits, fp16 above all, a sound model may overflow: use fp32; else its weights or "
            "its mean and std are wrong"
        )
