"""Similarity of layers, within and between models: linear CKA (Kornblith et al. 2019) over mini-batches.

With mini-batches the unbiased estimator of HSIC (Song et al. 2012) is averaged (Nguyen et al. 2021, eq. 3), so that any
number of images can be used and the batch size does not shift the value.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sequencer2d.analysis.arrays import save_arrays
from sequencer2d.analysis.blocks import block_names, block_outputs, pick_blocks
from sequencer2d.errors import InputError
from sequencer2d.evaluation.pixels import Progress, normalized
from sequencer2d.evaluation.subject import Subject

# The unbiased estimator divides by n − 3.
LEAST_BATCH = 4


@dataclass(frozen=True)
class Similarity:
    """CKA between the blocks of two models (or of one with itself).

    Attributes:
        models: names of both.
        blocks: names of the rows' and of the columns' blocks.
        values: (rows, columns), 1 for representations that are equal up to rotation and scale, 0 for unrelated ones;
            the unbiased estimate may fall slightly outside.
        images: how many were used.
    """

    models: tuple[str, str]
    blocks: tuple[tuple[str, ...], tuple[str, ...]]
    values: np.ndarray
    images: int

    def save(self, path: str | Path) -> None:
        """Write values and names as `.npz`."""
        save_arrays(path, values=self.values, models=list(self.models), rows=list(self.blocks[0]),
                    columns=list(self.blocks[1]), images=self.images)  # fmt: skip


def similarity(
    first: Subject,
    second: Subject,
    pixels_first: np.ndarray,
    pixels_second: np.ndarray | None = None,
    *,
    blocks_first: Sequence[str] | None = None,
    blocks_second: Sequence[str] | None = None,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Similarity:
    """Linear CKA between all blocks of two models, from mini-batches of the same images.

    Args:
        first: any model.
        second: the model to compare it with; the same subject for the similarity of one model's own blocks.
        pixels_first: the images as the first model takes them, uint8 (N, H, W, 3).
        pixels_second: the same images in the same order as the second model takes them; none: as the first does.
        blocks_first: names of the first model's blocks; by default every block.
        blocks_second: names of the second model's blocks; by default every block.
        batch_size: images in a mini-batch, at least 4. A last batch with fewer than 4 images is left out.
        progress: called with the number of images done since the last call.

    Raises:
        ConfigError: a block that does not exist.
        InputError: too few images, or different numbers of them.
    """
    pixels_second = pixels_first if pixels_second is None else pixels_second
    if len(pixels_first) != len(pixels_second):
        raise InputError(f"{len(pixels_first)} images for {first.name} and {len(pixels_second)} for {second.name}")
    if len(pixels_first) < LEAST_BATCH or batch_size < LEAST_BATCH:
        raise InputError(
            f"CKA needs batches of at least {LEAST_BATCH} images, got {min(len(pixels_first), batch_size)}"
        )
    rows = pick_blocks(first.model, blocks_first or block_names(first.model))
    columns = pick_blocks(second.model, blocks_second or block_names(second.model))
    cross = torch.zeros(len(rows), len(columns), dtype=torch.float64)
    own_rows, own_columns = torch.zeros(len(rows), dtype=torch.float64), torch.zeros(len(columns), dtype=torch.float64)
    used = 0
    for start in range(0, len(pixels_first), batch_size):
        batch = slice(start, start + batch_size)
        count = len(pixels_first[batch])
        if count < LEAST_BATCH:
            break
        k = _grams(first.model, normalized(pixels_first[batch], first), rows)
        same = second.model is first.model and columns == rows and pixels_second is pixels_first
        m = k if same else _grams(second.model, normalized(pixels_second[batch], second), columns)
        cross += torch.stack([torch.stack([unbiased_hsic(a, b) for b in m]) for a in k])
        own_rows += torch.stack([unbiased_hsic(a, a) for a in k])
        own_columns += torch.stack([unbiased_hsic(b, b) for b in m])
        used += count
        if progress:
            progress(count)
    values = cross / (own_rows[:, None] * own_columns[None]).sqrt()
    return Similarity((first.name, second.name), (rows, columns), values.numpy(), used)


def unbiased_hsic(k: Tensor, m: Tensor) -> Tensor:
    """The unbiased estimator of HSIC for Gram matrices (n, n), n ≥ 4 (Song et al. 2012, eq. 5)."""
    n = k.shape[0]
    k, m = k - torch.diag(k.diagonal()), m - torch.diag(m.diagonal())
    trace = (k * m.T).sum()
    sums = k.sum() * m.sum() / ((n - 1) * (n - 2))
    rows = 2 * (k.sum(dim=0) @ m.sum(dim=1)) / (n - 2)
    return (trace + sums - rows) / (n * (n - 3))


@torch.no_grad()
def _grams(model: nn.Module, images: Tensor, blocks: tuple[str, ...]) -> list[Tensor]:
    """The Gram matrix (n, n), float64, of each block's flattened output."""
    outputs = block_outputs(model, images, blocks)
    features = (outputs[name].flatten(1).float() for name in blocks)
    # In fp64 on the CPU: sums of differences of large numbers. On a GPU fp32 products of centered features are enough.
    return [_gram(x).double().cpu() for x in features]


def _gram(x: Tensor) -> Tensor:
    x = x - x.mean(dim=0)
    return x.double() @ x.double().T if x.device.type == "cpu" else x @ x.T
