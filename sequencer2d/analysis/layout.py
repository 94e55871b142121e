"""Where rows, columns and channels are in what a block puts out.

Read wrongly, a map (B, H, W, C) taken for (B, C, H, W) still gives a picture. So nothing is assumed: images of other
heights and widths are run through the model, and the axis that follows the height holds the rows, the one that follows
the width the columns, the one that follows neither the channels; an axis that follows both holds the tokens of the
grid. What a model says of itself, or a person states, is used where it refuses other sizes, and checked against the
shape.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sequencer2d.analysis.blocks import block_outputs, pick_blocks
from sequencer2d.choices import OUTPUT_LAYOUTS
from sequencer2d.errors import ConfigError, InputError


@dataclass(frozen=True)
class Layout:
    """How to read one block's output.

    Attributes:
        kind: "NCHW", "NHWC" or "tokens" (B, prefix + H·W, C).
        height, width: of the grid, for images of the size it was found for.
        prefix: tokens in front of the grid's (class token, registers).
        found: "probed" (seen in the shapes for other image sizes), "declared" (the model says so) or "stated".
    """

    kind: str
    height: int
    width: int
    prefix: int = 0
    found: str = "probed"

    def to_grid(self, output: Tensor) -> Tensor:
        """The block's output as (B, H, W, C).

        Raises:
            InputError: a shape that this layout does not fit.
        """
        grid = _to_grid(output, self)
        if grid is None or grid.shape[1:3] != (self.height, self.width):
            raise InputError(
                f"an output of shape {tuple(output.shape)} is no {self.kind} grid of {self.height}×{self.width} "
                f"{'behind ' + str(self.prefix) + ' tokens ' if self.prefix else ''}tokens: find its layout for "
                f"this image size"
            )
        return grid


def find_layout(
    model: nn.Module, block: str, size: tuple[int, int], *, in_chans: int = 3, stated: str | None = None
) -> Layout:
    """The layout of one block's output for images of `size`; see `find_layouts`."""
    return find_layouts(model, [block], size, in_chans=in_chans, stated=stated)[block]


@torch.no_grad()
def find_layouts(
    model: nn.Module,
    blocks: list[str] | tuple[str, ...],
    size: tuple[int, int],
    *,
    in_chans: int = 3,
    stated: str | None = None,
) -> dict[str, Layout]:
    """The layout of several blocks' outputs.

    Args:
        model: any model of images (B, in_chans, H, W).
        blocks: names of modules.
        size: height and width of the images in pixels.
        in_chans: channels of the images.
        stated: what a person says it is: "NCHW", "NHWC" or "tokens". Needed only where it cannot be found; anywhere
            else it is checked.

    Raises:
        ConfigError: no such block; a layout that cannot be found and was not stated; or one that was stated and is not
            so.
        InputError: an output that is no map (for example a pooled vector).
    """
    if stated is not None and stated not in OUTPUT_LAYOUTS:
        raise ConfigError(f"layout {stated!r}; choose one of {', '.join(OUTPUT_LAYOUTS)}")
    blocks = pick_blocks(model, blocks)
    outputs = _shapes(model, blocks, size, in_chans)
    taller = _try_shapes(model, blocks, (2 * size[0], size[1]), in_chans)
    wider = _try_shapes(model, blocks, (size[0], 2 * size[1]), in_chans)
    layouts = {}
    for block in blocks:
        shape = outputs[block]
        probed = taller is not None and wider is not None
        if probed:
            assert taller is not None
            assert wider is not None
            layout = _from_probe(block, size, shape, taller[block], wider[block])
        else:
            layout = _from_model(model, block, size, shape, stated)
        if stated is not None and layout.kind != stated:
            how = f"changes as {layout.kind} when the image's height and width change" if probed else "says otherwise"
            raise ConfigError(
                f"layout {stated} was stated for {block!r}, whose output {shape} {how}: leave the layout out, or "
                f"give {layout.kind}"
            )
        layouts[block] = layout
    return layouts


def _from_probe(
    block: str, size: tuple[int, int], shape: tuple[int, ...], taller: tuple[int, ...], wider: tuple[int, ...]
) -> Layout:
    follows_height = [axis for axis in range(1, len(shape)) if taller[axis] != shape[axis]]
    follows_width = [axis for axis in range(1, len(shape)) if wider[axis] != shape[axis]]
    axes = (follows_height, follows_width)
    if len(shape) == 4 and axes == ([2], [3]):
        return Layout("NCHW", shape[2], shape[3])
    if len(shape) == 4 and axes == ([1], [2]):
        return Layout("NHWC", shape[1], shape[2])
    if len(shape) == 3 and axes == ([1], [1]):
        return _token_grid(block, size, shape[1], taller[1], wider[1])
    raise InputError(
        f"the output of {block!r} has shape {shape}; {taller} for an image of twice the height, {wider} for one of "
        f"twice "
        "the width: no map of tokens. Choose a block before the pooling"
    )


