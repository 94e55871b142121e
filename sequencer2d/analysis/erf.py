"""Effective receptive field (Luo et al. 2016; the paper's Figure 5): which pixels move the token in the middle.

For a block, the features of its middle token are summed over the channels and differentiated with respect to the
normalized image: g(y, x, c). A method (`erf_methods`) makes a map (y, x) of the gradients of all images: `energy`,
ours, or `paper`, the authors'. The shape is measured on that map.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sequencer2d.analysis.arrays import save_arrays
from sequencer2d.analysis.blocks import block_outputs, pick_blocks
from sequencer2d.analysis.erf_methods import DEFAULT, Method, find_method
from sequencer2d.analysis.layout import Layout, find_layouts
from sequencer2d.errors import InputError
from sequencer2d.evaluation.modes import eval_mode, vendor_rnn_backward
from sequencer2d.evaluation.pixels import Progress, normalized, read_augmented, read_images
from sequencer2d.evaluation.subject import Subject
from sequencer2d.models.config import ModelConfig

# A field counts as a cross when the arms of its middle row and column hold at least this many times the energy per
# pixel that other directions hold at the same distance; a round or square field has 1 (a square one up to 1.3).
CRUCIFORM_RATIO = 2.0


@dataclass(frozen=True)
class Shape:
    """The form of an effective receptive field, measured on its map: of the energy, or of the paper's quantity.

    Attributes:
        row_share: part of the map's sum in the pixel rows of the middle token, 0 to 1.
        column_share: part in its pixel columns.
        cross_share: part in either.
        arm_ratio: mean of the map on the cross, outside the middle token, over its mean elsewhere at the same distance
            from the center: 1 for a round field; nan if everything is inside the middle token.
        area_50: share of the image's pixels, the strongest first, that holds 50 % of the sum.
        area_90: the same for 90 %.
        side_50: side in pixels of a square of the area `area_50`.
        side_90: the same for `area_90`.
    """

    row_share: float
    column_share: float
    cross_share: float
    arm_ratio: float
    area_50: float
    area_90: float
    side_50: float
    side_90: float

    @property
    def cruciform(self) -> bool:
        """Whether the arms hold `CRUCIFORM_RATIO` times what other directions hold."""
        return bool(self.arm_ratio >= CRUCIFORM_RATIO)


@dataclass(frozen=True)
class ReceptiveField:
    """The effective receptive field of one block.

    Attributes:
        model: its name.
        block: its name within the model.
        method: the definition by which the map was made.
        values: (H, W) float64, the map: what the method makes of the gradients of all images.
        center: (top, left, bottom, right) pixels that the middle token covers, bottom and right exclusive.
        layout: how the block's output was read.
        images: how many there were.
    """

    model: str
    block: str
    method: Method
    values: np.ndarray
    center: tuple[int, int, int, int]
    layout: Layout
    images: int

    @property
    def shape(self) -> Shape:
        """The measured form."""
        return measure(self.values, self.center)

    def row(self) -> dict[str, Any]:
        """The form as a row of a table: parts of the map's sum in percent, sides of squares in pixels."""
        shape = self.shape
        return {
            "model": self.model,
            "block": self.block,
            "method": self.method.name,
            "layout": f"{self.layout.kind} ({self.layout.found})",
            "row, %": 100 * shape.row_share,
            "column, %": 100 * shape.column_share,
            "cross, %": 100 * shape.cross_share,
            "arms over rest": shape.arm_ratio,
            "50 % in a square of, px": shape.side_50,
            "90 %, px": shape.side_90,
            "cross?": "yes" if shape.cruciform else "no",
        }

    def save(self, path: str | Path) -> None:
        """Write the map, its method, what figures show of it before scaling, center, layout and shape as `.npz`."""
        save_arrays(path, values=self.values, method=self.method.name, quantity=self.method.quantity,
                    shown=self.method.shown(self.values), center=np.asarray(self.center), images=self.images,
                    model=self.model, block=self.block, layout=self.layout.kind, layout_found=self.layout.found,
                    grid=np.asarray([self.layout.height, self.layout.width]), **vars(self.shape))  # fmt: skip


def receptive_fields(
    subject: Subject,
    pixels: np.ndarray,
    blocks: Sequence[str] | None = None,
    *,
    method: str = DEFAULT,
    layout: str | None = None,
    batch_size: int = 8,
    progress: Progress | None = None,
) -> list[ReceptiveField]:
    """The effective receptive fields of several blocks of one model.

    Args:
        subject: any model.
        pixels: images, uint8 (N, H, W, 3), of the size that the subject takes; see `method_images`.
        blocks: names of modules; by default one a stage.
        method: "energy" or "paper", see `erf_methods`.
        layout: what the blocks' outputs are, where it cannot be found (see `find_layouts`).
        batch_size: images in one forward and backward pass. It changes the result only by rounding.
        progress: called with the number of images done since the last call.

    Raises:
        ConfigError: no such block or method, or a layout that cannot be found or is not so.
        InputError: no images, or gradients that are zero or not finite.
    """
    if len(pixels) == 0:
        raise InputError("no images to take the receptive field over")
    chosen, model, size = find_method(method), subject.model, (pixels.shape[1], pixels.shape[2])
    names = pick_blocks(model, blocks)
    layouts = find_layouts(model, names, size, stated=layout)
    total = {name: np.zeros(size) for name in names}
    for start in range(0, len(pixels), batch_size):
        part = pixels[start : start + batch_size]
        for name, values in _sums(model, normalized(part, subject), layouts, chosen).items():
            total[name] += values
        if progress:
            progress(len(part))
    count = len(pixels) if chosen.averaged else 1
    fields = []
    for name in names:
        values, found = _checked(name, total[name] / count), layouts[name]
        center = _center(model, size, found, chosen)
        fields.append(ReceptiveField(subject.name, name, chosen, values, center, found, len(pixels)))
    return fields


