"""torchvision's detectors on the feature maps of any backbone: `retinanet`, `fcos` and `faster_rcnn`.

Heads, losses and post-processing are torchvision's. Here stand the pyramid below them and anchors of fixed strides.
"""

import functools
import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool, LastLevelP6P7

from sequencer2d.errors import ConfigError

CHANNELS = 256
_ANCHOR_SCALE = 4
_OCTAVE = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))


class PyramidBackbone(nn.Module):
    """Images (B, C, H, W) → float32 maps of 256 channels: torchvision's FPN and coarser levels, by default P6 and P7.

    Maps are float32 under autocast too: torchvision makes anchors in their dtype, and 16 bits round positions.

    Args:
        body: images → list of NCHW maps, finest first, with timm's `feature_info`; each stride doubles the one before.
        pooled: one coarser level by pooling, as two-stage detectors have it, in place of P6 and P7.

    Attributes:
        out_channels: of every map.
        strides: of every map, in pixels, those of the coarser levels included.
        size_divisible: pixels that the sides of images must be multiples of, so that maps lie exactly above each other.

    Raises:
        ConfigError: strides that do not double, or are no whole numbers.
    """

    def __init__(self, body: Any, *, pooled: bool = False) -> None:
        super().__init__()
        own = body.feature_info.reduction()
        if not own or any(b != 2 * a for a, b in itertools.pairwise(own)) or own[0] != int(own[0]):
            raise ConfigError(f"a detector needs maps whose strides double, such as 8, 16, 32; these have {own}")
        self.body = body
        self.out_channels = CHANNELS
        extra = LastLevelMaxPool() if pooled else LastLevelP6P7(CHANNELS, CHANNELS)
        self.fpn = FeaturePyramidNetwork(body.feature_info.channels(), CHANNELS, extra)
        coarser = (2,) if pooled else (2, 4)
        self.strides = [int(stride) for stride in (*own, *(times * own[-1] for times in coarser))]
        self.size_divisible = math.lcm(*map(int, own))

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        maps = self.fpn(OrderedDict((str(i), x) for i, x in enumerate(self.body(images))))
        return OrderedDict((name, x.float()) for name, x in maps.items())


class StridedAnchors(AnchorGenerator):
    """Anchors at the true strides. torchvision takes image size // map size, 61 instead of 64 for 800 pixels.

    Args:
        sizes: of the anchors of each level, in pixels.
        aspect_ratios: height to width, of each level.
        strides: of the levels, in pixels.
    """

    def __init__(
        self, sizes: Sequence[Sequence[int]], aspect_ratios: Sequence[Sequence[float]], strides: Sequence[int]
    ) -> None:
        super().__init__(tuple(map(tuple, sizes)), tuple(map(tuple, aspect_ratios)))
        self.strides = strides

    def grid_anchors(self, grid_sizes: Any, strides: Any) -> list[Tensor]:
        """The anchors (positions · anchors, 4) of each level; `strides`, torchvision's guess, is not used."""
        own = [[torch.full_like(side, stride)] * 2 for (side, _), stride in zip(strides, self.strides, strict=True)]
        return super().grid_anchors(grid_sizes, own)  # type: ignore[no-any-return]


class PadOnly(GeneralizedRCNNTransform):
    """torchvision's padding of a batch alone: our images come normalized and in their final size."""

    def __init__(self, size_divisible: int) -> None:
        unused: Any = None  # sizes, mean and deviation: what takes them is replaced below
        super().__init__(unused, unused, unused, unused, size_divisible=size_divisible)

    def normalize(self, image: Tensor) -> Tensor:
        """The image itself."""
        return image

    def resize(self, image: Tensor, target: Any = None) -> tuple[Tensor, Any]:
        """The image and the target themselves."""
        return image, target


