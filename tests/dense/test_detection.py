"""Detectors on the feature maps of a backbone: torchvision's parameters, exact strides, and what padding may not do."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchvision.models.detection import fasterrcnn_resnet50_fpn, fcos_resnet50_fpn, retinanet_resnet50_fpn

from sequencer2d import create_model
from sequencer2d.dense import faster_rcnn, fcos, retinanet
from sequencer2d.dense.detection import Detector, PyramidBackbone
from sequencer2d.errors import ConfigError

TARGET = {"boxes": torch.tensor([[4.0, 4.0, 40.0, 50.0]]), "labels": torch.tensor([1]), "size": torch.tensor([64, 96])}


def tiny(**options):
    return create_model(
        "sequencer2d_n", features_only=True, depths=(1, 1), dims=(8, 16), hidden_dims=(2, 4), patch_sizes=(7, 2),
        **{"pyramid": (8, 16, 32), **options},
    )  # fmt: skip


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("make, theirs", [(retinanet, retinanet_resnet50_fpn), (fcos, fcos_resnet50_fpn)])
def test_heads_have_the_parameters_of_torchvisions(make, theirs):
    reference = theirs(weights=None, weights_backbone=None)
    assert parameters(make(tiny(), 91).model.head) == parameters(reference.head)


def test_faster_rcnn_has_the_heads_and_the_anchors_of_torchvisions():
    reference = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    model = faster_rcnn(tiny(pyramid=(4, 8, 16, 32)), 90)
    for part in ("rpn", "roi_heads"):
        assert parameters(getattr(model.model, part)) == parameters(getattr(reference, part))
    ours, theirs = model.model.rpn.anchor_generator, reference.rpn.anchor_generator
    assert (ours.sizes, ours.aspect_ratios) == (theirs.sizes, theirs.aspect_ratios)
    assert model.model.backbone.strides == [4, 8, 16, 32, 64]


def test_anchors_are_those_of_torchvisions_on_maps_of_its_strides():
    for make, theirs in ((retinanet, retinanet_resnet50_fpn), (fcos, fcos_resnet50_fpn)):
        ours = make(tiny(), 3).model.anchor_generator
        reference = theirs(weights=None, weights_backbone=None).anchor_generator
        assert (ours.sizes, ours.aspect_ratios) == (reference.sizes, reference.aspect_ratios)


class Recorder(nn.Module):
    """Stands where a detector of torchvision does and keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head = SimpleNamespace(size_divisible=32), nn.Identity()

    def forward(self, images, targets=None):
        self.given = images, targets
        self.head({"scores": torch.ones(len(images), 2, 3, dtype=torch.half)})
        return [{"labels": torch.tensor([1, 3])} for _ in images]


def test_a_detector_counts_its_classes_from_the_first_one():
    model = Detector(Recorder(), first_class=1)
    images, target = torch.randn(1, 3, 96, 128), {**TARGET, "labels": torch.tensor([0, 2])}
    model(images, [target])
    (cut,), (taught,) = model.model.given
    assert torch.equal(cut, images[0, :, :64, :96])
    assert taught["labels"].tolist() == [1, 3]
    assert taught["boxes"] is target["boxes"]
    (found,) = model.eval()(images)
    assert (found["labels"].tolist(), found["size"].tolist(), bool(found["finite"])) == ([0, 2], [96, 128], True)


def test_found_boxes_have_a_least_score_of_5_percent_and_are_at_most_100_an_image():
    """As in mmdetection and in COCO's evaluation; torchvision's own FCOS leaves out scores below 0.2."""
    single = [make(tiny(), 3).model for make in (retinanet, fcos)]
    assert [(model.score_thresh, model.detections_per_img) for model in single] == [(0.05, 100)] * 2
    heads = faster_rcnn(tiny(pyramid=(4, 8, 16, 32)), 3).model.roi_heads
    assert (heads.score_thresh, heads.detections_per_img) == (0.05, 100)
    given = fcos(tiny(), 3, score_thresh=0.3, detections_per_img=7).model
    assert (given.score_thresh, given.detections_per_img) == (0.3, 7)


