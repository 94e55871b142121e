"""Decoders for dense prediction, on the feature maps of any backbone. They know nothing of data sets."""

from sequencer2d.dense.detection import Detector, fcos, retinanet
from sequencer2d.dense.semantic_fpn import FPN, Segmenter, SemanticFPN, SemanticFPNHead

__all__ = ["FPN", "Detector", "Segmenter", "SemanticFPN", "SemanticFPNHead", "fcos", "retinanet"]
