"""Random crop, flip and RandAugment for whole batches on the device: timm's draws, Pillow's pixels."""

import torch
from torch import Tensor

from sequencer2d.data import pixel_ops
from sequencer2d.data.config import DataConfig
from sequencer2d.data.operations import AFFINE, OPERATIONS
from sequencer2d.data.plans import Plan, Steps


def augment_batch(pixels: Tensor, plan: Plan, size: tuple[int, int], fill: Tensor) -> Tensor:
    """Make a batch of the images, on their device. The CPU does not wait for it.

    Args:
        pixels: uint8 (N, H, W, 3), all images.
        plan: which of them, and what happens to each; on the same device.
        size: (height, width) of the batch in pixels.
        fill: uint8 (3,), color of pixels that come from outside an image.

    Returns:
        uint8 (B, 3, *size), channels last in memory.
    """
    return apply_steps(_cropped(pixels, plan, size), plan, fill).contiguous(memory_format=torch.channels_last)


def apply_steps(images: Tensor, steps: Steps, fill: Tensor) -> Tensor:
    """Run the operations of a policy, each on the images that drew it.

    Args:
        images: uint8 (B, 3, H, W); changed in place.
        steps: on the same device.
        fill: uint8 (3,), color of pixels that come from outside an image.

    Returns:
        `images`.
    """
    for step in steps.steps:
        members, arguments = steps.members(step), steps.arguments(step)
        part = images[members]
        if step.kind == AFFINE:
            images[members] = pixel_ops.affine(part, arguments, fill, step.resample)
        else:
            images[members] = OPERATIONS[step.kind](part, arguments)
    return images


def fill_color(config: DataConfig) -> tuple[int, ...]:
    """The mean color, 0 to 255, with which timm fills what comes from outside an image."""
    return tuple(min(255, round(255 * mean)) for mean in config.mean)


def _cropped(pixels: Tensor, plan: Plan, size: tuple[int, int]) -> Tensor:
    """The images of the plan, cropped, resized and flipped: uint8 (B, 3, *size)."""
    plan_rows = plan.rows
    images = pixels[plan_rows.indices].permute(0, 3, 1, 2).contiguous()
    top, left, height, width, filters, flips = plan_rows[1:]
    rows = pixel_ops.resample_matrices(top, height, images.shape[2], size[0], filters)
    columns = pixel_ops.resample_matrices(left, width, images.shape[3], size[1], filters, flip=flips)
    batch = pixel_ops.resize(images, rows, columns)
    if plan.rows_first.start < plan.rows_first.stop:
        members = plan.buffer[plan.rows_first]
        batch[members] = pixel_ops.resize(images[members], rows[members], columns[members], rows_first=True)
    return batch
