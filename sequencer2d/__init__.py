"""Sequencer: deep LSTMs for image classification (Tatsunami and Taki, NeurIPS 2022, arXiv:2205.01972).

    model = sequencer2d.create_model("sequencer2d_s", pretrained=True)

Names are imported when they are first used, so that `sequencer2d --help` answers without loading torch.
"""

import importlib
import sys
from typing import TYPE_CHECKING

from sequencer2d.lazy import lazy_names

if TYPE_CHECKING:
    from sequencer2d.models import create_model, fuse, list_models, load_model, model_config, optimize, register_timm
    from sequencer2d.ops import rnn2d

__version__ = "0.2.0"
__all__ = [
    "__version__",
    "create_model",
    "fuse",
    "list_models",
    "load_model",
    "model_config",
    "optimize",
    "register_timm",
    "rnn2d",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "create_model": "models",
        "fuse": "models",
        "optimize": "models",
        "list_models": "models",
        "load_model": "models",
        "model_config": "models",
        "register_timm": "models",
        "rnn2d": "ops",
    },
)

# Programs saved by torch.export call our operators, so whoever has torch loaded finds them after `import sequencer2d`.
if "torch" in sys.modules:
    importlib.import_module("sequencer2d.ops.registration")
