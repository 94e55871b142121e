"""The backbone of a dense task: maps of the strides that its decoder needs."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn


def backbone_of_strides(create: Callable[..., nn.Module], strides: Sequence[int]) -> Any:
    """A backbone whose maps have these strides, finest first: its own where it has them, otherwise those of a pyramid.

    Args:
        create: makes the model with the options of `create_model`.
        strides: in pixels, ascending.
    """
    with torch.device("meta"):
        outline: Any = create(features_only=True, pretrained=False, checkpoint=None)
    own = list(outline.feature_info.reduction())
    if set(strides) <= set(own):
        return create(features_only=True, out_indices=[own.index(stride) for stride in strides])
    return create(features_only=True, pyramid=tuple(strides))