def method_images(
    subject: Subject, paths: Iterable[str | os.PathLike[str]], method: str = DEFAULT, *, limit: int | None = None
) -> np.ndarray:
    """Images as a method takes them, uint8 (N, H, W, 3): as many as it usually has (or `limit`), augmented or not.

    Raises:
        ConfigError: no such method.
        DataError: nothing there, or an image that cannot be read.
        InputError: an image too small for the model.
    """
    chosen = find_method(method)
    read = read_augmented if chosen.augmented else read_images
    return read(paths, subject.data, limit=limit or chosen.images)


def measure(values: np.ndarray, center: tuple[int, int, int, int]) -> Shape:
    """The form of a map (H, W) ≥ 0 around `center` = (top, left, bottom, right) of the middle token."""
    total = values.sum()
    top, left, bottom, right = center
    share = values / total
    row, column = share[top:bottom].sum(), share[:, left:right].sum()
    middle = share[top:bottom, left:right].sum()
    areas = [_area(share, part) for part in (0.5, 0.9)]
    return Shape(
        row_share=float(row),
        column_share=float(column),
        cross_share=float(row + column - middle),
        arm_ratio=_arm_ratio(share, center),
        area_50=areas[0],
        area_90=areas[1],
        side_50=float(np.sqrt(areas[0] * values.size)),
        side_90=float(np.sqrt(areas[1] * values.size)),
    )


def _sums(model: nn.Module, images: torch.Tensor, layouts: dict[str, Layout], method: Method) -> dict[str, np.ndarray]:
    """Sum over the batch of what the method makes of the gradient of each block's middle token, (H, W)."""
    images = images.clone().requires_grad_(True)
    result = {}
    with torch.enable_grad(), eval_mode(model), vendor_rnn_backward(model):
        outputs = block_outputs(model, images, layouts)
        for index, (name, layout) in enumerate(layouts.items()):
            grid = layout.to_grid(outputs[name])
            value = grid[:, method.token(layout.height), method.token(layout.width)].sum()
            (gradient,) = torch.autograd.grad(value, images, retain_graph=index < len(layouts) - 1)
            result[name] = method.per_image(gradient.double()).sum(dim=0).cpu().numpy()
    return result


def _checked(block: str, values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values).all() or values.sum() == 0:
        raise InputError(
            f"the gradient of {block!r} with respect to the image is "
            f"{'zero' if np.isfinite(values).all() else 'not finite'}: "
            "the weights may not be loaded or damaged"
        )
    return values


def _center(model: nn.Module, size: tuple[int, int], layout: Layout, method: Method) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of the method's token in pixels."""
    edges = []
    for pixels, tokens in zip(size, (layout.height, layout.width), strict=True):
        side, index = _token_side(model, pixels, tokens), method.token(tokens)
        edges.append((index * side, min((index + 1) * side, pixels)))
    (top, bottom), (left, right) = edges
    return top, left, bottom, right


def _token_side(model: nn.Module, pixels: int, tokens: int) -> int:
    """Pixels of a token: ours say it; elsewhere tokens are taken to reach beyond the image, as those of padded ones."""
    config = getattr(model, "config", None)
    if isinstance(config, ModelConfig):
        for stage, side in enumerate(config.reductions):
            if config.grid(pixels, pixels, stage)[0] == tokens:
                return side
    return -(-pixels // tokens)


def _area(share: np.ndarray, part: float) -> float:
    ordered = np.sort(share, axis=None)[::-1]
    return float((np.searchsorted(np.cumsum(ordered), part - 1e-12) + 1) / ordered.size)


def _arm_ratio(share: np.ndarray, center: tuple[int, int, int, int]) -> float:
    top, left, bottom, right = center
    rows, columns = np.ogrid[: share.shape[0], : share.shape[1]]
    dy, dx = rows - (top + bottom - 1) / 2, columns - (left + right - 1) / 2
    on_row, on_column = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    distance = np.sqrt(dy**2 + dx**2)
    token = max(bottom - top, right - left)
    ring = np.floor(distance / token).astype(int)
    # Rings that the image cuts have arms and corners at unequal distances; the first ring is the middle token's own.
    whole = min(share.shape[0] - bottom, top, share.shape[1] - right, left) + token / 2
    use = (distance <= whole) & ~(on_row & on_column) & (ring >= 1)
    arms, rest = use & (on_row ^ on_column), use & ~on_row & ~on_column
    on = off = 0.0
    for index in np.unique(ring[arms]):
        here = ring == index
        if (rest & here).any():
            count = (arms & here).sum()
            on += share[arms & here].sum()
            off += share[rest & here].mean() * count
    if on == 0 and off == 0:
        return float("nan")
    return float(on / off) if off > 0 else float("inf")
