"""Recipes: functions that return one complete training configuration each. `get(name)`, `names()`, `summary(name)`.

A recipe's docstring states its command, hardware, hours, expected metric and seeds, or that it was not run yet.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from sequencer2d.errors import ConfigError, did_you_mean
from sequencer2d.recipes.cifar import cifar10
from sequencer2d.recipes.detection import bccd, coco_retinanet_s, coco_retinanet_s_3x
from sequencer2d.recipes.digits import digits
from sequencer2d.recipes.finetune import finetune_392_l
from sequencer2d.recipes.imagenet import imagenet_l, imagenet_m, imagenet_s
from sequencer2d.recipes.segmentation import ade20k_fpn_l, ade20k_fpn_m, ade20k_fpn_s, camvid
from sequencer2d.recipes.tiny_imagenet import (
    tiny_imagenet,
    tiny_imagenet_convnext,
    tiny_imagenet_decay,
    tiny_imagenet_paper,
    tiny_imagenet_plateau,
    tiny_imagenet_vit,
)
from sequencer2d.recipes.transfer import TRANSFER

if TYPE_CHECKING:
    from sequencer2d.training.config import TrainConfig

__all__ = ["get", "names", "summary"]

_RECIPES: tuple[Callable[[], "TrainConfig"], ...] = (
    digits,
    cifar10,
    tiny_imagenet,
    tiny_imagenet_convnext,
    tiny_imagenet_vit,
    tiny_imagenet_paper,
    tiny_imagenet_plateau,
    tiny_imagenet_decay,
    imagenet_s,
    imagenet_m,
    imagenet_l,
    finetune_392_l,
    camvid,
    ade20k_fpn_s,
    ade20k_fpn_m,
    ade20k_fpn_l,
    bccd,
    coco_retinanet_s,
    coco_retinanet_s_3x,
    *TRANSFER,
)


def names() -> tuple[str, ...]:
    """The recipes' names."""
    return tuple(recipe.__name__ for recipe in _RECIPES)


def get(name: str) -> "TrainConfig":
    """The configuration of a recipe. Raises `ConfigError` for an unknown name, with close matches."""
    return _find(name)()


def summary(name: str) -> str:
    """What a recipe trains: the first line of its docstring. Raises `ConfigError` for an unknown name."""
    return (_find(name).__doc__ or "").strip().splitlines()[0]


def _find(name: str) -> Callable[[], "TrainConfig"]:
    for recipe in _RECIPES:
        if recipe.__name__ == name:
            return recipe
    raise ConfigError(f"unknown recipe {name!r}; {did_you_mean(name, names())}")
