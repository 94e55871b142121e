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
        self.out_channels = 16
        self.body = made
        self.fpn = FeaturePyramidNetwork(made.feature_info.channels(), 16, LastLevelP6P7(16, 16))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        maps: dict[str, torch.Tensor] = self.fpn(OrderedDict((str(i), x) for i, x in enumerate(self.body(x))))
        return maps


def test_torchvisions_retinanet_learns_on_it() -> None:
    from torchvision.models.detection import RetinaNet

    torch.manual_seed(0)
    made: Any = create_model("sequencer2d_n", features_only=True, pyramid=(8, 16, 32), **SIZES)
    detector = RetinaNet(Detector(made), num_classes=3, min_size=96, max_size=128).train()
    images = [torch.rand(3, 90, 120), torch.rand(3, 70, 60)]
    boxes = [torch.tensor([[10.0, 12.0, 60.0, 70.0]]), torch.tensor([[5.0, 5.0, 40.0, 55.0]])]
    targets = [{"boxes": box, "labels": torch.tensor([label])} for box, label in zip(boxes, (1, 2), strict=True)]
    optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        loss = sum(detector(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in detector.backbone.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    found = detector.eval()(images)
    assert all(set(one) == {"boxes", "labels", "scores"} for one in found)


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
