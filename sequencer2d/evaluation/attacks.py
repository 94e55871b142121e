"""Adversarial examples within an L∞ ball of the image: FGSM (Goodfellow et al. 2015) and PGD (Madry et al. 2018).

Everything is in pixels between 0 and 1: an ε of 8/255 is eight of the 255 levels of an 8-bit image, before
normalization. The defaults are the paper's settings.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sequencer2d.data.sources import Source
from sequencer2d.errors import ConfigError, DataError
from sequencer2d.evaluation.modes import eval_mode, vendor_rnn_backward
from sequencer2d.evaluation.pixels import Progress, choose, match_classes, normalize_unit, read_batches, to_unit
from sequencer2d.evaluation.subject import Subject
from sequencer2d.seeds import image_seed

ATTACKS = ("fgsm", "pgd")
Classifier = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class AttackSettings:
    """How images are attacked.

    Attributes:
        epsilons: radii of the L∞ ball, in pixels between 0 and 1.
        steps: of PGD.
        step_size: of PGD, in pixels between 0 and 1; none: 2.5 ε / steps (Madry et al., sec. 4), enough to reach the
            border and turn.
        random_start: whether PGD starts at a random point of the ball or at the image itself.
    """

    epsilons: tuple[float, ...] = (1 / 255,)
    steps: int = 5
    step_size: float | None = 0.5 / 255
    random_start: bool = True

    def step_for(self, epsilon: float) -> float:
        """PGD's step size at radius `epsilon`."""
        return 2.5 * epsilon / self.steps if self.step_size is None else self.step_size

    def out_of_reach(self) -> tuple[float, ...]:
        """Radii that all steps together cannot cross: PGD is then weaker than its radius says."""
        return tuple(e for e in self.epsilons if self.steps * self.step_for(e) < e * (1 - 1e-6))


PRESETS: dict[str, AttackSettings] = {
    "paper": AttackSettings(),
    "radii": AttackSettings(epsilons=(1 / 255, 4 / 255, 8 / 255), steps=10, step_size=None),
}
"""`paper`: the robustness evaluation of the Sequencer paper. `radii`: how accuracy falls with the radius."""


@dataclass(frozen=True)
class AttackResult:
    """Accuracy under attack.

    Attributes:
        model, attack: names.
        epsilons: (K,) radii of the L∞ ball, in pixels between 0 and 1.
        accuracy: (K,) top-1 accuracy on attacked images, 0 to 1.
        clean_accuracy: on the images as they are.
        steps: of PGD; 1 for FGSM.
        step_sizes: (K,) of PGD, in pixels between 0 and 1; for FGSM the radii.
        random_start: whether PGD started at a random point of the ball.
        count: images.
    """

    model: str
    attack: str
    epsilons: np.ndarray
    accuracy: np.ndarray
    clean_accuracy: float
    steps: int
    step_sizes: np.ndarray
    random_start: bool
    count: int


