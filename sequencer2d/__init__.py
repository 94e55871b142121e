"""Sequencer: deep LSTMs for image classification (Tatsunami and Taki, NeurIPS 2022, arXiv:2205.01972).

    model = sequencer2d.create_model("sequencer2d_s", pretrained=True)

Names are imported when they are first used, so that `sequencer2d --help` answers without loading torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sequencer2d.models import create_model, list_models, model_config

__version__ = "0.1.0"
__all__ = ["__version__", "create_model", "list_models", "model_config"]

_HOME = {"create_model": "models", "list_models": "models", "model_config": "models"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
