"""A layer norm and the matrix product after it in one kernel, for inference on Hopper GPUs.

Rows stay, weights pass: a program normalises R rows into shared memory, and takes the weights tile by tile, T columns
of the result, so that the normalised rows are never written to memory. While the product of a tile runs, the results of
the one before get their bias and activation and are written. K inputs, in NK chunks of C.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    async_copy,
    fence_async_shared,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from sequencer2d.ops import gluon_common as common
from sequencer2d.ops.tuning import multiprocessors

CHUNK = 64  # 16-bit values in 128 bytes, a line of shared memory
_C = gl.constexpr(CHUNK)
barrier = gl.barrier if hasattr(gl, "barrier") else gl.thread_barrier  # its name before Triton 3.7


@dataclass(frozen=True)
class Normed:
    """How the product behind a layer norm is launched.

    Attributes:
        rows: of a tile: 64 for each four warps.
        columns: of a tile of results.
        share: programs on a multiprocessor.
        registers: the most that a thread may have, for the share's sake; None for no limit.
    """

    rows: int
    columns: int
    share: int = 1
    registers: int | None = None


@gluon.jit
def copy_weights(places, source, exists, BEGIN: gl.constexpr, END: gl.constexpr):
    """Start to copy chunks BEGIN to END of a tile of weights, if there is one."""
    for k in gl.static_range(BEGIN, END):
        async_copy.async_copy_global_to_shared(places[k], source + k * _C, mask=exists)
    async_copy.commit_group()


@gluon.jit
def start_product(x, weights, total, BEGIN: gl.constexpr, END: gl.constexpr):
    """Wait for all copies, and start the products of chunks BEGIN to END, a group of instructions each."""
    async_copy.wait_group(0)
    fence_async_shared()
    for k in gl.static_range(BEGIN, END):
        total = warpgroup_mma(x[k], weights[k].permute([1, 0]), total, use_acc=k > 0, is_async=True)
    return total


@gluon.jit
def halves(total, R: gl.constexpr, T: gl.constexpr):
    """Results (R, T) as two tensors of half the columns: registers change their names, nothing moves."""
    return gl.split(total.reshape([R, 2, T // 2]).permute([0, 2, 1]))


@gluon.jit
def finish(half, bias, out, column, row, rows, N, R: gl.constexpr, T: gl.constexpr, OUT: gl.constexpr,
           GELU: gl.constexpr, FAST: gl.constexpr):  # fmt: skip
    """Bias and activation of half a tile from `column` on; four threads hold 32 columns that lie side by side."""
    y = half.reshape([R, T // 64, 4, 4, 2]).permute([0, 1, 3, 2, 4]).reshape([R, T // 2])
    y = gl.convert_layout(y, OUT)
    columns = column + gl.arange(0, T // 2, gl.SliceLayout(0, OUT))
    line = row + gl.arange(0, R, gl.SliceLayout(1, OUT))
    exists = columns < N
    y += gl.load(bias + columns, mask=exists).to(gl.float32)[None, :]
    if GELU:
        y = 0.5 * y * (1.0 + common.tanh(y * (0.7978845608028654 + 0.035677408136300125 * y * y), FAST))
    place = (line.to(gl.int64) * N)[:, None] + columns[None, :]
    gl.store(out + place, y.to(out.dtype.element_ty), mask=(line < rows)[:, None] & exists[None, :])


@gluon.jit
def normed_linear_kernel(
    x, shift, weight, bias, out, rows, N, tiles_each, eps,
    K: gl.constexpr, R: gl.constexpr, T: gl.constexpr, WARPS: gl.constexpr, GELU: gl.constexpr, FAST: gl.constexpr,
    COPY: gl.constexpr, SHARED: gl.constexpr, OUT: gl.constexpr,
):  # fmt: skip
    """x (rows, K), shift (K,), weight (N, K), bias (N,), out (rows, N); a program takes `tiles_each` tiles of columns."""
    NK: gl.constexpr = K // _C
    MIDDLE: gl.constexpr = (NK + 1) // 2
    mma: gl.constexpr = gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[WARPS, 1], instr_shape=[16, T, 16])
    dtype: gl.constexpr = x.dtype.element_ty

    first = gl.program_id(1) * tiles_each
    tiles = gl.minimum(gl.cdiv(N, T) - first, tiles_each)
    row_tiles = gl.cdiv(rows, R)

    normed = ()
    weights = ()
    for _ in gl.static_range(NK):
        normed = normed + (gl.allocate_shared_memory(dtype, [R, _C], SHARED),)
        weights = weights + (gl.allocate_shared_memory(dtype, [T, _C], SHARED),)
    # Rows of a tile of weights in the order that gives threads neighbouring columns of the result, see `finish`.
    order = gl.arange(0, T, gl.SliceLayout(1, COPY))
    order = first * T + order // 32 * 32 + order % 8 // 2 * 8 + order // 8 % 4 * 2 + order % 2
    inner = gl.arange(0, _C, gl.SliceLayout(0, COPY))
    source = weight + (order * K)[:, None] + inner[None, :]
    copy_weights(weights, source, (order < N)[:, None], 0, MIDDLE)

    for row_tile in range(gl.program_id(0), row_tiles, gl.num_programs(0)):
        row = row_tile * R
        line = gl.minimum(row + gl.arange(0, R, gl.SliceLayout(1, COPY)), rows - 1)
        lines = x + (line.to(gl.int64) * K)[:, None] + inner[None, :]
        loaded = ()
        for k in gl.static_range(NK):
            loaded = loaded + (gl.load(lines + k * _C),)
        mean = gl.zeros([R], gl.float32, gl.SliceLayout(1, COPY))
        for k in gl.static_range(NK):
            mean += gl.sum(loaded[k].to(gl.float32) - gl.load(shift + inner + k * _C).to(gl.float32)[None, :], 1)
        mean = mean / K
        variance = gl.zeros([R], gl.float32, gl.SliceLayout(1, COPY))
        for k in gl.static_range(NK):
            apart = loaded[k].to(gl.float32) - gl.load(shift + inner + k * _C).to(gl.float32)[None, :] - mean[:, None]
            variance += gl.sum(apart * apart, 1)
        scale = gl.rsqrt(variance / K + eps)
        for k in gl.static_range(NK):
            apart = loaded[k].to(gl.float32) - gl.load(shift + inner + k * _C).to(gl.float32)[None, :] - mean[:, None]
            normed[k].store((apart * scale[:, None]).to(dtype))

        empty = gl.zeros([R, T], gl.float32, mma)
        left, right = halves(empty, R, T)
        for tile in range(tiles):
            # Chunks are copied in two halves, each while the other's products run.
            total = start_product(normed, weights, empty, 0, MIDDLE)
            copy_weights(weights, source + tile * (T * K), (order < N - tile * T)[:, None], MIDDLE, NK)
            column = (first + tile - 1) * T
            if tile > 0:
                finish(left, bias, out, column, row, rows, N, R, T, OUT, GELU, FAST)
            total = start_product(normed, weights, total, MIDDLE, NK)
            total = warpgroup_mma_wait(NK - MIDDLE, deps=[total])
            after = gl.where(tile == tiles - 1, 0, tile + 1)
            barrier()  # the other warps' products have read the first half, too
            copy_weights(weights, source + after * (T * K), (order < N - after * T)[:, None], 0, MIDDLE)
            if tile > 0:
                finish(right, bias, out, column + T // 2, row, rows, N, R, T, OUT, GELU, FAST)
            total = warpgroup_mma_wait(0, deps=[total])
            left, right = halves(total, R, T)
        column = (first + tiles - 1) * T
        finish(left, bias, out, column, row, rows, N, R, T, OUT, GELU, FAST)
        finish(right, bias, out, column + T // 2, row, rows, N, R, T, OUT, GELU, FAST)


def out_layout(warps: int, columns: int) -> gl.DistributedLinearLayout:
    """Of half a tile's results, (16*warps, columns): the products' own, its columns in the order of memory."""
    registers = [[0, 1], [0, 2], [0, 4]] + [[0, 32 << i] for i in range((columns // 32).bit_length() - 1)] + [[8, 0]]
    lanes = [[0, 8], [0, 16], [1, 0], [2, 0], [4, 0]]
    across = [[16 << i, 0] for i in range(warps.bit_length() - 1)]
    return gl.DistributedLinearLayout(registers, lanes, across, [], [16 * warps, columns])


def launch_normed_linear(
    x: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, eps: float, gelu: bool, launch: Normed
) -> Tensor:
    """Run the kernel: x (..., K) to (..., N)."""
    inner, outer = x.shape[-1], weight.shape[0]
    rows = x.numel() // inner
    out = x.new_empty(*x.shape[:-1], outer)
    row_tiles, tiles = -(-rows // launch.rows), -(-outer // launch.columns)
    programs = launch.share * multiprocessors(x.device)
    # Few rows: several programs share a tile of rows, each with columns of its own.
    tiles_each = -(-tiles // max(programs // row_tiles, 1))
    splits = -(-tiles // tiles_each)
    warps = launch.rows // 16
    normed_linear_kernel[min(row_tiles, max(programs // splits, 1)), splits](
        x, shift, weight, bias, out, rows, outer, tiles_each, eps,
        K=inner, R=launch.rows, T=launch.columns, WARPS=warps, GELU=gelu, FAST=x.dtype is torch.bfloat16,
        COPY=common.copies(warps, CHUNK), OUT=out_layout(warps, launch.columns // 2), num_warps=warps,
        SHARED=gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2), maxnreg=launch.registers,
    )  # fmt: skip
    return out
