"""What the Triton kernels share: activations, cells, weight tiles and the addressing of scans.

Imported only when a kernel runs. Suffixes: R rows of a tile, S scans, G gates, D hidden units, DC hidden units of a
chunk, NC chunks, KC inputs of a product with W_hh, NK such products a chunk, GP gates padded to a power of two. A row
is one sequence: a column of the grid for vertical scans, a line for horizontal ones.

D is cut into NC chunks of DC units, a power of two, because 48 and 96 are not: three chunks of 16 or 32 waste nothing,
padding to 64 or 128 would cost 1.8 times the products.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import triton
import triton.language as tl
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from triton.compiler.errors import CompilationError
from triton.runtime.errors import OutOfResources, PTXASError

from sequencer2d.ops import devices

Candidate = TypeVar("Candidate")

LSTM = tl.constexpr(0)
GRU = tl.constexpr(1)
RNN = tl.constexpr(2)

_REFUSED: set[tuple[Any, ...]] = set()


def run_kernel(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """Launch a kernel. With fake tensors it is compiled only."""
    options["enable_fp_fusion"] = True  # Triton's default until 3.10; from 3.9 on it warns where nothing is said.
    if isinstance(arguments[0], FakeTensor):
        kernel.warmup(*(a.dtype if isinstance(a, Tensor) else a for a in arguments), grid=grid, **options)
    else:
        kernel[grid](*arguments, **options)


def first_that_fits(key: tuple[Any, ...], candidates: Sequence[Candidate], start: Callable[[Candidate], None]) -> None:
    """Start a kernel by the first of `candidates` that compiles and whose shared memory and registers the device has.

    What a kernel takes is known once it is compiled; the table of launches is one device's. `key`: what a kernel is
    compiled for apart from the candidate, and the device. What was refused is not tried again.

    Raises:
        CompileError: the last candidate does not compile.
        OutOfResources: the device does not hold the last candidate.
    """
    for candidate in candidates:
        last = candidate is candidates[-1]
        if last or (*key, candidate) not in _REFUSED:
            try:
                start(candidate)
            except OutOfResources:
                if last:
                    raise
            except Exception as error:
                if not is_compile_error(error):
                    raise
                if last:
                    raise devices.compile_error(error, *key) from error
                devices.rule_out(*key, candidate, error=error, instead="the next launch of the table runs")
            else:
                return
            _REFUSED.add((*key, candidate))


@contextlib.contextmanager
def compiling(*problem: Any) -> Iterator[None]:
    """Turn a failure to compile into a `CompileError` that names the problem."""
    try:
        yield
    except Exception as error:
        if not is_compile_error(error):
            raise
        raise devices.compile_error(error, *problem) from error


def is_compile_error(error: Exception) -> bool:
    """Whether Triton did not compile a kernel; a mistake that the interpreter finds is not meant."""
    passes = isinstance(error, RuntimeError) and "PassManager" in str(error)
    return passes or isinstance(error, (CompilationError, PTXASError))


@triton.jit
def tanh(x, FAST: tl.constexpr):
    """tanh in fp32. FAST takes one special-function instruction, exact to 2^-11; else to fp32 rounding, absolutely."""
    if FAST:
        return tl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)
    else:
        # The exponent is never positive, so nothing overflows at any x.
        e = tl.exp(-2.0 * tl.abs(x))
        magnitude = (1.0 - e) / (1.0 + e)
        return tl.where(x < 0.0, -magnitude, magnitude)


@triton.jit
def sigmoid(x, FAST: tl.constexpr):
    """The logistic function in fp32."""
    if FAST:
        return 0.5 * tanh(0.5 * x, FAST) + 0.5
    else:
        e = tl.exp(-tl.abs(x))
        return tl.where(x < 0.0, e, 1.0) / (1.0 + e)


@triton.jit
def scan_steps(slot, H, W, SCANS: tl.constexpr):
    """The scan in a slot: (axis, whether it runs backward, its steps, tokens between them). SCANS: two bits a slot."""
    scan = (SCANS >> (2 * slot)) & 3
    axis = scan // 2
    return axis, scan % 2 == 1, tl.where(axis == 0, H, W), tl.where(axis == 0, W, 1)


@triton.jit
def place_rows(slot, B, H, W, SCANS: tl.constexpr, R: tl.constexpr, REVERSED: tl.constexpr):
    """The rows of a program in the flattened (B, H, W) grid. REVERSED: the scan's last step comes first.

    Returns (whether there are any, steps, which of them exist (R, 1), their first tokens (R,), distance from there to
    the next step's); tokens are int64.
    """
    axis, backward, steps, stride = scan_steps(slot, H, W, SCANS)
    total = B * tl.where(axis == 0, W, H)
    first = tl.program_id(0) * R
    rows = first + tl.arange(0, R)
    valid = (rows < total)[:, None]
    rows = tl.minimum(rows, total - 1)
    outer = tl.where(axis == 0, H * W, W)
    from_end = backward != REVERSED
    token = (rows // stride).to(tl.int64) * outer + rows % stride + tl.where(from_end, (steps - 1) * stride, 0)
    return first < total, steps, valid, token, tl.where(from_end, -stride, stride).to(tl.int64)


@triton.jit
def weight_tile(
    weight, slot, n: tl.constexpr, k: tl.constexpr, D: tl.constexpr, DC: tl.constexpr, KC: tl.constexpr,
    G: tl.constexpr, AGAIN: tl.constexpr,
):  # fmt: skip
    """W_hh of all gates, units of chunk n by inputs of part k, as (inputs, gates * units): (KC, GP*DC).

    The gates stand side by side, padded to a power of two GP, so that one product serves them all: what a product costs
    here is its latency, not its arithmetic. AGAIN: read it here each time, where all tiles together do not fit.
    """
    GP: tl.constexpr = 4 if G > 1 else 1
    column = tl.arange(0, GP * DC)[None, :]
    gate = column // DC
    unit = n * DC + column % DC
    source = k * KC + tl.arange(0, KC)[:, None]
    pointers = weight + slot * (G * D * D) + (gate * D + unit) * D + source
    # A volatile load stays where it stands; any other would be moved out of the loop, and all tiles be kept.
    # Triton 3.3 takes no chain of three conditions.
    if (D % DC == 0 and D % KC == 0) and GP == G:
        return tl.load(pointers, volatile=AGAIN)
    else:
        return tl.load(pointers, mask=(unit < D) & (source < D) & (gate < G), other=0.0, volatile=AGAIN)


@triton.jit
def weight_tiles(
    weight, slot, D: tl.constexpr, DC: tl.constexpr, KC: tl.constexpr, NC: tl.constexpr, NK: tl.constexpr,
    G: tl.constexpr, RESIDENT: tl.constexpr,
):  # fmt: skip
    """All tiles of a scan's W_hh, a flat tuple: tile (n, k) at n * NK + k; empty if they are read at each step."""
    tiles = ()
    if RESIDENT:
        for n in tl.static_range(NC):
            for k in tl.static_range(NK):
                tiles = tiles + (weight_tile(weight, slot, n, k, D, DC, KC, G, False),)
    return tiles


@triton.jit
def get_tile(
    tiles, weight, slot, n: tl.constexpr, k: tl.constexpr, D: tl.constexpr, DC: tl.constexpr, KC: tl.constexpr,
    NK: tl.constexpr, G: tl.constexpr,
):  # fmt: skip
    """Tile (n, k), from `tiles` or from memory."""
    if len(tiles) > 0:
        return tiles[n * NK + k]
    else:
        return weight_tile(weight, slot, n, k, D, DC, KC, G, True)


@triton.jit
def half(x, upper: tl.constexpr, R: tl.constexpr, C: tl.constexpr):
    """The lower or the upper half of the columns of x (R, C): registers change their names, nothing moves."""
    low, high = tl.split(tl.permute(tl.reshape(x, (R, 2, C // 2)), (0, 2, 1)))
    if upper:
        return high
    else:
        return low


@triton.jit
def chunk_of(parts, n: tl.constexpr, R: tl.constexpr, DC: tl.constexpr, KC: tl.constexpr):
    """Chunk n (R, DC) of `parts`, a tuple of (R, KC) with KC one, two or four times DC."""
    SHARE: tl.constexpr = KC // DC
    x = parts[n // SHARE]
    if SHARE == 4:
        x = half(x, n % 4 >= 2, R, 4 * DC)
    if SHARE >= 2:
        x = half(x, n % 2 == 1, R, 2 * DC)
    return x


@triton.jit
def exists(n: tl.constexpr, valid, D: tl.constexpr, DC: tl.constexpr):
    """Mask of chunk n: `valid` (R, 1) rows, units before D."""
    if D % DC == 0:
        return valid
    else:
        return valid & ((n * DC + tl.arange(0, DC)[None, :]) < D)


@triton.jit
def load_chunk(pointers, n: tl.constexpr, valid, D: tl.constexpr, DC: tl.constexpr):
    """Values (R, DC) of chunk n, `pointers` (R, DC) being chunk 0's; 0 where a row or a unit does not exist."""
    return tl.load(pointers + n * DC, mask=exists(n, valid, D, DC), other=0.0)


@triton.jit
def load_parts(
    pointers, valid, D: tl.constexpr, KC: tl.constexpr, NK: tl.constexpr, AGAIN: tl.constexpr,
):  # fmt: skip
    """A tuple of all NK parts (R, KC) of D values, `pointers` being part 0's. AGAIN: as in `weight_tile`."""
    parts = ()
    for k in tl.static_range(NK):
        mask = exists(k, valid, D, KC)
        parts = parts + (tl.load(pointers + k * KC, mask=mask, other=0.0, volatile=AGAIN),)
    return parts


@triton.jit
def store_chunk(pointers, n: tl.constexpr, value, valid, D: tl.constexpr, DC: tl.constexpr):
    """Store (R, DC) as chunk n where rows and units exist."""
    tl.store(pointers + n * DC, value, mask=exists(n, valid, D, DC))


@triton.jit
def gate_columns(D: tl.constexpr, DC: tl.constexpr, G: tl.constexpr):
    """Where chunk 0 of a scan's gates lies, the gates side by side: offsets (1, GP*DC).

    The order is `weight_tile`'s. The GRU's candidate stands in the third place and again in the fourth.
    """
    GP: tl.constexpr = 4 if G > 1 else 1
    column = tl.arange(0, GP * DC)[None, :]
    if G == 3:
        return tl.minimum(column // DC, 2) * D + column % DC
    else:
        return column // DC * D + column % DC


@triton.jit
def gates_exist(
    n: tl.constexpr, valid, without: tl.constexpr, D: tl.constexpr, DC: tl.constexpr, G: tl.constexpr,
):  # fmt: skip
    """Mask of chunk n of the gates side by side; the GRU leaves one of the four places out."""
    GP: tl.constexpr = 4 if G > 1 else 1
    column = tl.arange(0, GP * DC)[None, :]
    mask = valid
    if D % DC != 0:
        mask = mask & (n * DC + column % DC < D)
    if G == 3:
        mask = mask & (column // DC != without)
    return mask


@triton.jit
def store_gates(
    pointers, n: tl.constexpr, value, valid, D: tl.constexpr, DC: tl.constexpr, G: tl.constexpr,
):  # fmt: skip
    """Store (R, GP*DC) as chunk n of the gates; what stands in the GRU's fourth place is left out."""
    tl.store(pointers + n * DC, value, mask=gates_exist(n, valid, 3, D, DC, G))


@triton.jit
def gate_sums(
    pointers, h, tiles, weight, slot, n: tl.constexpr, valid, D: tl.constexpr, DC: tl.constexpr,
    KC: tl.constexpr, NK: tl.constexpr, G: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Input part and W_hh·h of chunk n of all gates side by side, added: fp32 (R, GP*DC). `pointers`: of chunk 0.

    The GRU's candidate keeps them apart: its input part is in the fourth place, where W_hh has zeros.
    """
    mask = gates_exist(n, valid, 2, D, DC, G)
    sums = tl.load(pointers + n * DC, mask=mask, other=0.0).to(tl.float32)
    for k in tl.static_range(NK):
        tile = get_tile(tiles, weight, slot, n, k, D, DC, KC, NK, G)
        sums = tl.dot(h[k], tile, sums, input_precision=PRECISION)
    return sums


@triton.jit
def apart(gates, R: tl.constexpr, DC: tl.constexpr, G: tl.constexpr):
    """Gates side by side (R, GP*DC) to a tuple of GP tensors (R, DC)."""
    if G == 1:
        return (gates,)
    else:
        # Renames registers: a thread holds the same unit of every gate.
        by_gate = tl.permute(tl.reshape(gates, (R, 2, 2, DC)), (0, 3, 1, 2))
        even, odd = tl.split(by_gate)
        first, third = tl.split(even)
        second, fourth = tl.split(odd)
        return first, second, third, fourth


@triton.jit
def side_by_side(parts, R: tl.constexpr, DC: tl.constexpr, G: tl.constexpr):
    """The inverse of `apart`: G tensors (R, DC) to one (R, GP*DC), gates side by side."""
    if G == 1:
        return parts[0]
    else:
        last = parts[2]
        if G == 4:
            last = parts[3]
        else:
            last = tl.zeros_like(last)
        by_gate = tl.join(tl.join(parts[0], parts[2]), tl.join(parts[1], last))
        return tl.reshape(tl.permute(by_gate, (0, 2, 3, 1)), (R, 4 * DC))
