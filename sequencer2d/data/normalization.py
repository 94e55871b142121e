"""Images of bytes → what models take."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor


def normalize(
    images: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """(images / 255 - mean) / std, with images (B, 3, H, W) of any dtype that hold 0 to 255.

    The result has the dtype `dtype` and lies on `device` (default: where the images are).
    """
    images = images.to(device, non_blocking=True).to(dtype)
    scale, shift = _scale_and_shift(tuple(mean), tuple(std), images.device, dtype)
    return torch.addcmul(shift, images, scale)


@functools.lru_cache(maxsize=16)
def _scale_and_shift(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """1 / (255 std) and -mean / std, (C, 1, 1) each. Kept: copying them to a GPU would make every step wait for it."""
    with torch.inference_mode(False):
        scale = torch.tensor([1 / (255 * part) for part in std], dtype=dtype, device=device)
        shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], dtype=dtype, device=device)
    return scale.view(-1, 1, 1), shift.view(-1, 1, 1)
