"""Decoders for dense prediction, on the feature maps of any backbone. They know nothing of data sets.

Names are imported when they are first used: torchvision's detectors take longer to import than torch does.
"""

from typing import TYPE_CHECKING

from sequencer2d.lazy import lazy_names

if TYPE_CHECKING:
    from sequencer2d.dense.detection import Detector, faster_rcnn, fcos, retinanet
    from sequencer2d.dense.semantic_fpn import FPN, Segmenter, SemanticFPN, SemanticFPNHead
    from sequencer2d.dense.upernet import UPerNet

__all__ = [
    "FPN",
    "Detector",
    "Segmenter",
    "SemanticFPN",
    "SemanticFPNHead",
    "UPerNet",
    "faster_rcnn",
    "fcos",
    "retinanet",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(("Detector", "faster_rcnn", "fcos", "retinanet"), "detection"),
        **dict.fromkeys(("FPN", "Segmenter", "SemanticFPN", "SemanticFPNHead"), "semantic_fpn"),
        "UPerNet": "upernet",
    },
)
