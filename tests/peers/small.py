"""A small model of each family: a few channels, images of at most 64 pixels, weights that are all in play."""

from typing import Any

import torch

from sequencer2d import create_model
from tests.models.small import randomize

SMALL: dict[str, dict[str, Any]] = {
    "vip_m7": {"depths": (1, 2, 1), "dims": (8, 8, 12), "segments": (4, 4, 2), "patch_size": 7, "img_size": (28, 28)},
    "cyclemlp_b2": {"depths": (1, 2, 1), "dims": (8, 12, 16), "mlp_ratios": (2, 3, 1), "img_size": (48, 32)},
    "gfnet_s": {"depths": (3,), "dims": (12,), "patch_size": 8, "img_size": (48, 32)},
    "gfnet_h_s": {"depths": (1, 2, 1), "dims": (8, 12, 16), "img_size": (48, 32)},
    "t2t_vit_t_19": {"depths": (3,), "dims": (12,), "heads": 3, "img_size": (48, 32)},
    "pvt_small": {
        "depths": (1, 2, 1),
        "dims": (8, 12, 16),
        "heads": (1, 2, 4),
        "mlp_ratios": (2, 3, 1),
        "reductions": (4, 2, 1),
        "img_size": (48, 32),
    },
}


def small_peer(name: str, **options: Any) -> Any:
    """The small model of a family in eval mode, 5 classes unless told otherwise."""
    torch.manual_seed(0)
    model = create_model(name, **({"num_classes": 5} | SMALL[name] | options))
    return randomize(model).eval()


def images(name: str, batch: int = 2, channels: int = 3) -> torch.Tensor:
    """Images of the size that the small model takes."""
    return torch.randn(batch, channels, *SMALL[name]["img_size"])