class Detector(nn.Module):
    """Normalized images → losses in training, boxes in evaluation.

    Args:
        model: a detector of torchvision over a `PyramidBackbone`.
        first_class: its number of class 0: 1 where it has a class for the background.

    `forward(images, targets)`: images (B, 3, H, W), normalized, each in the upper left of its place; targets, a
    dictionary for each image with int64 (2,) `size`, the height and width that the image takes there, and in training
    float32 (N, 4) `boxes` (left, top, right, bottom in pixels) and int64 (N,) `labels`. Without targets, images fill
    their places. Returns a dictionary of losses, 0-d, or for each image a dictionary of `boxes`, `scores`, `labels`,
    the image's `size` and `finite`, whether all of the head's outputs are.
    """

    def __init__(self, model: Any, first_class: int = 0) -> None:
        super().__init__()
        self.model, self.first_class = model, first_class
        model.transform = PadOnly(model.backbone.size_divisible)
        if hasattr(model, "rpn"):
            model.rpn.head.register_forward_hook(self._in_float32)
            model.roi_heads.box_predictor.register_forward_hook(functools.partial(self._in_float32, by_image=False))
        else:
            model.head.register_forward_hook(self._in_float32)
        self._finite: Tensor | None = None

    def forward(self, images: Tensor, targets: Sequence[dict[str, Tensor]] | None = None) -> Any:
        height, width = images.shape[2:]
        sizes = [(height, width)] * len(images) if targets is None else [t["size"].tolist() for t in targets]
        cut = [image[:, :rows, :columns] for image, (rows, columns) in zip(images, sizes, strict=True)]
        if self.training:
            if targets is None:
                raise ConfigError("a detector in training mode needs targets; call eval() to find boxes")
            first = self.first_class
            return self.model(cut, [{"boxes": t["boxes"], "labels": t["labels"] + first} for t in targets])
        self._finite = None
        found = self.model(cut)
        assert self._finite is not None
        for one, size, finite in zip(found, sizes, self._finite, strict=True):
            one |= {"labels": one["labels"] - self.first_class, "size": torch.tensor(size), "finite": finite}
        self._finite = None
        return found

    def _in_float32(self, head: nn.Module, _: Any, outputs: Any, *, by_image: bool = True) -> Any:
        """The outputs of a head as float32. In evaluation, note for which images they are finite, or if for all."""
        outputs = _mapped(Tensor.float, outputs)
        if not head.training:
            checks: list[Tensor] = []
            _mapped(lambda x: checks.append(x.isfinite().flatten(1).all(1)), outputs)
            finite = torch.stack(checks).all(0) if by_image else torch.stack([check.all() for check in checks]).all()
            self._finite = finite if self._finite is None else self._finite & finite
        return outputs


def _mapped(function: Callable[[Tensor], Any], outputs: Any) -> Any:
    """`function` of every tensor in dictionaries, lists and tuples."""
    if isinstance(outputs, Tensor):
        return function(outputs)
    if isinstance(outputs, dict):
        return {name: _mapped(function, value) for name, value in outputs.items()}
    return type(outputs)(_mapped(function, value) for value in outputs)


def retinanet(backbone: nn.Module, num_classes: int, **options: Any) -> Detector:
    """RetinaNet (Lin et al. 2017): focal loss, 9 anchors for each position of five maps.

    Args:
        backbone: images → NCHW maps whose strides double, as of `create_model(…, pyramid=(8, 16, 32))`.
        num_classes: outputs, without one for the background.
        **options: of torchvision's `RetinaNet`, such as `detections_per_img`.

    Raises:
        ConfigError: maps of other strides.
    """
    body = PyramidBackbone(backbone)
    sizes = [[int(_ANCHOR_SCALE * stride * scale) for scale in _OCTAVE] for stride in body.strides]
    anchors = StridedAnchors(sizes, [(0.5, 1.0, 2.0)] * len(sizes), body.strides)
    options = {"detections_per_img": 100, **options}
    return Detector(RetinaNet(body, num_classes, anchor_generator=anchors, **options))


def fcos(backbone: nn.Module, num_classes: int, **options: Any) -> Detector:
    """FCOS (Tian et al. 2019), without anchors: each position of a map predicts a box. Arguments as `retinanet`."""
    body = PyramidBackbone(backbone)
    points = StridedAnchors([[stride] for stride in body.strides], [(1.0,)] * len(body.strides), body.strides)
    options = {"score_thresh": 0.05, **options}
    return Detector(FCOS(body, num_classes, anchor_generator=points, **options))


def faster_rcnn(backbone: nn.Module, num_classes: int, **options: Any) -> Detector:
    """Faster R-CNN (Ren et al. 2015) with a feature pyramid: proposals from five maps, boxes from the finest four.

    Args:
        backbone: images → NCHW maps whose strides double, as of `create_model(…, pyramid=(4, 8, 16, 32))`.
        num_classes: outputs, without one for the background.
        **options: of torchvision's `FasterRCNN`, such as `box_detections_per_img`.

    Raises:
        ConfigError: maps of other strides.
    """
    body = PyramidBackbone(backbone, pooled=True)
    sizes = [[2 * _ANCHOR_SCALE * stride] for stride in body.strides]
    anchors = StridedAnchors(sizes, [(0.5, 1.0, 2.0)] * len(sizes), body.strides)
    return Detector(FasterRCNN(body, num_classes + 1, rpn_anchor_generator=anchors, **options), first_class=1)
