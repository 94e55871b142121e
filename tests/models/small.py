"""A Sequencer2D small enough for any test, with weights that are all in play."""

from typing import Any

import torch

from sequencer2d import create_model

SIZES: dict[str, Any] = {"depths": (1, 2, 1, 1), "dims": (16, 32, 32, 32), "hidden_dims": (4, 8, 8, 8)}


def randomize(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Give every norm, bias and classifier values that show in the output: they start as 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias") or name.startswith("head."):
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model


def small_model(**options: Any) -> Any:
    """A Sequencer2D of 5 blocks and at most 32 channels, 5 classes unless told otherwise, in eval mode."""
    torch.manual_seed(0)
    return randomize(create_model("sequencer2d_n", **({"num_classes": 5} | SIZES | options))).eval()