def _token_grid(block: str, size: tuple[int, int], count: int, taller: int, wider: int) -> Layout:
    """Twice the height adds as many tokens as the grid has, so the rest of them stand in front of it."""
    grid, prefix = taller - count, 2 * count - taller
    if taller != wider or prefix < 0 or grid <= 0:
        raise InputError(
            f"{block!r} puts out {count} tokens, {taller} and {wider} for images of twice the height or width: no grid"
        )
    height = round((grid * size[0] / size[1]) ** 0.5)
    if height == 0 or grid % height or abs(grid // height * size[0] - height * size[1]) > max(size):
        raise InputError(
            f"{block!r} puts out a grid of {grid} tokens, which is none for an image of {size[0]}×{size[1]}"
        )
    return Layout("tokens", height, grid // height, prefix)


def _from_model(
    model: nn.Module, block: str, size: tuple[int, int], shape: tuple[int, ...], stated: str | None
) -> Layout:
    """For a model of one fixed size: what it declares or a person states, as far as the shape agrees."""
    declared = _declared(model, shape)
    kind = declared or stated
    if kind is None:
        raise ConfigError(
            f"the layout of {block!r} (output {shape}) cannot be found: the model takes no other image size and "
            f"does not say. "
            "State it: --layout NCHW, NHWC or tokens"
        )
    found = "declared" if declared else "stated"
    if kind == "tokens" and len(shape) == 3:
        prefix = int(getattr(model, "num_prefix_tokens", 0) or 0)
        grid = shape[1] - prefix
        height = round((grid * size[0] / size[1]) ** 0.5)
        if height and grid % height == 0:
            return Layout("tokens", height, grid // height, prefix, found)
    if kind in ("NCHW", "NHWC") and len(shape) == 4:
        rows, columns = (shape[2], shape[3]) if kind == "NCHW" else (shape[1], shape[2])
        # Channels taken for rows show here: a grid has the proportions of the image.
        if abs(rows * size[1] - columns * size[0]) <= max(size):
            return Layout(kind, rows, columns, 0, found)
    raise ConfigError(
        f"layout {kind} does not fit the output {shape} of {block!r} for an image of {size[0]}×{size[1]} pixels"
    )


def _declared(model: nn.Module, shape: tuple[int, ...]) -> str | None:
    if len(shape) == 3 and hasattr(model, "num_prefix_tokens"):
        return "tokens"
    said = getattr(model, "output_fmt", None)
    name = getattr(said, "value", said)
    return name if len(shape) == 4 and name in ("NCHW", "NHWC") else None


def _to_grid(output: Tensor, layout: Layout) -> Tensor | None:
    if layout.kind == "tokens":
        if output.ndim != 3 or output.shape[1] != layout.prefix + layout.height * layout.width:
            return None
        return output[:, layout.prefix :].unflatten(1, (layout.height, layout.width))
    if output.ndim != 4:
        return None
    return output if layout.kind == "NHWC" else output.permute(0, 2, 3, 1)


def _shapes(
    model: nn.Module, blocks: tuple[str, ...], size: tuple[int, int], in_chans: int
) -> dict[str, tuple[int, ...]]:
    parameter = next(model.parameters(), torch.zeros(()))
    x = torch.zeros(1, in_chans, *size, device=parameter.device, dtype=parameter.dtype)
    return {name: tuple(output.shape) for name, output in block_outputs(model, x, blocks).items()}


def _try_shapes(
    model: nn.Module, blocks: tuple[str, ...], size: tuple[int, int], in_chans: int
) -> dict[str, tuple[int, ...]] | None:
    """The shapes for another size, through timm's `set_input_size` on a copy where the model is made for one size."""
    try:
        return _shapes(model, blocks, size, in_chans)
    except ConfigError:
        raise
    except Exception:  # a model refuses a size by an assertion, a RuntimeError, an error of its own
        if not hasattr(model, "set_input_size"):
            return None
    try:
        resized: Any = copy.deepcopy(model)
        resized.set_input_size(img_size=size)
        return _shapes(resized, blocks, size, in_chans)
    except Exception:
        return None
