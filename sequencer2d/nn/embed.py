"""From images to tokens, and between grids. Images are NCHW (B, C, H, W), tokens NHWC (B, H, W, C)."""

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from sequencer2d.errors import InputError


def check_images(x: Tensor, in_chans: int, least: int) -> None:
    """Raise `InputError` unless x is a batch (B, in_chans, H, W), floating, of at least `least` pixels a side."""
    if x.ndim != 4:
        raise InputError(f"images have shape {tuple(x.shape)}; expected 4 axes (batch, channels, height, width)")
    if x.shape[1] != in_chans:
        raise InputError(
            f"images have {x.shape[1]} channels (shape {tuple(x.shape)}); this model takes {in_chans}: "
            "create it with in_chans= for another number"
        )
    if not x.is_floating_point():
        raise InputError(f"images have dtype {x.dtype}; expected floating point: scale and normalize them first")
    if x.shape[2] < least or x.shape[3] < least:
        raise InputError(
            f"images of {x.shape[2]}×{x.shape[3]} pixels are too small; this model needs {least}×"
            f"{least} or more: enlarge them, or create the model with smaller patch_sizes"
        )


def is_recorded() -> bool:
    """Whether what runs becomes a program for images of other sizes: by torch.export, torch.jit.trace or to ONNX."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()


def fit_to_stride(x_BCHW: Tensor, stride: int, pad: str) -> Tensor:
    """Make images (B, C, H, W) ready for convolutions of the total stride `stride` (pixels).

    Args:
        x_BCHW: the images.
        stride: pixels per token of the last stage.
        pad: "crop" leaves them as they are: each convolution cuts off, at the bottom and the right, what does not fill
            a patch. "zeros" pads them (`pad_to_multiple`).
    """
    return pad_to_multiple(x_BCHW, stride) if pad == "zeros" else x_BCHW


def pad_to_multiple(x_BCHW: Tensor, multiple: int, value: float = 0.0) -> Tensor:
    """Pad (B, C, H, W) at the bottom and the right with `value` until H and W are multiples of `multiple` pixels.

    Images are normalized before they reach the model, so zero is the mean color. A size that fits is left alone.
    """
    height, width = x_BCHW.shape[2:]
    # Written as a round-up, which torch.export can reason about for any size (it cannot with −height % multiple).
    bottom = (height + multiple - 1) // multiple * multiple - height
    right = (width + multiple - 1) // multiple * multiple - width
    # An exported program pads always: to ask whether it must would tie it to the sizes that answer alike.
    if not is_recorded() and bottom == 0 and right == 0:
        return x_BCHW
    return F.pad(x_BCHW, (0, right, 0, bottom), value=value)


def resample_grid(embedding_1HWC: Tensor, height: int, width: int, *, mode: str = "bicubic") -> Tensor:
    """Resample a position embedding (1, H, W, C) to (1, height, width, C) tokens in float32.

    `mode` is "bicubic" or "bilinear"; corners are not aligned.
    """
    grid = embedding_1HWC.permute(0, 3, 1, 2).float()
    grid = F.interpolate(grid, size=(height, width), mode=mode, align_corners=False)
    return grid.permute(0, 2, 3, 1).to(embedding_1HWC.dtype)


def add_positions(x_BHWC: Tensor, weight_1HWC: Tensor) -> Tensor:
    """Add a position embedding, resampled to the grid of `x_BHWC` where it has another."""
    height, width = x_BHWC.shape[1:3]
    # Resampling to the same grid changes nothing; an exported program always does it, to take any size.
    if is_recorded() or (height, width) != tuple(weight_1HWC.shape[1:3]):
        weight_1HWC = resample_grid(weight_1HWC, height, width)
    return x_BHWC + weight_1HWC.to(x_BHWC.dtype)


# What asks for sizes cannot be traced by symbols: torch.fx keeps these as calls.
for _function in (check_images, pad_to_multiple, add_positions):
    torch.fx.wrap(_function.__name__)


class PatchEmbed(nn.Module):
    """The stem: a convolution without a norm, whose kernel is its stride unless patches overlap.

    Args:
        in_chans: channels of the image.
        dim: channels C of a token.
        patch_size: pixels per token and axis.
        stride: the model's total stride in pixels; none: `patch_size`.
        pad: what becomes of sizes that are no multiple of it, "crop" or "zeros" (`fit_to_stride`).
        overlap: pixels by which the kernel reaches into the neighboring patches on every side, zeros beyond the image.

    Shape: image (B, in_chans, H, W), floating, normalized → tokens (B, H', W', C), contiguous. H' is
    ⌊H/patch_size⌋ where the image is cropped, ⌈H/stride⌉·stride/patch_size where it is padded; W' likewise.

    Raises:
        InputError: not such an image, or one with fewer than `stride` pixels along an axis.
    """

    def __init__(
        self,
        in_chans: int,
        dim: int,
        patch_size: int,
        stride: int | None = None,
        pad: str = "crop",
        overlap: int = 0,
    ) -> None:
        super().__init__()
        self.in_chans, self.pad = in_chans, pad
        self.stride = stride or patch_size
        self.proj = nn.Conv2d(in_chans, dim, patch_size + 2 * overlap, stride=patch_size, padding=overlap)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        check_images(x_BCHW, self.in_chans, self.stride)
        x_BCHW = self.proj(fit_to_stride(x_BCHW, self.stride, self.pad))
        # Left as a permuted view, the layout would survive the residual sums and slow every block of the stage.
        return x_BCHW.permute(0, 2, 3, 1).contiguous()

    def extra_repr(self) -> str:
        return f"stride={self.stride}, pad={self.pad!r}"


class Downsample(nn.Module):
    """The convolution between two stages, kernel = stride = `patch_size` (1 included).

    Shape: (B, H, W, dim) → (B, ⌊H/patch_size⌋, ⌊W/patch_size⌋, dim_out), contiguous.
    """

    def __init__(self, dim: int, dim_out: int, patch_size: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(dim, dim_out, kernel_size=patch_size, stride=patch_size)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.down(x_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous()


class PositionEmbedding(nn.Module):
    """A learned absolute position embedding (1, H, W, C), resampled for another grid; added to (B, H, W, C)."""

    def __init__(self, height: int, width: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, height, width, dim))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return add_positions(x_BHWC, self.weight)

    def extra_repr(self) -> str:
        return "height={}, width={}, dim={}".format(*self.weight.shape[1:])
