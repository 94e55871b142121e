"""Accuracy at other sizes of images: sizes, strides and refusals, against worked examples."""

import numpy as np
import pytest
from torch import nn

from sequencer2d.data.config import DataConfig
from sequencer2d.errors import ConfigError
from sequencer2d.evaluation.resolution import ResolutionResult, default_sizes, model_stride, resolution_sweep
from sequencer2d.evaluation.subject import Subject, load_subject
from sequencer2d.models import create_model
from tests.evaluation.subjects import Always, colors_subject, small


def test_sizes_of_the_paper_and_of_small_images():
    full = create_model("sequencer2d_s", depths=(1, 1, 1, 1), num_classes=2)
    subject = Subject("s", full, DataConfig(), ("a", "b"))
    assert default_sizes(subject) == (112, 140, 168, 196, 224, 252, 280, 308, 336, 364, 392, 420, 448)
    resnet = load_subject("random:resnet18", num_classes=2)
    assert default_sizes(resnet) == tuple(range(128, 449, 32))
    assert default_sizes(small()) == (16, 24, 32, 40, 48, 56, 64)


def test_resolution_sweep(colors):
    result = resolution_sweep(colors_subject(), colors, (16, 64))
    assert result.sizes.tolist() == [16, 32, 64]
    np.testing.assert_array_equal(result.relative, 1)


def test_a_vit_is_resized_and_a_model_of_one_size_refuses(colors):
    sizes = {}
    for name in ("vit_tiny_patch16_224", "mixer_s32_224"):
        subject = load_subject(f"random:{name}", num_classes=3)
        subject = Subject(name, subject.model, subject.data, ("red", "green", "blue"))
        sizes[name] = resolution_sweep(subject, colors, (112,), limit=2)
    assert sizes["vit_tiny_patch16_224"].sizes.tolist() == [112, 224]
    assert sizes["mixer_s32_224"].sizes.tolist() == [224]
    assert list(sizes["mixer_s32_224"].refused) == [112]


def test_accuracy_is_relative_to_the_native_size_or_unknown():
    sizes, top1 = np.array([16, 32, 64]), np.array([0.2, 0.8, 0.4])
    assert ResolutionResult("x", 32, sizes, top1, 5).relative == pytest.approx([0.25, 1, 0.5])
    assert np.isnan(ResolutionResult("x", 32, sizes, np.array([0.2, 0, 0.4]), 5).relative).all()


def test_the_stride_is_what_a_model_says_of_itself():
    class Patches(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.patch_embed = nn.Module()
            self.patch_embed.patch_size = size

    assert [model_stride(model) for model in (small().model, Patches((16, 16)), Patches(8), nn.Flatten())] == [
        8, 16, 8, 32,
    ]  # fmt: skip
    assert model_stride(load_subject("random:resnet18", num_classes=2).model) == 32


def test_sizes_are_asked_for_once_and_positive(colors):
    counted = []
    result = resolution_sweep(colors_subject(), colors, (64, 16, 64), limit=4, batch_size=3, progress=counted.append)
    assert (result.sizes.tolist(), result.native, result.count, sum(counted)) == ([16, 32, 64], 32, 4, 12)
    with pytest.raises(ConfigError, match="size 0: expected positive"):
        resolution_sweep(colors_subject(), colors, (0,))


def test_a_sweep_asks_about_the_first_class_too_and_leaves_out_others(colors):
    """The model always says red, its output 0; it does not know blue. Of red and green images half are right."""
    subject = Subject("red", Always(3, [0]), DataConfig(image_size=32), ("red", "green", "yellow"))
    result = resolution_sweep(subject, colors, (48,), common_only=True, batch_size=3)
    assert (result.sizes.tolist(), result.top1.tolist()) == ([32, 48], [0.5, 0.5])


def test_a_feature_map_without_a_stride_has_one_of_32():
    model = nn.Flatten()
    model.feature_info = [{"num_chs": 8, "reduction": 4}, {"num_chs": 8}]
    assert model_stride(model) == 32
    model.feature_info = [{"reduction": 64}, {"reduction": 16}]
    assert model_stride(model) == 16
