"""The backbone of a dense task: maps of the strides that its decoder needs, of images of any size."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from sequencer2d.errors import ConfigError, first_line
from sequencer2d.models.features import Sequencer2DFeatures

_ODD_SIZE = (96, 160)
"""Pixels of a side that no model was made for, and that strides up to 32 divide."""


def backbone_of_strides(create: Callable[..., nn.Module], strides: Sequence[int], *, any_size: bool = True) -> Any:
    """A backbone whose maps have these strides, finest first: its own where it has them, otherwise those of a pyramid.

    Args:
        create: makes the model with the options of `create_model`.
        strides: in pixels, ascending.
        any_size: refuse a backbone that takes images of one size only.

    Raises:
        ConfigError: such a backbone.
    """
    with torch.device("meta"):
        outline: Any = create(features_only=True, pretrained=False, checkpoint=None)
    own = list(outline.feature_info.reduction())
    if set(strides) <= set(own):
        made = create(features_only=True, out_indices=[own.index(stride) for stride in strides])
    else:
        made = create(features_only=True, pyramid=tuple(strides))
    if any_size and not isinstance(outline, Sequencer2DFeatures):
        _check_odd_size(outline, made)
    return made


def _check_odd_size(outline: nn.Module, model: nn.Module) -> None:
    """Raise `ConfigError` unless the model takes the odd size, which its outline on the meta device mostly tells."""
    try:
        _run(outline, torch.empty(1, 3, *_ODD_SIZE, device="meta"))
        return
    except AssertionError as error:  # timm's check of the size
        raise _one_size(error) from error
    except Exception:  # models raise anything, and some ask for values, which meta tensors lack
        if next(model.parameters()).is_meta:
            return
    try:
        _run(model, torch.zeros(1, 3, *_ODD_SIZE))
    except (RuntimeError, ValueError) as error:
        raise _one_size(error) from error


def _run(model: nn.Module, images: torch.Tensor) -> None:
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(images)
    finally:
        model.train(training)


def _one_size(error: Exception) -> ConfigError:
    return ConfigError(
        "the backbone takes images of one size only, and here images keep their proportions: set "
        "model.overrides.dynamic_img_size=true, or for a Swin model.overrides.strict_img_size=false, or choose "
        f"another backbone ({first_line(error)})"
    )
