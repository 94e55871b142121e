"""What the authors published of each peer: sizes, costs, and the names and shapes in their checkpoints."""

import functools
import math
import re
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

FILE = Path(__file__).with_suffix(".txt")


class Size(NamedTuple):
    """Of a model at its own image size: parameters, tensors in the state dict (None: not known), GMACs (likewise)."""

    parameters: int
    tensors: int | None = None
    gmacs: float | None = None


SIZES = {
    "gfnet_ti": Size(7_511_784),
    "gfnet_xs": Size(15_985_768),
    "gfnet_s": Size(24_869_608, 178, 4.451),
    "gfnet_b": Size(43_120_616, 178, 7.887),
    "gfnet_s_384": Size(27_933_928),
    "gfnet_b_384": Size(47_206_376, 178, 23.178),
    "gfnet_h_ti": Size(15_085_096),
    "gfnet_h_s": Size(32_162_632, 203, 4.582),
    "gfnet_h_b": Size(53_744_200, 373, 8.512),
}


@functools.cache
def published_shapes() -> dict[str, dict[str, tuple[int, ...]]]:
    """Model → name of a tensor → its shape."""
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    for line in FILE.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            shapes[line.strip("[]")] = found = {}
        elif line and not line.startswith("#"):
            name, shape = line.split()
            found |= {expanded: tuple(map(int, shape.split("x"))) for expanded in _expand(name)}
    return shapes


def published_state(model: str) -> dict[str, Tensor]:
    """A state dict of random numbers with the names and shapes of the model's published checkpoint."""
    generator = torch.Generator().manual_seed(0)
    shapes = published_shapes()[model]
    pool = torch.randn(max(map(math.prod, shapes.values())), generator=generator)
    return {name: pool[: math.prod(shape)].reshape(shape).clone() for name, shape in shapes.items()}


def _expand(name: str) -> list[str]:
    numbers = re.search(r"\{(\d+)-(\d+)\}", name)
    if not numbers:
        return [name]
    first, last = int(numbers[1]), int(numbers[2])
    return [name.replace(numbers[0], str(number)) for number in range(first, last + 1)]
