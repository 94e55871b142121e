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
    """Of a model at its own image size; None where it was not published or counted.

    Attributes:
        parameters: numbers in them.
        tensors: entries of the state dict.
        gmacs: multiply-accumulates of one image, in billions.
        buffers: numbers in them.
    """

    parameters: int
    tensors: int | None = None
    gmacs: float | None = None
    buffers: int | None = None


SIZES = {
    "vip_s14": Size(29_892_904),
    "vip_s7": Size(25_114_984, 314, 6.902),
    "vip_m7": Size(55_272_488, 416, 16.284),
    "vip_l7": Size(87_784_936, None, 24.34),
    "cyclemlp_b1": Size(15_155_400),
    "cyclemlp_b2": Size(26_802_504, 390, 3.876, buffers=20_992),
    "cyclemlp_b3": Size(38_385_720, 600, 6.831, buffers=32_000),
    "cyclemlp_b4": Size(51_796_552, 873, 10.027, buffers=45_568),
    "cyclemlp_b5": Size(75_747_280),
    "gfnet_ti": Size(7_511_784),
    "gfnet_xs": Size(15_985_768),
    "gfnet_s": Size(24_869_608, 178, 4.451),
    "gfnet_b": Size(43_120_616, 178, 7.887),
    "gfnet_s_384": Size(27_933_928),
    "gfnet_b_384": Size(47_206_376, 178, 23.178),
    "gfnet_h_ti": Size(15_085_096),
    "gfnet_h_s": Size(32_162_632, 203, 4.582),
    "gfnet_h_b": Size(53_744_200, 373, 8.512),
    "t2t_vit_t_14": Size(21_541_070),
    "t2t_vit_t_19": Size(39_172_942, 239, 9.785),
    "t2t_vit_t_24": Size(64_101_454),
    "pvt_tiny": Size(13_229_288),
    "pvt_small": Size(24_485_864, 301, 3.816),
    "pvt_medium": Size(44_208_104, 517, 6.659),
    "pvt_large": Size(61_369_320, 751, 9.814),
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
    state = {name: pool[: math.prod(shape)].reshape(shape).clone() for name, shape in shapes.items()}
    return state | {name: _shifts(name, tensor.numel() // 2) for name, tensor in state.items() if "offset" in name}


def _shifts(name: str, channels: int) -> Tensor:
    """CycleMLP's buffer: the shift of each channel, (i + 1) mod 3 − 1, along the height or (sfc_h) the width."""
    shifts = torch.zeros(channels, 2)
    for channel in range(channels):
        shifts[channel, 1 if ".sfc_h." in name else 0] = (channel + 1) % 3 - 1
    return shifts.reshape(1, -1, 1, 1)


def _expand(name: str) -> list[str]:
    numbers = re.search(r"\{(\d+)-(\d+)\}", name)
    if not numbers:
        return [name]
    first, last = int(numbers[1]), int(numbers[2])
    return [name.replace(numbers[0], str(number)) for number in range(first, last + 1)]