def test_faster_rcnn_numbers_classes_from_0_and_learns():
    model = faster_rcnn(tiny(pyramid=(4, 8, 16, 32)), 2, box_score_thresh=0.0)
    images = torch.randn(2, 3, 64, 96)
    optimizer = torch.optim.SGD(model.parameters(), lr=2e-2)
    losses = []
    for _ in range(6):
        torch.manual_seed(1)  # the sampling of proposals draws the same every time
        with torch.autocast("cpu", torch.bfloat16):
            parts = model(images, [TARGET, TARGET])
        loss = sum(parts.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert set(parts) == {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    assert losses[-1] < losses[0]
    with torch.inference_mode():
        found = model.eval()(images)
    labels = torch.cat([one["labels"] for one in found])
    assert set(labels.tolist()) <= {0, 1}
    assert len(labels)
    assert all(bool(one["finite"]) for one in found)


@pytest.mark.parametrize(
    "name, options",
    [
        ("timm:resnet18", {}),
        ("timm:convnext_atto", {}),
        ("timm:poolformer_s12", {}),
        ("timm:swin_tiny_patch4_window7_224", {"strict_img_size": False, "depths": (1, 1, 1, 1)}),
    ],
)
@pytest.mark.parametrize("make", [retinanet, fcos])
def test_peers_train_a_step(make, name, options):
    body = create_model(name, features_only=True, out_indices=(-3, -2, -1), **options)
    model = make(body, 3)
    losses = model(torch.randn(2, 3, 64, 96), [TARGET, TARGET])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad is not None for p in model.model.head.parameters())


@pytest.mark.parametrize("strides, divisible", [((8, 16, 32), 32), ((7, 14, 28), 28)])
def test_anchors_stand_at_the_strides_of_the_maps(strides, divisible):
    model = retinanet(tiny(pyramid=strides), 3)
    assert model.model.backbone.strides == [*strides, 2 * strides[-1], 4 * strides[-1]]
    assert model.model.transform.size_divisible == divisible
    seen = []
    model.model.anchor_generator.register_forward_hook(lambda _, __, out: seen.append(out[0]))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        model.eval()(torch.zeros(1, 3, 200, 264))
    centers = (seen[0][:, :2] + seen[0][:, 2:]) / 2
    assert seen[0].dtype == torch.float32, "16 bits would round positions"
    side = 4 * strides[0]
    assert torch.allclose((seen[0][1, 2:] - seen[0][1, :2]).max() * 0 + side, torch.tensor(float(side)))
    expected = {float(stride * k) for stride in (*strides, 2 * strides[-1], 4 * strides[-1]) for k in range(64)}
    assert {round(x, 3) for x in centers[:, 0].unique().tolist()} <= {round(x, 3) for x in expected} | {
        round(x + d, 3) for x in expected for d in (-0.5, 0.5)
    }


def test_what_lies_beside_an_image_in_its_batch_changes_nothing():
    model = retinanet(tiny(), 3, score_thresh=0.0).eval()
    small, batch = torch.randn(1, 3, 64, 96), torch.full((1, 3, 96, 128), 5.0)
    batch[:, :, :64, :96] = small
    with torch.inference_mode():
        alone = model(small)[0]
        padded = model(batch, [TARGET])[0]
    assert padded["size"].tolist() == [64, 96]
    assert torch.equal(alone["boxes"], padded["boxes"])
    assert len(alone["boxes"]) == 100
    assert bool(alone["finite"])


def test_outputs_that_are_not_finite_are_told(seeded):
    model = retinanet(tiny(), 3).eval()
    with torch.inference_mode():
        found = model(torch.stack([torch.zeros(3, 64, 64), torch.full((3, 64, 64), torch.nan)]))
    assert [bool(one["finite"]) for one in found] == [True, False]
    two_stages = faster_rcnn(tiny(pyramid=(4, 8, 16, 32)), 3).eval()
    torch.nn.init.constant_(two_stages.model.roi_heads.box_predictor.bbox_pred.bias, torch.nan)
    with torch.inference_mode():
        assert not two_stages(torch.zeros(1, 3, 64, 64))[0]["finite"]


@pytest.mark.parametrize("strides", [[], [3.5, 7, 14], [8, 12]])
def test_strides_that_are_no_whole_numbers_or_do_not_double_are_refused(strides):
    info = SimpleNamespace(reduction=lambda: strides, channels=lambda: [4] * len(strides))
    with pytest.raises(ConfigError, match="strides double"):
        PyramidBackbone(SimpleNamespace(feature_info=info))


def test_strides_of_a_pyramid_are_integers():
    body = SimpleNamespace(feature_info=SimpleNamespace(reduction=lambda: [8.0, 16.0], channels=lambda: [4, 4]))
    strides = PyramidBackbone(body).strides
    assert [(stride, type(stride)) for stride in strides] == [(side, int) for side in (8, 16, 32, 64)]


def test_mistakes():
    with pytest.raises(ConfigError, match="strides double"):
        retinanet(tiny(pyramid=(8, 32)), 3)
    with pytest.raises(ConfigError, match="needs targets"):
        retinanet(tiny(), 3)(torch.zeros(1, 3, 64, 64))
