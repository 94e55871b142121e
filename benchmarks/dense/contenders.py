"""Which backbones are compared under which decoder, and how each is built."""

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sequencer2d.dense import Segmenter
from sequencer2d.models import create_model
from sequencer2d.tasks.backbone import backbone_of_strides
from sequencer2d.tasks.segmentation import STRIDES

CLASSES = 150
"""Those of ADE20K."""
SEED = 0


class Contender(NamedTuple):
    """A backbone and what stands on its maps.

    Attributes:
        model: name for `create_model`.
        maps: "decoder": at the strides 4, 8, 16, 32; "native": a Sequencer's pyramid of 3.5, 7, 14, 28; "plain": the
            stages' own.
        head: "semantic_fpn", or "none" for the maps alone.
    """

    model: str
    maps: str = "decoder"
    head: str = "semantic_fpn"

    @property
    def is_ours(self) -> bool:
        return self.model.startswith("sequencer2d")


MODELS = (
    "sequencer2d_s",
    "timm:resnet50",
    "timm:poolformer_s24",
    "timm:convnext_tiny",
    "timm:swin_tiny_patch4_window7_224",
    "pvt_small",
)
PEERS = tuple(Contender(model) for model in MODELS)
VARIANTS = (
    Contender("sequencer2d_s", "native"),
    Contender("sequencer2d_s", "plain"),
    Contender("sequencer2d_s", "decoder", "none"),
    Contender("sequencer2d_s", "native", "none"),
    Contender("sequencer2d_s", "plain", "none"),
)
"""The cost of the pyramid and of the stem's other stride. "plain" keeps the stem's stride of 7 and has no pyramid."""
_PYRAMIDS = {"decoder": (4, 8, 16, 32), "native": (3.5, 7, 14, 28), "plain": None}


def build(contender: Contender, size: int) -> nn.Module:
    """The model with random weights, in fp32 on the CPU, without dropout or stochastic depth, for size² pixels.

    Weights follow from a fixed seed, so that equal architectures get equal weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        create = functools.partial(create_model, contender.model)
        if not contender.is_ours:
            backbone = backbone_of_strides(functools.partial(create, img_size=size), STRIDES, any_size=False)
            model: nn.Module = Segmenter(backbone, CLASSES)
        else:
            pyramid = _PYRAMIDS[contender.maps]
            backbone = create(features_only=True, **({"pyramid": pyramid} if pyramid else {}))
            model = Segmenter(backbone, CLASSES) if contender.head == "semantic_fpn" else MapsOnly(backbone)
    for module in model.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    return model


class MapsOnly(nn.Module):
    """A backbone whose maps are joined into one vector for each image, so that it can be compared and timed."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) → (B, the numbers in the maps of an image)."""
        return torch.cat([one.flatten(1) for one in self.backbone(images)], dim=1)


def name_of(contender: Contender) -> str:
    """Its name in tables and figures: "convnext_tiny", "sequencer2d_s, native maps"."""
    short = contender.model.removeprefix("timm:").split("_patch")[0]
    maps = {"decoder": "", "native": ", strides 3.5 to 28", "plain": ", strides 7, 14, 14, 14"}[contender.maps]
    return short + maps
