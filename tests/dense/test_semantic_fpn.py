"""Semantic FPN: layers and sizes of mmsegmentation's, on maps of any strides."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sequencer2d import create_model
from sequencer2d.dense import FPN, Segmenter, SemanticFPN, SemanticFPNHead, parts
from sequencer2d.errors import ConfigError, InputError
from tests.models.small import SIZES

STRIDES, CLASSES = (4, 8, 16, 32), 150


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def of_backbone(name: str) -> int:
    with torch.device("meta"):
        return parameters(create_model(name, num_classes=0))


@pytest.mark.parametrize(("name", "millions"), [("sequencer2d_s", 32), ("sequencer2d_m", 42), ("sequencer2d_l", 58)])
def test_parameters_with_the_backbone_are_those_of_table_3(name: str, millions: int) -> None:
    decoder = SemanticFPN((192, 384, 384, 384), STRIDES, CLASSES)
    assert round((of_backbone(name) + parameters(decoder)) / 1e6) == millions


@pytest.mark.parametrize(("name", "millions"), [("pvt_small", 28), ("pvt_medium", 48), ("pvt_large", 65)])
def test_parameters_of_peers_are_those_of_table_3(name: str, millions: int) -> None:
    decoder = SemanticFPN((64, 128, 320, 512), STRIDES, CLASSES)
    assert round((of_backbone(name) + parameters(decoder)) / 1e6) == millions


def test_parameters_of_the_decoder_by_hand() -> None:
    lateral = (192 + 3 * 384) * 256 + 4 * 256
    output = 4 * (256 * 256 * 9 + 256)
    head = 4 * 256 * 128 * 9 + 3 * 128 * 128 * 9 + 7 * 2 * 128 + 128 * CLASSES + CLASSES
    decoder = SemanticFPN((192, 384, 384, 384), STRIDES, CLASSES)
    assert parameters(decoder) == lateral + output + head == 4_348_566


@pytest.mark.parametrize(
    ("strides", "repeats", "doublings"),
    [
        ((4, 8, 16, 32), [1, 1, 2, 3], [0, 1, 2, 3]),
        ((3.5, 7, 14, 28), [1, 1, 2, 3], [0, 1, 2, 3]),
        ((7, 14, 14, 14), [1, 1, 1, 1], [0, 1, 1, 1]),
        ((8, 8), [1, 1], [0, 0]),
    ],
)
def test_repeats_and_doublings_follow_the_strides(strides, repeats, doublings) -> None:
    head = SemanticFPNHead(16, strides, 3)
    for kind, expected in ((nn.Conv2d, repeats), (nn.BatchNorm2d, repeats), (nn.Upsample, doublings)):
        assert [sum(isinstance(m, kind) for m in level.modules()) for level in head.levels] == expected
    assert all(m.bias is None for m in head.levels.modules() if isinstance(m, nn.Conv2d))


def test_a_coarser_level_is_added_to_all_finer_ones_of_the_pyramid() -> None:
    fpn = FPN((2, 3), channels=4).double()
    fine, coarse = torch.randn(1, 2, 5, 7, dtype=torch.double), torch.randn(1, 3, 3, 4, dtype=torch.double)
    laterals = [fpn.lateral[0](fine), fpn.lateral[1](coarse)]
    rows, columns = torch.arange(5) * 3 // 5, torch.arange(7) * 4 // 7
    summed = laterals[0] + laterals[1][:, :, rows][..., columns]
    found = fpn([fine, coarse])
    torch.testing.assert_close(found[0], fpn.output[0](summed))
    torch.testing.assert_close(found[1], fpn.output[1](laterals[1]))


def test_the_head_doubles_after_each_repeat_and_adds_the_levels() -> None:
    head = SemanticFPNHead(3, (4, 16), 5, channels=4).double().eval()
    fine, coarse = torch.randn(2, 3, 12, 8, dtype=torch.double), torch.randn(2, 3, 3, 2, dtype=torch.double)
    convolutions = [m for m in head.levels[1].modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in head.levels[1].modules() if isinstance(m, nn.BatchNorm2d)]
    x = coarse
    for convolution, norm in zip(convolutions, norms, strict=True):
        x = F.interpolate(norm(convolution(x)).relu(), scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(head([fine, coarse]), head.classifier(head.levels[0](fine) + x))


def test_a_tenth_of_the_channels_is_dropped_and_convolutions_keep_the_size() -> None:
    assert SemanticFPNHead(16, (4, 8), 3).dropout.p == 0.1
    for kernel in (1, 3, 5):
        assert parts.convolution(2, 3, kernel)(torch.randn(2, 2, 7, 6)).shape == (2, 3, 7, 6)


def test_initial_weights_are_drawn_as_stated() -> None:
    torch.manual_seed(0)
    decoder = SemanticFPN((64, 128), (4, 8), 150)
    bound = (6 / ((256 + 256) * 9)) ** 0.5
    assert 0.99 * bound < decoder.fpn.output[0].weight.abs().max() <= bound
    assert decoder.head.classifier.weight.std().item() == pytest.approx(0.01, rel=0.05)
    convolution = decoder.head.levels[0][0][0]
    assert convolution.weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.05)
    assert not any(p.any() for name, p in decoder.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize("size", [(28, 56), (61, 50)])
def test_a_segmenter_gives_logits_in_the_images_size_and_all_parameters_learn(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = Segmenter(create_model("sequencer2d_n", features_only=True, **SIZES), 5)
    images, labels = torch.randn(2, 3, *size), torch.randint(5, (2, *size))
    logits = model(images)
    assert logits.shape == (2, 5, *size)
    F.cross_entropy(logits, labels).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_images_are_padded_to_the_coarsest_stride_and_the_logits_cut_back() -> None:
    torch.manual_seed(0)
    model = Segmenter(create_model("sequencer2d_n", features_only=True, pyramid=STRIDES, **SIZES), 5).eval()
    images = torch.randn(1, 3, 40, 50)
    padded = F.pad(images, (0, 14, 0, 24))
    expected = F.interpolate(model.decoder(model.backbone(padded)), (64, 64), mode="bilinear")
    assert torch.equal(model(padded), expected)
    assert torch.equal(model(images), expected[..., :40, :50])


def test_a_segmenter_stands_on_a_backbone_of_timms() -> None:
    backbone = create_model("timm:resnet18", features_only=True, out_indices=(1, 2, 3, 4))
    model = Segmenter(backbone, CLASSES)
    assert model.decoder.in_channels == (64, 128, 256, 512)
    assert model.eval()(torch.randn(1, 3, 64, 96)).shape == (1, CLASSES, 64, 96)


@pytest.mark.parametrize(
    ("channels", "strides", "classes", "message"),
    [
        ((8, 8), (4,), 3, "2 maps and 1 strides"),
        ((), (), 3, "0 maps"),
        ((8,), (4,), 0, "num_classes=0"),
        ((8, 8), (4, 12), 3, "strides 4, 12 do not fit"),
        ((8, 8), (8, 4), 3, "strides 8, 4 do not fit"),
        ((8,), (0,), 3, "strides 0 do not fit"),
        ((8, 8), (4, 0), 3, "strides 4, 0 do not fit"),
        ((8, 8), (4, -8), 3, "strides 4, -8 do not fit"),
        ((8, 8), (-4, -8), 3, "strides -4, -8 do not fit"),
    ],
)
def test_maps_that_do_not_fit_are_refused(channels, strides, classes, message) -> None:
    with pytest.raises(ConfigError, match=message):
        SemanticFPN(channels, strides, classes)


def test_other_maps_than_those_stated_are_refused() -> None:
    decoder = SemanticFPN((8, 16), (4, 8), 3)
    with pytest.raises(InputError, match="8, 16 channels"):
        decoder([torch.zeros(1, 8, 4, 4), torch.zeros(1, 8, 2, 2)])
    with pytest.raises(InputError, match=r"got 8$"):
        decoder([torch.zeros(1, 8, 4, 4)])


def test_one_class_and_maps_of_one_stride_fit() -> None:
    decoder = SemanticFPN((8, 16), (4, 4), 1)
    assert decoder([torch.zeros(1, 8, 6, 5), torch.zeros(1, 16, 6, 5)]).shape == (1, 1, 6, 5)


def test_training_on_a_single_position_is_refused_in_one_line() -> None:
    """Batch norm cannot train on one value for a channel; two images, or evaluation, are fine."""
    decoder = SemanticFPN((8, 8), (16, 32), 3)
    maps = [torch.randn(1, 8, 2, 2), torch.randn(1, 8, 1, 1)]
    with pytest.raises(InputError, match=r"a single position.*raise data\.batch_size or data\.image_size"):
        decoder(maps)
    assert decoder([x.repeat(2, 1, 1, 1) for x in maps]).shape == (2, 3, 2, 2)
    for size in ((2, 1), (1, 2)):
        assert decoder([maps[0], torch.randn(1, 8, *size)]).shape == (1, 3, 2, 2)
    assert decoder.eval()(maps).shape == (1, 3, 2, 2)
