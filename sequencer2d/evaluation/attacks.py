"""Adversarial examples within an L∞ ball of the image: FGSM (Goodfellow et al. 2015) and PGD (Madry et al. 2018).

Everything is in pixels between 0 and 1: an ε of 8/255 is eight of the 255 levels of an 8-bit image, before
    normalisation.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sequencer2d.data.sources import Source
from sequencer2d.errors import ConfigError
from sequencer2d.evaluation.modes import eval_mode, vendor_rnn_backward
from sequencer2d.evaluation.pixels import Progress, choose, match_classes, normalise_unit, read_batches, to_unit
from sequencer2d.evaluation.subject import Subject

ATTACKS = ("fgsm", "pgd")
Classifier = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class AttackResult:
    """Accuracy under attack.

    Attributes:
        model, attack: names.
        epsilons: (K,) radii of the L∞ ball, in pixels between 0 and 1.
        accuracy: (K,) top-1 accuracy on attacked images, 0 to 1.
        clean_accuracy: on the images as they are.
        steps: of PGD; 1 for FGSM.
        count: images.
    """

    model: str
    attack: str
    epsilons: np.ndarray
    accuracy: np.ndarray
    clean_accuracy: float
    steps: int
    count: int


def fgsm(classifier: Classifier, images: Tensor, targets: Tensor, epsilon: float) -> Tensor:
    """x + ε sign(∇ₓ cross entropy), cut to 0..1.

    Args:
        classifier: images between 0 and 1 (B, C, H, W) → logits (B, classes); differentiable, in evaluation mode.
        targets: (B,) the true classes.
        epsilon: ≥ 0.
    """
    _check(epsilon, 1)
    return (images + epsilon * _gradient(classifier, images, targets).sign()).clamp(0, 1)


def pgd(
    classifier: Classifier,
    images: Tensor,
    targets: Tensor,
    epsilon: float,
    *,
    steps: int = 10,
    step_size: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """`steps` of FGSM, each projected back to the ball of radius ε around the image and to 0..1.

    Args:
        step_size: by default 2.5 ε / steps (Madry et al., sec. 4): enough to reach the border and turn.
        generator: draw the starting point uniformly from the ball; without one it is the image itself.
    """
    _check(epsilon, steps)
    step = 2.5 * epsilon / steps if step_size is None else step_size
    attacked = images.clone()
    if generator is not None:
        noise = torch.rand(images.shape, generator=generator, device=generator.device).to(images)
        attacked = (images + epsilon * (2 * noise - 1)).clamp(0, 1)
    for _ in range(steps):
        attacked = attacked + step * _gradient(classifier, attacked, targets).sign()
        attacked = (images + (attacked - images).clamp(-epsilon, epsilon)).clamp(0, 1)
    return attacked


def attack_accuracy(
    subject: Subject,
    source: Source,
    attack: str = "pgd",
    *,
    epsilons: tuple[float, ...] = (1 / 255, 4 / 255, 8 / 255),
    steps: int = 10,
    limit: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
    common_only: bool = False,
    progress: Progress | None = None,
) -> AttackResult:
    """Accuracy on images attacked with full knowledge of the model.

    Args:
        attack: "fgsm" or "pgd" (random start).
        epsilons: radii, in pixels between 0 and 1.
        limit: at most so many images, a random sample.

    Raises:
        ConfigError: an unknown attack, a negative radius, or classes that do not match.
        DataError: an image that cannot be read.
    """
    if attack not in ATTACKS:
        raise ConfigError(f"no attack {attack!r}; choose one of {', '.join(ATTACKS)}")
    classes = match_classes(subject, source, common_only=common_only)
    right, clean, count = np.zeros(len(epsilons)), 0, 0
    generator = torch.Generator().manual_seed(seed)

    def classifier(images: Tensor) -> Tensor:
        return subject.model(normalise_unit(images, subject.data))

    with eval_mode(subject.model), torch.enable_grad(), vendor_rnn_backward(subject.model):
        for batch in read_batches(
            source, subject.data, batch_size=batch_size, indices=choose(len(source), limit, seed)
        ):
            keep = classes[batch.targets] >= 0
            if not keep.any():
                continue
            images = to_unit(batch.pixels[keep], subject.device)
            targets = torch.from_numpy(classes[batch.targets[keep]]).to(subject.device)
            clean += _hits(classifier, images, targets)
            for index, epsilon in enumerate(epsilons):
                attacked = (
                    fgsm(classifier, images, targets, epsilon)
                    if attack == "fgsm"
                    else pgd(classifier, images, targets, epsilon, steps=steps, generator=generator)
                )
                right[index] += _hits(classifier, attacked, targets)
                if progress:
                    progress(len(images))
            count += len(images)
    return AttackResult(
        subject.name,
        attack,
        np.asarray(epsilons),
        right / count,
        clean / count,
        1 if attack == "fgsm" else steps,
        count,
    )


def _gradient(classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
    images = images.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        loss = F.cross_entropy(classifier(images), targets, reduction="sum")
        return torch.autograd.grad(loss, images)[0]


@torch.no_grad()
def _hits(classifier: Classifier, images: Tensor, targets: Tensor) -> int:
    return int((classifier(images).argmax(dim=-1) == targets).sum())


def _check(epsilon: float, steps: int) -> None:
    if epsilon < 0 or steps < 1:
        raise ConfigError(f"epsilon={epsilon}, steps={steps}: expected a radius of at least 0 and at least one step")
