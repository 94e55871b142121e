"""Leaving Python: exported artefacts for other runtimes, and the Hugging Face hub."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sequencer2d.export.artifacts import Artifact, is_artifact, load_artifact
    from sequencer2d.export.exporting import Exported, export_model
    from sequencer2d.export.formats import FORMATS
    from sequencer2d.export.huggingface import from_pretrained, push_to_hub, save_pretrained

__all__ = [
    "FORMATS",
    "Artifact",
    "Exported",
    "export_model",
    "from_pretrained",
    "is_artifact",
    "load_artifact",
    "push_to_hub",
    "save_pretrained",
]

_HOME = {
    "FORMATS": "formats",
    "Artifact": "artifacts",
    "Exported": "exporting",
    "export_model": "exporting",
    "from_pretrained": "huggingface",
    "is_artifact": "artifacts",
    "load_artifact": "artifacts",
    "push_to_hub": "huggingface",
    "save_pretrained": "huggingface",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
