"""Models: the table of variants, the model, and checkpoints in every format they come in.

Names are imported when they are first used: the table answers without loading torch. No submodule may be called as one
of them, or importing it would hide the name.
"""

from typing import TYPE_CHECKING

from sequencer2d.lazy import lazy_names

if TYPE_CHECKING:
    from sequencer2d.models.checkpoints import read_checkpoint
    from sequencer2d.models.config import ModelConfig
    from sequencer2d.models.describing import describe_model
    from sequencer2d.models.factory import create_model, load_model
    from sequencer2d.models.features import Sequencer2DFeatures
    from sequencer2d.models.fusing import fuse
    from sequencer2d.models.loading import load_weights
    from sequencer2d.models.names import from_authors, to_authors
    from sequencer2d.models.optimizing import optimize
    from sequencer2d.models.pyramid import FeaturePyramid, feature_pyramid
    from sequencer2d.models.restriding import restride
    from sequencer2d.models.saving import save_weights
    from sequencer2d.models.sequencer2d import Sequencer2D
    from sequencer2d.models.timm_registry import register_timm
    from sequencer2d.models.variants import list_models, model_config

__all__ = [
    "FeaturePyramid",
    "ModelConfig",
    "Sequencer2D",
    "Sequencer2DFeatures",
    "create_model",
    "describe_model",
    "feature_pyramid",
    "from_authors",
    "fuse",
    "list_models",
    "load_model",
    "load_weights",
    "model_config",
    "optimize",
    "read_checkpoint",
    "register_timm",
    "restride",
    "save_weights",
    "to_authors",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "FeaturePyramid": "pyramid",
        "ModelConfig": "config",
        "Sequencer2D": "sequencer2d",
        "Sequencer2DFeatures": "features",
        "create_model": "factory",
        "describe_model": "describing",
        "feature_pyramid": "pyramid",
        "from_authors": "names",
        "fuse": "fusing",
        "list_models": "variants",
        "load_model": "factory",
        "load_weights": "loading",
        "model_config": "variants",
        "optimize": "optimizing",
        "read_checkpoint": "checkpoints",
        "register_timm": "timm_registry",
        "restride": "restriding",
        "save_weights": "saving",
        "to_authors": "names",
    },
)
