"""Leaving Python: exported artefacts for other runtimes."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sequencer2d.export.artifacts import Artifact, is_artifact, load_artifact
    from sequencer2d.export.exporting import Exported, export_model
    from sequencer2d.export.formats import FORMATS

__all__ = [
    "FORMATS",
    "Artifact",
    "Exported",
    "export_model",
    "is_artifact",
    "load_artifact",
]

_HOME = {
    "FORMATS": "formats",
    "Artifact": "artifacts",
    "Exported": "exporting",
    "export_model": "exporting",
    "is_artifact": "artifacts",
    "load_artifact": "artifacts",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
