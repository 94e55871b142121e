"""Leaving Python: exported artifacts for other runtimes."""

from typing import TYPE_CHECKING

from sequencer2d.lazy import lazy_names

if TYPE_CHECKING:
    from sequencer2d.export.artifacts import Artifact, load_artifact
    from sequencer2d.export.dense import export_dense
    from sequencer2d.export.detectors import export_detector
    from sequencer2d.export.exporting import Exported, export_model
    from sequencer2d.export.formats import FORMATS
    from sequencer2d.export.naming import is_artifact
    from sequencer2d.export.onnx_layer import onnx_translations

__all__ = [
    "FORMATS",
    "Artifact",
    "Exported",
    "export_dense",
    "export_detector",
    "export_model",
    "is_artifact",
    "load_artifact",
    "onnx_translations",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "FORMATS": "formats",
        "Artifact": "artifacts",
        "Exported": "exporting",
        "export_dense": "dense",
        "export_detector": "detectors",
        "export_model": "exporting",
        "is_artifact": "naming",
        "load_artifact": "artifacts",
        "onnx_translations": "onnx_layer",
    },
)
