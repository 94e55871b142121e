"""Another stride of the stem from the same weights."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sequencer2d.errors import ConfigError
from sequencer2d.models import load_model, restride, save_weights
from tests.models.small import small_model


def patches(image: Tensor, size: int) -> Tensor:
    """(1, C, H, W) → (N, C, size, size)."""
    return F.unfold(image, size, stride=size)[0].T.reshape(-1, image.shape[1], size, size)


@pytest.mark.parametrize("patch", [8, 16])
def test_a_larger_kernel_sees_in_an_enlarged_patch_what_the_old_one_saw_in_the_patch(patch: int) -> None:
    model, image = small_model(), torch.randn(1, 3, 28, 42)
    expected = model.stem(image).flatten(0, 2)
    enlarged = F.interpolate(patches(image, 7), size=(patch, patch), mode="bicubic", antialias=True)
    restride(model, patch)
    assert model.stem.proj.kernel_size == model.stem.proj.stride == (patch, patch)
    found = F.conv2d(enlarged, model.stem.proj.weight, model.stem.proj.bias)[:, :, 0, 0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_same_stride_changes_nothing() -> None:
    model, other = small_model(), small_model()
    stem = other.stem
    restride(other, 7)
    assert other.stem is stem
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_only_the_kernel_changes_and_all_strides_follow() -> None:
    model, other = small_model(), small_model()
    restride(other, 8)
    state = model.state_dict()
    assert [name for name, tensor in other.state_dict().items() if not torch.equal(tensor, state[name])] == [
        "stem.proj.weight"
    ]
    assert other.config.reductions == (8, 16, 16, 16)
    assert [info["reduction"] for info in other.feature_info] == [8, 16, 16, 16]
    assert other.pretrained_cfg["pool_size"] == (14, 14)
    maps = other.forward_intermediates(torch.randn(1, 3, 64, 96), intermediates_only=True)
    assert [tuple(taken.shape[2:]) for taken in maps] == [(8, 12), (4, 6), (4, 6), (4, 6)]
    with pytest.raises(ConfigError, match="patch_sizes"):
        restride(model, 0)
    with pytest.raises(ConfigError, match="patches overlap"):
        restride(small_model(stem_overlap=2), 8)


def test_it_is_saved_and_rebuilt_with_its_stride_and_goes_on_training(tmp_path) -> None:
    model, x = small_model(position_embedding=True, img_size=56), torch.randn(1, 3, 48, 64)
    model.stem.proj.weight.requires_grad_(False)
    restride(model, 8)
    assert model.pos_embed.weight.shape[1:3] == (7, 7)
    assert not model.stem.proj.weight.requires_grad
    model(x).sum().backward()
    assert model.pos_embed.weight.grad is not None
    save_weights(model, tmp_path / "restrided.safetensors")
    again = load_model(tmp_path / "restrided.safetensors")
    assert again.config.patch_sizes == (8, 2, 1, 1)
    assert torch.equal(again(x), model(x))
