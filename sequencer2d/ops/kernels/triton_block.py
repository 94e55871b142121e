"""What stands between the matrix products of a block in training: residual sums, layer norms and GELU. Device code.

Forward adds a branch to the residual stream and norms the sum in one launch. Backward does the same in reverse, and
sums gradients over the tokens for the vectors among the weights: each program writes its own sums, (programs, width).

Suffixes: R rows of a tile, C channels, CP channels padded to a power of two, T columns of a tile. A row is a token.
"""

import triton
import triton.language as tl

_SQRT_HALF = tl.constexpr(0.7071067811865476)
_INVERSE_SQRT_2PI = tl.constexpr(0.3989422804014327)


@triton.jit
def _load_mask(mask, row, rows, image_rows):
    """The factor of each row's image, (R, 1)."""
    return tl.load(mask + row // image_rows, mask=row < rows, other=0.0).to(tl.float32)[:, None]


@triton.jit(do_not_specialize=["rows", "image_rows"])
def add_norm_kernel(
    x, branch, mask, weight, bias, total, normed, mean, scale, rows, image_rows, eps,
    C: tl.constexpr, CP: tl.constexpr, R: tl.constexpr, HAS_BRANCH: tl.constexpr, HAS_MASK: tl.constexpr,
):  # fmt: skip
    """total = x + mask * branch, all (rows, C); normed = its layer norm; mean and scale, fp32 (rows,), for backward.

    Without a branch x is normed and `total` is not written. `mask` has a factor for each image of `image_rows` rows.
    """
    row, column = tl.program_id(0) * R + tl.arange(0, R), tl.arange(0, CP)
    in_row = (column < C)[None, :]
    exists = (row < rows)[:, None] & in_row
    place = (row.to(tl.int64) * C)[:, None] + column[None, :]
    value = tl.load(x + place, mask=exists, other=0.0).to(tl.float32)
    if HAS_BRANCH:
        added = tl.load(branch + place, mask=exists, other=0.0).to(tl.float32)
        if HAS_MASK:
            added *= _load_mask(mask, row, rows, image_rows)
        rounded = (value + added).to(total.dtype.element_ty)
        tl.store(total + place, rounded, mask=exists)
        value = rounded.to(tl.float32)
    means = tl.sum(value, 1) / C
    centered = tl.where(in_row, value - means[:, None], 0.0)
    scales = tl.rsqrt(tl.sum(centered * centered, 1) / C + eps)
    tl.store(mean + row, means, mask=row < rows)
    tl.store(scale + row, scales, mask=row < rows)
    weights = tl.load(weight + column, mask=column < C, other=0.0).to(tl.float32)[None, :]
    biases = tl.load(bias + column, mask=column < C, other=0.0).to(tl.float32)[None, :]
    out = centered * scales[:, None] * weights + biases
    tl.store(normed + place, out.to(normed.dtype.element_ty), mask=exists)


@triton.jit(do_not_specialize=["rows", "image_rows", "width", "start", "branch_start"])
def add_norm_backward_kernel(
    grad_normed, grad_total, total, mean, scale, weight, mask, grad_x, grad_branch, sums, rows, image_rows, width,
    start, branch_start,
    C: tl.constexpr, CP: tl.constexpr, R: tl.constexpr, HAS_BRANCH: tl.constexpr, HAS_MASK: tl.constexpr,
):  # fmt: skip
    """grad_x = the norm's gradient plus grad_total; grad_branch = mask * grad_x, written only if there is a mask.

    sums (programs, width): from `start` on those of the gradients of the norm's weight and bias, from `branch_start` on
    those of grad_branch.
    """
    column = tl.arange(0, CP)
    in_row = (column < C)[None, :]
    weights = tl.load(weight + column, mask=column < C, other=0.0).to(tl.float32)[None, :]
    weight_sums = tl.zeros([R, CP], tl.float32)
    bias_sums = tl.zeros([R, CP], tl.float32)
    grad_sums = tl.zeros([R, CP], tl.float32)
    for first in tl.range(tl.program_id(0) * R, rows, tl.num_programs(0) * R):
        row = first + tl.arange(0, R)
        exists = (row < rows)[:, None] & in_row
        place = (row.to(tl.int64) * C)[:, None] + column[None, :]
        value = tl.load(total + place, mask=exists, other=0.0).to(tl.float32)
        grad = tl.load(grad_normed + place, mask=exists, other=0.0).to(tl.float32)
        means = tl.load(mean + row, mask=row < rows, other=0.0)[:, None]
        scales = tl.load(scale + row, mask=row < rows, other=0.0)[:, None]
        standard = tl.where(in_row, (value - means) * scales, 0.0)
        weight_sums += grad * standard
        bias_sums += grad
        weighted = grad * weights
        along_value = tl.sum(weighted * standard, 1)[:, None] / C
        along_mean = tl.sum(weighted, 1)[:, None] / C
        rest = tl.load(grad_total + place, mask=exists, other=0.0).to(tl.float32)
        found = ((weighted - along_mean - standard * along_value) * scales + rest).to(grad_x.dtype.element_ty)
        tl.store(grad_x + place, found, mask=exists)
        if HAS_MASK:
            found = (found.to(tl.float32) * _load_mask(mask, row, rows, image_rows)).to(grad_x.dtype.element_ty)
            tl.store(grad_branch + place, found, mask=exists)
        if HAS_BRANCH:
            grad_sums += tl.where(exists, found.to(tl.float32), 0.0)
    line = sums + tl.program_id(0) * width + column
    tl.store(line + start, tl.sum(weight_sums, 0), mask=column < C)
    tl.store(line + start + C, tl.sum(bias_sums, 0), mask=column < C)
    if HAS_BRANCH:
        tl.store(line + branch_start, tl.sum(grad_sums, 0), mask=column < C)


@triton.jit(do_not_specialize=["rows", "image_rows", "width", "start"])
def mask_kernel(
    grad, mask, grad_branch, sums, rows, image_rows, width, start,
    C: tl.constexpr, CP: tl.constexpr, R: tl.constexpr, HAS_MASK: tl.constexpr,
):  # fmt: skip
    """grad_branch = mask * grad, (rows, C), written only if there is a mask; its sums go to `sums` from `start` on."""
    column = tl.arange(0, CP)
    grad_sums = tl.zeros([R, CP], tl.float32)
    for first in tl.range(tl.program_id(0) * R, rows, tl.num_programs(0) * R):
        row = first + tl.arange(0, R)
        exists = (row < rows)[:, None] & (column < C)[None, :]
        place = (row.to(tl.int64) * C)[:, None] + column[None, :]
        found = tl.load(grad + place, mask=exists, other=0.0)
        if HAS_MASK:
            found = (found.to(tl.float32) * _load_mask(mask, row, rows, image_rows)).to(grad.dtype.element_ty)
            tl.store(grad_branch + place, found, mask=exists)
        grad_sums += found.to(tl.float32)
    tl.store(sums + tl.program_id(0) * width + start + column, tl.sum(grad_sums, 0), mask=column < C)


@triton.jit(do_not_specialize=["rows", "width", "start"])
def gelu_backward_kernel(
    grad, expanded, active, sums, rows, width, start, M: tl.constexpr, T: tl.constexpr, R: tl.constexpr
):  # fmt: skip
    """grad (rows, M), in place: times the derivative of the exact GELU at `expanded`. Its sums: see `mask_kernel`.

    active: the GELU itself.
    """
    column = tl.program_id(1) * T + tl.arange(0, T)
    grad_sums = tl.zeros([R, T], tl.float32)
    for first in tl.range(tl.program_id(0) * R, rows, tl.num_programs(0) * R):
        row = first + tl.arange(0, R)
        exists = (row < rows)[:, None] & (column < M)[None, :]
        place = (row.to(tl.int64) * M)[:, None] + column[None, :]
        x = tl.load(expanded + place, mask=exists, other=0.0).to(tl.float32)
        share = 0.5 * (1.0 + tl.erf(x * _SQRT_HALF))
        tl.store(active + place, (x * share).to(active.dtype.element_ty), mask=exists)
        slope = share + x * tl.exp(-0.5 * x * x) * _INVERSE_SQRT_2PI
        found = (tl.load(grad + place, mask=exists, other=0.0).to(tl.float32) * slope).to(grad.dtype.element_ty)
        tl.store(grad + place, found, mask=exists)
        grad_sums += found.to(tl.float32)
    tl.store(sums + tl.program_id(0) * width + start + column, tl.sum(grad_sums, 0), mask=column < M)
