"""Pillow's operations on whole batches of images, on any device.

timm's augmentation runs Pillow on one image at a time. These functions compute the same pixels for a batch, so that a
GPU can augment as fast as it trains. Every function takes uint8 images (B, C, H, W), C = 3, with one argument for each
image, and returns a new tensor of the same shape and dtype. `tests/data/test_pixel_ops.py` compares each of them with
Pillow, pixel by pixel.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

BILINEAR, BICUBIC = 2, 3
"""Pillow's numbers of the two resampling filters."""


def resample_matrices(
    starts: Tensor, lengths: Tensor, source: int, target: int, filters: Tensor, *, flip: Tensor | None = None
) -> Tensor:
    """Matrices that resize one axis of a part of each image, with the weights of Pillow's `resize`.

    Args:
        starts: int64 (B,), first source pixel of the part.
        lengths: int64 (B,), pixels of the part.
        source: pixels of the whole axis.
        target: pixels of the result.
        filters: int64 (B,), `BILINEAR` or `BICUBIC`.
        flip: int64 or bool (B,), not 0 where the result is mirrored; none: nowhere.

    Returns:
        float64 (B, target, source). Downsampling is antialiased. Weights are rounded to 22 bits, as Pillow's are.
    """
    device = starts.device
    starts, lengths, filters = (value.view(-1, 1, 1).double() for value in (starts, lengths, filters))
    scale = lengths / target
    filter_scale = scale.clamp_min(1)
    support = torch.where(filters == BILINEAR, 1.0, 2.0) * filter_scale
    place = torch.arange(target, device=device, dtype=torch.float64).view(1, -1, 1)
    if flip is not None:
        place = torch.where(flip.view(-1, 1, 1) != 0, target - 1 - place, place)
    center = (place + 0.5) * scale
    first = (center - support + 0.5).trunc().clamp_min(0)
    last = (center + support + 0.5).trunc().minimum(lengths)
    pixel = torch.arange(source, device=device, dtype=torch.float64).view(1, 1, -1) - starts
    distance = ((pixel - center + 0.5) / filter_scale).abs()
    weights = torch.where(filters == BILINEAR, _triangle(distance), _cubic(distance, -0.5))
    weights = weights.where((pixel >= first) & (pixel < last), 0)
    weights = weights / weights.sum(-1, keepdim=True)
    return (weights * 2**22 + 0.5 * weights.sign()).trunc() / 2**22


def resize(images: Tensor, rows: Tensor, columns: Tensor, *, rows_first: bool = False) -> Tensor:
    """Resize a batch by matrices of `resample_matrices`, along one axis after the other, rounded in between.

    Args:
        images: uint8 (B, C, H, W).
        rows: float64 (B, H', H).
        columns: float64 (B, W', W).
        rows_first: resize along the rows' axis first; otherwise along the columns'.

    Returns:
        uint8 (B, C, H', W').
    """

    def along_columns(values: Tensor) -> Tensor:
        return _round((values.flatten(1, 2) @ columns.mT).unflatten(1, values.shape[1:3]))

    def along_rows(values: Tensor) -> Tensor:
        return _round(rows.unsqueeze(1) @ values)

    first, second = (along_rows, along_columns) if rows_first else (along_columns, along_rows)
    return second(first(images.double())).to(torch.uint8)


def affine(images: Tensor, matrices: Tensor, fill: Tensor, resample: int) -> Tensor:
    """Pillow's `transform(size, AFFINE, …)`.

    Args:
        images: uint8 (B, C, H, W).
        matrices: float64 (B, 6): (a, b, c, d, e, f) maps an output pixel (x, y) to (ax + by + c, dx + ey + f).
        fill: uint8 (C,), color of pixels that come from outside the image.
        resample: `BILINEAR` or `BICUBIC`.
    """
    batch, channels, height, width = images.shape
    a, b, c, d, e, f = (matrices[:, i].view(-1, 1, 1) for i in range(6))
    y = torch.arange(height, device=images.device, dtype=torch.float64).view(1, -1, 1) + 0.5
    x = torch.arange(width, device=images.device, dtype=torch.float64).view(1, 1, -1) + 0.5
    source_x, source_y = a * x + b * y + c, d * x + e * y + f
    inside = (source_x >= 0) & (source_x < width) & (source_y >= 0) & (source_y < height)
    source_x, source_y = source_x - 0.5, source_y - 0.5
    column, row = source_x.floor(), source_y.floor()
    interpolate, first, count = (_linear, 0, 2) if resample == BILINEAR else (_cubic_spline, -1, 4)
    taps = torch.arange(first, first + count, device=images.device).view(1, -1, 1, 1)
    rows = (row.long().unsqueeze(1) + taps).clamp(0, height - 1) * width
    columns = (column.long().unsqueeze(1) + taps).clamp(0, width - 1)
    flat = images.reshape(batch, channels, -1)

    def line(number: int) -> Tensor:
        """Between the columns of one of the `count` rows around each pixel: float64 (B, C, H, W)."""
        index = (rows[:, number : number + 1] + columns).view(batch, 1, -1).expand(-1, channels, -1)
        values = flat.gather(2, index).view(batch, channels, count, height, width).double()
        return interpolate(values.unbind(2), across)

    across, down = (source_x - column).unsqueeze(1), (source_y - row).unsqueeze(1)
    result = interpolate([line(number) for number in range(count)], down).clamp(0, 255).to(torch.uint8)
    return torch.where(inside.unsqueeze(1), result, fill.view(1, -1, 1, 1))


