"""From pixels to what a model made of them: the step that every measurement of robustness shares."""

from collections.abc import Sequence

import numpy as np
import torch

from sequencer2d.errors import InputError
from sequencer2d.evaluation.pixels import normalize_unit, to_unit
from sequencer2d.evaluation.subject import Subject
from sequencer2d.tasks.accuracy import Outcomes
from sequencer2d.tasks.finite import require_probabilities


@torch.no_grad()
def logits_of(subject: Subject, pixels: np.ndarray, *, batch_size: int = 64) -> torch.Tensor:
    """Logits (N, classes), float32 on the CPU, of uint8 pixels (N, H, W, 3).

    Raises:
        InputError: a size that the model does not take.
        NumericalError: outputs that are not finite.
    """
    subject.model.eval()
    parts = []
    for start in range(0, len(pixels), batch_size):
        images = normalize_unit(to_unit(pixels[start : start + batch_size], subject.device), subject.data)
        try:
            parts.append(subject.model(images).float().cpu())
        except AssertionError as error:  # how timm's models of one size refuse others
            raise InputError(
                f"{subject.name} does not take images of {pixels.shape[1]}×{pixels.shape[2]}: {error}"
            ) from error
    return require_probabilities(torch.cat(parts))


def outcomes_of(logits: torch.Tensor, targets: np.ndarray | Sequence[int]) -> Outcomes:
    """Predictions, confidences and losses of logits (N, classes) for targets (N,)."""
    wanted = torch.as_tensor(np.asarray(targets), dtype=torch.int64)
    log_probabilities = logits.double().log_softmax(dim=1)
    best = log_probabilities.max(dim=1)
    top5 = log_probabilities.topk(min(5, logits.shape[1])).indices
    return Outcomes(
        targets=wanted.numpy(),
        predictions=best.indices.numpy(),
        in_top5=(top5 == wanted[:, None]).any(dim=1).numpy(),
        confidences=best.values.exp().numpy(),
        losses=-log_probabilities.gather(1, wanted[:, None])[:, 0].numpy(),
    )