def fgsm(classifier: Classifier, images: Tensor, targets: Tensor, epsilon: float) -> Tensor:
    """x + ε sign(∇ₓ cross entropy), cut to 0..1.

    Args:
        classifier: images between 0 and 1 (B, C, H, W) → logits (B, classes); differentiable, in evaluation mode.
        images: (B, C, H, W), between 0 and 1.
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
    steps: int = 5,
    step_size: float | None = None,
    start: Tensor | None = None,
) -> Tensor:
    """`steps` of FGSM, each projected back to the ball of radius ε around the image and to 0..1.

    Args:
        classifier: as for `fgsm`.
        images: (B, C, H, W), between 0 and 1.
        targets: (B,) the true classes.
        epsilon: the ball's radius in the maximum norm, ≥ 0.
        steps: how many, at least 1.
        step_size: by default 2.5 ε / steps (Madry et al., sec. 4): enough to reach the border and turn.
        start: (B, C, H, W) where to begin, in the ball (see `random_start`); by default the image itself.
    """
    _check(epsilon, steps)
    step = 2.5 * epsilon / steps if step_size is None else step_size
    attacked = images if start is None else start
    for _ in range(steps):
        attacked = attacked + step * _gradient(classifier, attacked, targets).sign()
        attacked = (images + (attacked - images).clamp(-epsilon, epsilon)).clamp(0, 1)
    return attacked


def random_start(images: Tensor, epsilon: float, indices: Sequence[int] | np.ndarray, seed: int = 0) -> Tensor:
    """A point of the ball of radius ε around each image, drawn uniformly, cut to 0..1.

    Args:
        images: (B, C, H, W), between 0 and 1.
        epsilon: the ball's radius in the maximum norm, ≥ 0.
        indices: (B,) of the images in their source. With the seed they determine the draw, so that it does not depend
            on the batch that an image is in.
        seed: of the draw.
    """
    draws = [
        torch.rand(images.shape[1:], generator=torch.Generator().manual_seed(image_seed(seed, 0, int(index))))
        for index in indices
    ]
    return (images + epsilon * (2 * torch.stack(draws).to(images) - 1)).clamp(0, 1)


def attack_accuracy(
    subject: Subject,
    source: Source,
    attack: str = "pgd",
    settings: AttackSettings | None = None,
    *,
    limit: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
    common_only: bool = False,
    progress: Progress | None = None,
) -> AttackResult:
    """Accuracy on images attacked with full knowledge of the model.

    Args:
        subject: any classifier.
        source: images with labels.
        attack: "fgsm" or "pgd".
        settings: radii, steps, step size and start; by default the paper's.
        limit: at most so many images, a random sample; by default all, as in the paper.
        seed: of the sample and of random starts.
        batch_size: images in one pass through the model.
        common_only: leave out classes of the data that the model does not have, instead of refusing them.
        progress: called with the number of images done since the last call.

    Raises:
        ConfigError: an unknown attack, a negative radius, no steps, or classes that do not match.
        DataError: an image that cannot be read, or no image of a class that the model has.
    """
    if attack not in ATTACKS:
        raise ConfigError(f"no attack {attack!r}; choose one of {', '.join(ATTACKS)}")
    settings = settings or PRESETS["paper"]
    for epsilon in settings.epsilons:
        _check(epsilon, settings.steps)
    classes = match_classes(subject, source, common_only=common_only)
    right, clean, count = np.zeros(len(settings.epsilons)), 0, 0

    def classifier(images: Tensor) -> Tensor:
        return subject.model(normalize_unit(images, subject.data))

    def attacked(images: Tensor, targets: Tensor, indices: np.ndarray, epsilon: float) -> Tensor:
        if attack == "fgsm":
            return fgsm(classifier, images, targets, epsilon)
        start = random_start(images, epsilon, indices, seed) if settings.random_start else None
        step = settings.step_for(epsilon)
        return pgd(classifier, images, targets, epsilon, steps=settings.steps, step_size=step, start=start)

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
            for index, epsilon in enumerate(settings.epsilons):
                right[index] += _hits(classifier, attacked(images, targets, batch.indices[keep], epsilon), targets)
                if progress:
                    progress(len(images))
            count += len(images)
    if not count:
        raise DataError(f"none of the chosen images is of a class that {subject.name} has: raise the limit")
    return _result(subject.name, attack, settings, right / count, clean / count, count)


def _result(
    model: str, attack: str, settings: AttackSettings, accuracy: np.ndarray, clean: float, count: int
) -> AttackResult:
    one_step = attack == "fgsm"
    epsilons = np.asarray(settings.epsilons)
    return AttackResult(
        model=model,
        attack=attack,
        epsilons=epsilons,
        accuracy=accuracy,
        clean_accuracy=clean,
        steps=1 if one_step else settings.steps,
        step_sizes=epsilons if one_step else np.asarray([settings.step_for(e) for e in settings.epsilons]),
        random_start=settings.random_start and not one_step,
        count=count,
    )


def _gradient(classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
    images = images.detach().requires_grad_(True)
    with torch.enable_grad():
        loss = F.cross_entropy(classifier(images), targets, reduction="sum")
        return torch.autograd.grad(loss, images)[0]


@torch.no_grad()
def _hits(classifier: Classifier, images: Tensor, targets: Tensor) -> int:
    return int((classifier(images).argmax(dim=1) == targets).sum())


def _check(epsilon: float, steps: int) -> None:
    if epsilon < 0 or steps < 1:
        raise ConfigError(f"epsilon={epsilon}, steps={steps}: expected a radius of at least 0 and at least one step")