def invert(images: Tensor) -> Tensor:
    """`ImageOps.invert`."""
    return 255 - images


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the upper `bits` (B,), 0 to 8, of every value; 0 bits give black."""
    dropped = 8 - bits.view(-1, 1, 1, 1)
    return ((images.int() >> dropped) << dropped).to(torch.uint8)


def solarize(images: Tensor, thresholds: Tensor) -> Tensor:
    """Invert the values from `thresholds` (B,) on."""
    return torch.where(images < thresholds.view(-1, 1, 1, 1), images, 255 - images)


def solarize_add(images: Tensor, added: Tensor) -> Tensor:
    """Add `added` (B,) to values below 128."""
    brighter = (images.int() + added.view(-1, 1, 1, 1)).clamp_max(255).to(torch.uint8)
    return torch.where(images < 128, brighter, images)


def autocontrast(images: Tensor) -> Tensor:
    """`ImageOps.autocontrast`: each channel stretched to 0 … 255."""
    flat = images.flatten(2)
    low, high = flat.amin(-1, keepdim=True).double(), flat.amax(-1, keepdim=True).double()
    # `255 / tensor` multiplies by the reciprocal, which rounds twice.
    scale = torch.full_like(low, 255).div(high - low)
    levels = torch.arange(256, dtype=torch.float64, device=images.device)
    table = (levels * scale + -low * scale).trunc().clamp(0, 255)
    table = torch.where(high > low, table, levels)
    return _look_up(images, table.to(torch.uint8))


def equalize(images: Tensor) -> Tensor:
    """`ImageOps.equalize`: each channel's histogram made as even as it goes."""
    batch, channels = images.shape[:2]
    values = images.flatten(2).long()
    histogram = torch.zeros(batch, channels, 256, dtype=torch.int64, device=images.device)
    histogram.scatter_add_(2, values, torch.ones_like(values))
    last = histogram.gather(2, values.amax(-1, keepdim=True))
    step = (histogram.sum(-1, keepdim=True) - last) // 255
    before = histogram.cumsum(-1) - histogram
    divisor = step.clamp_min(1)
    table = ((step // 2 + before) // divisor).clamp_max(255)
    levels = torch.arange(256, device=images.device)
    return _look_up(images, torch.where(step > 0, table, levels).to(torch.uint8))


def brightness(images: Tensor, factors: Tensor) -> Tensor:
    """`ImageEnhance.Brightness` by `factors` (B,)."""
    return _blend(torch.zeros((), device=images.device), images, factors)


def contrast(images: Tensor, factors: Tensor) -> Tensor:
    """`ImageEnhance.Contrast` by `factors` (B,)."""
    mean = (_luminance(images).double().mean((1, 2, 3), keepdim=True) + 0.5).trunc()
    return _blend(mean.float(), images, factors)


def color(images: Tensor, factors: Tensor) -> Tensor:
    """`ImageEnhance.Color` by `factors` (B,)."""
    return _blend(_luminance(images), images, factors)


def sharpness(images: Tensor, factors: Tensor) -> Tensor:
    """`ImageEnhance.Sharpness` by `factors` (B,)."""
    smooth = images.int()
    if images.shape[2] > 2 and images.shape[3] > 2:
        middle = smooth[:, :, 1:-1, 1:-1]
        rows = smooth[:, :, :-2] + smooth[:, :, 1:-1] + smooth[:, :, 2:]
        total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * middle
        smooth[:, :, 1:-1, 1:-1] = (2 * total + 13) // 26
    return _blend(smooth, images, factors)


def _blend(degenerate: Tensor, images: Tensor, factors: Tensor) -> Tensor:
    """`Image.blend`, in single precision and truncated, as Pillow computes it."""
    factors = factors.float().view(-1, 1, 1, 1)
    return (degenerate + factors * (images.float() - degenerate)).clamp(0, 255).to(torch.uint8)


def _luminance(images: Tensor) -> Tensor:
    """Pillow's conversion to mode L: int32 (B, 1, H, W)."""
    red, green, blue = images.int().unbind(1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).unsqueeze(1)


def _look_up(images: Tensor, table: Tensor) -> Tensor:
    """Replace each value by its entry in its channel's table, uint8 (B, C, 256)."""
    return table.gather(2, images.flatten(2).long()).view_as(images)


def _round(values: Tensor) -> Tensor:
    return (values + 0.5).floor().clamp(0, 255)


def _triangle(distance: Tensor) -> Tensor:
    return (1 - distance).clamp_min(0)


def _cubic(distance: Tensor, a: float) -> Tensor:
    """Keys' cubic convolution kernel at absolute distances."""
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = (((distance - 5) * distance + 8) * distance - 4) * a
    return torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))


def _linear(values: Sequence[Tensor], fraction: Tensor) -> Tensor:
    """Between two neighbors, in Pillow's order of operations: another one rounds some exact integers down."""
    left, right = values
    return left + (right - left) * fraction


def _cubic_spline(values: Sequence[Tensor], fraction: Tensor) -> Tensor:
    """Among four neighbors. Pillow's `transform` uses the cubic kernel with a = −1, its `resize` the one with −0.5."""
    v1, v2, v3, v4 = values
    cubic, square, slope = -v1 + v2 - v3 + v4, 2 * (v1 - v2) + v3 - v4, v3 - v1
    return v2 + fraction * (slope + fraction * (square + fraction * cubic))
