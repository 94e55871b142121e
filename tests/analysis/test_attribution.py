"""Grad-CAM: the class of each image is its most probable one, or the one that was asked about."""

import numpy as np
import pytest
import torch

pytest.importorskip("pytorch_grad_cam")

from sequencer2d.analysis.attribution import grad_cam
from sequencer2d.errors import ConfigError
from sequencer2d.evaluation.pixels import normalized
from tests.analysis.test_hidden_states import image, subject

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")


def probabilities(model, pixels):
    with torch.no_grad():
        return model.model(normalized(pixels, model)).softmax(dim=-1)


@pytest.fixture
def varied():
    """A model whose images have different classes, and five of these."""
    model = subject()
    torch.nn.init.normal_(model.model.head.fc.weight, std=30)
    pixels = np.stack([np.roll(image(seed), seed, axis=0) // (1 + seed) for seed in range(5)])
    assert len(set(probabilities(model, pixels).argmax(dim=-1).tolist())) > 1
    return model, pixels


def test_each_image_is_explained_by_its_most_probable_class(varied) -> None:
    model, pixels = varied
    result, expected = grad_cam(model, pixels), probabilities(model, pixels)
    assert result.block == "stages.1.blocks.0"
    assert result.classes.tolist() == expected.argmax(dim=-1).tolist()
    np.testing.assert_allclose(result.probabilities, expected.amax(dim=-1), rtol=1e-5)
    assert (result.maps.shape, result.maps.dtype) == ((5, 24, 24), np.float32)
    assert result.maps.min() >= 0
    assert result.maps.max() <= 1
    assert result.pixels is pixels


def test_a_class_that_was_asked_about_is_that_of_every_image(varied, tmp_path) -> None:
    model, pixels = varied
    result = grad_cam(model, pixels, "stages.0.blocks.1", target=2)
    assert result.classes.tolist() == [2] * 5
    np.testing.assert_allclose(result.probabilities, probabilities(model, pixels)[:, 2], rtol=1e-5)
    result.save(tmp_path / "cam.npz")
    with np.load(tmp_path / "cam.npz") as file:
        assert str(file["block"]) == "stages.0.blocks.1"
        np.testing.assert_array_equal(file["maps"], result.maps)


@pytest.mark.parametrize("target", [-1, 3])
def test_a_class_that_does_not_exist_is_refused(target: int) -> None:
    with pytest.raises(ConfigError, match=f"no class {target}: small has classes 0 to 2"):
        grad_cam(subject(), image()[None], target=target)
