"""CKA against its definition; Grad-CAM on the layouts of our models and others."""

import numpy as np
import pytest
import torch

from sequencer2d.analysis.attribution import grad_cam
from sequencer2d.analysis.blocks import block_outputs
from sequencer2d.analysis.cka import similarity, unbiased_hsic
from sequencer2d.errors import ConfigError, InputError
from sequencer2d.evaluation.pixels import normalized
from sequencer2d.evaluation.subject import load_subject
from tests.analysis.test_hidden_states import subject


def images(count, size=24, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def linear_cka(x, y):
    """CKA of features (n, p) and (n, q) by its definition: ‖Yᵀ X‖² / (‖Xᵀ X‖ ‖Yᵀ Y‖) after centering."""
    x, y = x - x.mean(dim=0), y - y.mean(dim=0)
    return (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())


def test_unbiased_hsic_equals_its_definition_as_a_sum_over_tuples():
    """Song et al.: the mean over tuples of distinct indices of k_ij m_ij + k_ij m_qr − 2 k_ij m_iq."""
    torch.manual_seed(0)
    n = 6
    x, y = torch.randn(n, 3, dtype=torch.float64), torch.randn(n, 4, dtype=torch.float64)
    k, m = x @ x.T, y @ y.T
    distinct = [
        (i, j, q, r) for i in range(n) for j in range(n) for q in range(n) for r in range(n) if len({i, j, q, r}) == 4
    ]
    terms = [k[i, j] * m[i, j] + k[i, j] * m[q, r] - 2 * k[i, j] * m[i, q] for i, j, q, r in distinct]
    torch.testing.assert_close(unbiased_hsic(k, m), torch.stack(terms).mean())


def test_cka_of_many_images_approaches_the_definition():
    """With many images the bias vanishes: the mini-batch estimate and the definition agree."""
    s = subject()
    pixels = images(400)
    blocks = ["stages.0.blocks.0", "stages.1.blocks.0"]
    got = similarity(s, s, pixels, blocks_first=blocks, blocks_second=blocks, batch_size=400).values
    outputs = block_outputs(s.model, normalized(pixels, s), blocks)
    x, y = (outputs[name].detach().flatten(1).double() for name in blocks)
    torch.testing.assert_close(got[0, 0], 1.0)
    exact = linear_cka(x, y).item()
    k, m = (z - z.mean(dim=0) for z in (x, y))
    unbiased = (
        unbiased_hsic(k @ k.T, m @ m.T) / (unbiased_hsic(k @ k.T, k @ k.T) * unbiased_hsic(m @ m.T, m @ m.T)).sqrt()
    )
    assert got[0, 1] == pytest.approx(unbiased.item(), rel=1e-4)
    assert got[0, 1] <= exact + 1e-3


def test_the_batch_size_does_not_shift_the_value():
    s = subject()
    pixels = images(240, seed=1)
    values = [similarity(s, s, pixels, batch_size=size).values for size in (12, 240)]
    np.testing.assert_allclose(values[0], values[1], atol=0.05)


def test_two_models_and_too_few_images(tmp_path):
    s, other = subject(), load_subject("random:resnet18", num_classes=3)
    result = similarity(s, other, images(8), images(8, size=32), batch_size=4)
    assert result.values.shape == (3, 8)
    assert result.images == 8
    result.save(tmp_path / "cka.npz")
    with pytest.raises(InputError, match="at least 4"):
        similarity(s, s, images(3))


@pytest.mark.parametrize("name", ["ours", "resnet18", "convnext_atto"])
def test_grad_cam_lies_on_the_image(name):
    pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed")
    s = subject() if name == "ours" else load_subject(f"random:{name}", num_classes=3)
    with torch.no_grad():
        for parameter in s.model.get_classifier().parameters():
            parameter.normal_()
    size = 24 if name == "ours" else 64
    pixels = images(2, size)
    result = grad_cam(s, pixels, target=1)
    assert result.maps.shape == (2, size, size)
    assert 0 <= result.maps.min() <= result.maps.max() <= 1
    assert result.maps.std() > 0
    with pytest.raises(ConfigError, match="no class 7"):
        grad_cam(s, pixels, target=7)
