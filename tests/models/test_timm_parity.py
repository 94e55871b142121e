"""The same weights give timm's logits, to float rounding.

The budget is computed: timm's own error in float32, against timm in float64 on a small image. Ours may differ from
timm's by at most four times as much, the errors of both included. Rounding does not grow with the image: logits are
means over it.
"""

import pytest
import timm
import torch
from timm.models.sequencer import Sequencer2d

from sequencer2d import create_model
from sequencer2d.models import load_weights, save_weights, to_authors
from tests.models.small import randomize

NAMES = ("sequencer2d_s", "sequencer2d_m", "sequencer2d_l")
SIZES = ((224, 224), (392, 392), (256, 256), (111, 251))
"""The last two are no multiples of the stride, 14 pixels: the convolutions cut off the rest."""


def images(*size):
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=NAMES)
def theirs(request):
    torch.manual_seed(0)
    return randomize(timm.create_model(request.param)).eval()


@pytest.fixture(scope="module")
def budget(theirs):
    with torch.no_grad():
        single, exact = theirs(images(56, 70)), theirs.double()(images(56, 70).double())
    theirs.float()
    assert exact.std() > 0.1
    return 4 * (single - exact).abs().max().item()


@pytest.fixture(scope="module")
def ours(theirs):
    model = create_model(theirs.default_cfg["architecture"]).eval()
    model.load_state_dict(theirs.state_dict(), strict=True)
    return model


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_logits(ours, theirs, budget, size):
    with torch.no_grad():
        error = (ours(images(*size)) - theirs(images(*size))).abs().max().item()
    assert error <= budget < 1e-5


def test_logits_of_the_authors_format(ours, theirs, budget, tmp_path):
    torch.save({"model": to_authors(theirs.state_dict())}, tmp_path / "authors.pth")
    again = create_model(ours.variant).eval()
    load_weights(again, tmp_path / "authors.pth")
    with torch.no_grad():
        assert (again(images(56, 84)) - theirs(images(56, 84))).abs().max().item() <= budget


def test_parameters_come_in_timms_names_and_shapes(ours, theirs):
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}


@pytest.fixture(scope="module")
def small_pair():
    theirs = randomize(timm.create_model("sequencer2d_s", layers=(1, 1, 1, 1), num_classes=7)).eval()
    ours = create_model("sequencer2d_s", depths=(1, 1, 1, 1), num_classes=7).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


@pytest.mark.skipif(not hasattr(Sequencer2d, "forward_intermediates"), reason="this version of timm lacks them")
@pytest.mark.parametrize("size", [(56, 84), (60, 97)], ids=str)
def test_features_and_intermediates(small_pair, size):
    ours, theirs = small_pair
    x, options = images(*size), {"indices": [0, 3], "norm": True}
    with torch.no_grad():
        features, maps = ours.forward_intermediates(x, **options)
        expected_features, expected_maps = theirs.forward_intermediates(x, **options)
    for a, b in zip([features, *maps], [expected_features, *expected_maps], strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_timm_loads_our_files(small_pair, tmp_path, suffix):
    ours, theirs = small_pair
    save_weights(ours, tmp_path / f"ours{suffix}")
    options = {"layers": (1, 1, 1, 1), "num_classes": 7, "checkpoint_path": str(tmp_path / f"ours{suffix}")}
    loaded = timm.create_model("sequencer2d_s", **options).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in theirs.state_dict().items())
