"""Adversarial examples: equal to a reference library's, by default those of the paper."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sequencer2d.errors import ConfigError, DataError
from sequencer2d.evaluation.attacks import PRESETS, AttackSettings, attack_accuracy, fgsm, pgd, random_start
from sequencer2d.evaluation.pixels import normalize_unit
from tests.evaluation.subjects import colors_subject, small


def unit_classifier(subject):
    return lambda images: subject.model(normalize_unit(images, subject.data))


def art_classifier(classifier, model):
    """The adversarial robustness toolbox's view of a classifier of images between 0 and 1."""
    pytest.importorskip("art.attacks.evasion", reason="adversarial-robustness-toolbox is not installed")
    from art.estimators.classification import PyTorchClassifier

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            return classifier(x)

    loss = nn.CrossEntropyLoss(reduction="sum")
    return PyTorchClassifier(Wrapped().eval(), loss, (3, 32, 32), 3, clip_values=(0.0, 1.0), device_type="cpu")


def assert_same_images(ours, theirs):
    """A gradient at float rounding may change its sign: a handful of pixels at most."""
    assert (np.abs(ours.numpy() - theirs) > 1e-6).mean() < 1e-3


@pytest.mark.parametrize("preset", PRESETS)
def test_attacks_equal_those_of_the_reference_library(preset):
    """The adversarial robustness toolbox, on one of our models with its normalization inside, at every radius of both
    presets, from the random start that the toolbox draws."""
    subject, settings = small(), PRESETS[preset]
    classifier = unit_classifier(subject)
    art = art_classifier(classifier, subject.model)
    from art.attacks import evasion
    from art.utils import random_sphere

    images = np.random.default_rng(0).random((4, 3, 32, 32), dtype=np.float32)
    targets = np.asarray([0, 1, 2, 1])
    x, y = torch.from_numpy(images), torch.from_numpy(targets)
    for epsilon in settings.epsilons:
        theirs = evasion.FastGradientMethod(art, eps=epsilon).generate(images, targets)
        assert_same_images(fgsm(classifier, x, y, epsilon), theirs)
        reference = evasion.ProjectedGradientDescentPyTorch(
            art, eps=epsilon, eps_step=settings.step_for(epsilon), max_iter=settings.steps, num_random_init=1,
            verbose=False,
        )  # fmt: skip
        np.random.seed(3)
        noise = random_sphere(4, 3 * 32 * 32, epsilon, np.inf).reshape(images.shape).astype(np.float32)
        np.random.seed(3)
        start = torch.from_numpy((images + noise).clip(0, 1))
        ours = pgd(classifier, x, y, epsilon, steps=settings.steps, step_size=settings.step_for(epsilon), start=start)
        assert_same_images(ours, reference.generate(images, targets))


def test_the_papers_attack_is_the_default(colors):
    """ε 1/255, 5 steps of 0.5/255 from a random start, on every image."""
    assert PRESETS["radii"] == AttackSettings((1 / 255, 4 / 255, 8 / 255), steps=10, step_size=None, random_start=True)
    paper = PRESETS["paper"]
    assert (paper.epsilons, paper.steps, paper.step_size, paper.random_start) == ((1 / 255,), 5, 0.5 / 255, True)
    result = attack_accuracy(colors_subject(), colors)
    assert (result.attack, result.steps, result.random_start, result.count) == ("pgd", 5, True, len(colors))
    np.testing.assert_allclose(result.epsilons, [1 / 255])
    np.testing.assert_allclose(result.step_sizes, [0.5 / 255])
    # The rule for other radii gives the same at the paper's.
    assert replace(paper, step_size=None).step_for(1 / 255) == pytest.approx(0.5 / 255)
    assert paper.out_of_reach() == ()
    assert replace(paper, epsilons=(1 / 255, 8 / 255)).out_of_reach() == (8 / 255,)


def test_random_starts_fill_the_ball_and_belong_to_the_image():
    x = torch.full((6, 3, 32, 32), 0.5)
    start = random_start(x, 0.03, range(6))
    offsets = (start - x) / 0.03
    assert offsets.abs().max() <= 1 + 1e-5
    assert offsets.mean().item() == pytest.approx(0, abs=0.02)
    assert offsets.std().item() == pytest.approx(1 / 3**0.5, abs=0.01)  # of a uniform distribution on -1..1
    torch.testing.assert_close(random_start(x[:1], 0.03, [4]), start[4:5])
    assert random_start(x.bfloat16(), 0.03, range(6)).dtype == torch.bfloat16
    assert not torch.equal(start[0], start[1])
    assert not torch.equal(random_start(x[:1], 0.03, [0], seed=1), start[:1])


