"""Decoders of other libraries learn on a pyramid of ours: one real step of training each."""

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sequencer2d import create_model
from sequencer2d.dense import Segmenter
from sequencer2d.models import FeaturePyramid, register_timm
from tests.models.small import SIZES


@pytest.mark.parametrize("size", [(64, 96), (61, 50)])
@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (3.5, 7, 14, 28)])
def test_semantic_fpn_gives_logits_in_the_images_size_and_all_parameters_learn(strides: Any, size: Any) -> None:
    torch.manual_seed(0)
    made = create_model("sequencer2d_n", features_only=True, pyramid=strides, **SIZES)
    model = Segmenter(made, num_classes=5)
    images, labels = torch.randn(2, 3, *size), torch.randint(5, (2, *size))
    logits = model(images)
    assert logits.shape == (2, 5, *size)
    F.cross_entropy(logits, labels).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


class Detector(nn.Module):
    """What torchvision's detectors want of a backbone: named maps of one width."""

    def __init__(self, made: FeaturePyramid) -> None:
        from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelP6P7

        super().__init__()
        self.out_channels = 32
        self.body = made
        self.fpn = FeaturePyramidNetwork(made.feature_info.channels(), 32, LastLevelP6P7(32, 32))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        maps: dict[str, torch.Tensor] = self.fpn(OrderedDict((str(i), x) for i, x in enumerate(self.body(x))))
        return maps


@pytest.mark.parametrize(
    "kind, strides",
    [
        ("RetinaNet", (8, 16, 32)),
        ("RetinaNet", (7, 14, 28)),
        ("FCOS", (8, 16, 32)),
        ("FasterRCNN", (8, 16, 32)),
        ("MaskRCNN", (8, 16, 32)),
    ],
)
def test_torchvisions_detectors_learn_on_it(kind: str, strides: Any) -> None:
    from torchvision.models import detection

    torch.manual_seed(0)
    made: Any = create_model("sequencer2d_n", features_only=True, pyramid=strides, **SIZES)
    options: Any = {"num_classes": 3, "min_size": 96, "max_size": 128, "size_divisible": strides[-1]}
    if kind.endswith("RCNN"):
        # One size of anchors for each of the five maps.
        sizes = tuple((size,) for size in (16, 32, 64, 128, 256))
        options["rpn_anchor_generator"] = detection.rpn.AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)
    detector = getattr(detection, kind)(Detector(made), **options).train()
    images = [torch.rand(3, 90, 120), torch.rand(3, 70, 60)]
    boxes = [torch.tensor([[10.0, 12.0, 60.0, 70.0]]), torch.tensor([[5.0, 5.0, 40.0, 55.0]])]
    targets = [
        {"boxes": box, "labels": torch.tensor([label]), "masks": torch.ones(1, *image.shape[1:], dtype=torch.uint8)}
        for image, box, label in zip(images, boxes, (1, 2), strict=True)
    ]
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-3)
    losses = []
    for _ in range(2):
        # The sampling of boxes draws the same both times.
        torch.manual_seed(1)
        loss = sum(detector(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        assert made.backbone.stem.proj.weight.grad.abs().sum() > 0
        assert all(p.grad is None or p.grad.isfinite().all() for p in detector.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]
    found = detector.eval()(images)
    assert all({"boxes", "labels", "scores"} <= set(one) for one in found)


def simple_pyramid(channels: int, dim: int) -> nn.ModuleList:
    """The levels of ViTDet's pyramid: 4, 2, 1 and half times as fine as the map that they are all made from."""
    finer = [nn.ConvTranspose2d(channels, channels // 2, 2, 2), nn.ConvTranspose2d(channels // 2, channels // 4, 2, 2)]
    levels = [
        [finer[0], nn.GroupNorm(1, channels // 2), nn.GELU(), finer[1], nn.Conv2d(channels // 4, dim, 1)],
        [nn.ConvTranspose2d(channels, channels // 2, 2, 2), nn.Conv2d(channels // 2, dim, 1)],
        [nn.Conv2d(channels, dim, 1)],
        [nn.MaxPool2d(2), nn.Conv2d(channels, dim, 1)],
    ]
    return nn.ModuleList(nn.Sequential(*layers) for layers in levels)


def test_a_pyramid_over_one_map_of_stride_16_learns_on_it() -> None:
    torch.manual_seed(0)
    body: Any = create_model("sequencer2d_n", features_only=True, pyramid=(16,), **SIZES)
    assert body.feature_info.reduction() == [16], "strides of 4 to 32 follow, each exactly twice the one before"
    levels = simple_pyramid(*body.feature_info.channels(), 8)
    parameters = [*body.parameters(), *levels.parameters()]
    optimizer, images, losses = torch.optim.SGD(parameters, lr=1e-2), torch.randn(2, 3, 64, 96), []
    for _ in range(2):
        (last,) = body(images)
        maps = [level(last) for level in levels]
        assert [tuple(one.shape) for one in maps] == [(2, 8, 64 // s, 96 // s) for s in (4, 8, 16, 32)]
        loss = torch.stack([(one - 1).square().mean() for one in maps]).sum()
        optimizer.zero_grad()
        loss.backward()
        assert body.backbone.stem.proj.weight.grad.abs().sum() > 0
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]


def test_transformers_upernet_learns_on_it() -> None:
    transformers = pytest.importorskip("transformers")
    register_timm()
    torch.manual_seed(0)
    backbone = transformers.TimmBackboneConfig(
        backbone="s2d_sequencer2d_n_pyramid", out_indices=[0, 1, 2, 3], use_pretrained_backbone=False
    )
    config = transformers.UperNetConfig(
        backbone_config=backbone, auxiliary_in_channels=192, hidden_size=32, auxiliary_channels=16, num_labels=3
    )
    model = transformers.UperNetForSemanticSegmentation(config)
    x, labels = torch.randn(2, 3, 64, 96), torch.randint(3, (2, 64, 96))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(2):
        result = model(x, labels=labels)
        assert result.logits.shape == (2, 3, 64, 96)
        optimizer.zero_grad()
        result.loss.backward()
        assert model.backbone._backbone.backbone.stem.proj.weight.grad.abs().sum() > 0
        optimizer.step()
        losses.append(result.loss.item())
    assert losses[1] < losses[0]


@pytest.mark.parametrize(
    "architecture", ["Unet", "FPN", "UPerNet", "DeepLabV3Plus", "Segformer", "PAN", "Linknet", "MAnet", "PSPNet"]
)
def test_segmentation_models_pytorch_learns_on_it(architecture: str) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    register_timm()
    torch.manual_seed(0)
    model = getattr(smp, architecture)("tu-s2d_sequencer2d_n_pyramid", encoder_weights=None, classes=3, **SIZES)
    x, labels = torch.randn(2, 3, 128, 160), torch.randint(3, (2, 128, 160))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(2):
        # The decoders' dropout draws the same both times.
        torch.manual_seed(1)
        logits = model(x)
        assert logits.shape == (2, 3, 128, 160)
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        assert model.encoder.model.backbone.stem.proj.weight.grad.abs().sum() > 0
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]