def test_accuracy_under_attack_does_not_depend_on_the_batches():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)

    class Images:
        class_names = ("red", "green", "blue")

        def __len__(self):
            return len(images)

        def __getitem__(self, index):
            return Image.fromarray(images[index]), index % 3

    settings = AttackSettings(epsilons=(0.4 / 255, 4 / 255), steps=2, step_size=None)
    one, all_ = (attack_accuracy(small(), Images(), "pgd", settings, batch_size=size) for size in (1, 9))
    np.testing.assert_array_equal(one.accuracy, all_.accuracy)


def test_attacks_stay_in_the_ball_and_raise_the_loss():
    subject = small()
    classifier = unit_classifier(subject)
    torch.manual_seed(0)
    x, y = torch.rand(3, 3, 32, 32), torch.tensor([0, 1, 2])
    before = nn.functional.cross_entropy(classifier(x), y)
    for attacked in (
        fgsm(classifier, x, y, 0.03),
        pgd(classifier, x, y, 0.03, start=random_start(x, 0.03, range(3))),
    ):
        assert (attacked - x).abs().max() <= 0.03 + 1e-6
        assert attacked.min() >= 0
        assert attacked.max() <= 1
        assert nn.functional.cross_entropy(classifier(attacked), y) > before


def test_radii_beyond_all_steps_are_out_of_reach_and_those_at_their_sum_are_not():
    """A sum of steps that falls short by rounding alone reaches the radius: 3 · (1/3) of it."""
    radius, rounded = 57 / 255, 57 / 255 / 3
    assert 3 * rounded < radius
    settings = AttackSettings(epsilons=(0.1, radius, 0.3), steps=3, step_size=rounded)
    assert settings.out_of_reach() == (0.3,)
    assert PRESETS["radii"].out_of_reach() == ()


def test_a_step_is_two_and_a_half_radii_over_their_number_by_default():
    """The image of the caller stays as it is, and takes no gradients."""
    classifier = unit_classifier(small())
    torch.manual_seed(0)
    x, y = torch.rand(2, 3, 32, 32), torch.tensor([0, 2])
    before = x.clone()
    assert torch.equal(pgd(classifier, x, y, 0.04, steps=4), pgd(classifier, x, y, 0.04, steps=4, step_size=0.025))
    fgsm(classifier, x, y, 0.04)
    assert torch.equal(x, before)
    assert not x.requires_grad
    with pytest.raises(ConfigError, match="at least one step"):
        pgd(classifier, x, y, 0.04, steps=0)
    assert torch.equal(fgsm(classifier, x, y, 0.0), x)


def test_images_of_other_classes_are_left_out(colors):
    """The model knows two of the three colors: four of the six images are attacked, at two radii."""
    subject = replace(colors_subject(), class_names=("red", "green", "yellow"))
    settings, counted = AttackSettings(epsilons=(1 / 255, 2 / 255)), []
    result = attack_accuracy(subject, colors, "fgsm", settings, batch_size=2, common_only=True, progress=counted.append)
    assert (result.count, result.clean_accuracy, sum(counted)) == (4, 1.0, 8)
    assert type(result.clean_accuracy) is float
    np.testing.assert_allclose(result.step_sizes, settings.epsilons)
    assert attack_accuracy(subject, colors, "fgsm", settings, limit=3, seed=1, common_only=True).count < 4
    blue = replace(colors_subject(), class_names=("x", "y", "blue"))
    with pytest.raises(DataError, match="none of the chosen images is of a class that colors has: raise the limit"):
        attack_accuracy(blue, colors, "fgsm", limit=1, seed=1, common_only=True)


def test_accuracy_under_attack_falls_where_the_margin_ends(colors):
    """The color model errs once ε exceeds half of the 200 levels between the channels."""
    settings = AttackSettings(epsilons=(90 / 255, 110 / 255))
    result = attack_accuracy(colors_subject(), colors, "fgsm", settings)
    assert result.clean_accuracy == 1
    np.testing.assert_array_equal(result.accuracy, [1, 0])
    assert (result.steps, result.random_start) == (1, False)
    with pytest.raises(ConfigError, match="choose one of fgsm, pgd"):
        attack_accuracy(colors_subject(), colors, "cw")
    with pytest.raises(ConfigError, match="a radius of at least 0"):
        attack_accuracy(colors_subject(), colors, "pgd", AttackSettings(epsilons=(-0.1,)))
