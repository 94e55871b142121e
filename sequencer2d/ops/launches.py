"""Launch configurations of the kernels, and the tables of them that were measured, one for each kind of GPU.

A table beats autotuning here. An autotuner's key would have to hold the batch, so each new batch size would stall for
another round of tuning.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class SharedLaunch:
    """How a kernel with W_hh in shared memory is launched.

    Attributes:
        rows: the rows of a tile.
        chunk: the hidden units that are computed together.
        warps: the warps of a program.
        resident: whether W_hh stays on the chip. Otherwise it is read at each step.
        stages: the stages of the pipeline that copies a step's inputs to shared memory (1: no pipeline).
        product_inputs: in backward, the inputs of one product with W_hh, a power of two times the chunk (None: 1).
        matmuls_first: whether the products of all chunks with W_hh come before the first activation. In small batches
            the two then overlap, at the cost of registers.
    """

    rows: int
    chunk: int
    warps: int
    resident: bool = True
    stages: int = 2
    product_inputs: int | None = None
    matmuls_first: bool = True


@dataclass(frozen=True)
class RegisterLaunch:
    """How a kernel with W_hh in registers is launched.

    Attributes:
        rows: the rows of a tile, a multiple of eight in forward and of sixteen in backward.
        warps: the warps of a program. A chunk has eight units for each warp.
        stages: the stages of the ring in shared memory that a step's inputs are copied to.
        programs_per_sm: the programs that run on one multiprocessor at a time.
        register_tiles: the tiles of W_hh that registers hold, each with the gates of one chunk by the inputs of one
            chunk; None for all.
        shared_tiles: the tiles that shared memory holds. All others are read from memory at each step.
    """

    rows: int
    warps: int
    stages: int
    programs_per_sm: int
    register_tiles: int | None = None
    shared_tiles: int = 0


@dataclass(frozen=True)
class StreamedLaunch:
    """How a kernel that reads W_hh from memory at each step is launched.

    Attributes:
        rows: the rows of a tile.
        chunk: the hidden units whose gates are computed together.
        inputs: the inputs that a product takes at a time.
        warps: the warps of a program.
        stages: the stages of the pipeline that copies the operands of the products to shared memory.
    """

    rows: int
    chunk: int
    inputs: int
    warps: int
    stages: int


@dataclass(frozen=True, eq=False)
class LaunchTable:
    """What was measured on one kind of GPU.

    Launches stand with the smallest number of rows that each is for, largest first. Small batches take small tiles, so
    that every multiprocessor gets one.

    Attributes:
        shared: launches with W_hh in shared memory by kernel ("forward" or "backward") and hidden units.
        shared_default: those for other hidden units by kernel, to be adapted.
        registers: launches with W_hh in registers by kernel and hidden units, for the LSTM in 16 bits. The kernel
            "training" is forward that saves what backward reads.
        streamed: launches that read W_hh from memory at each step.
        max_shared_hidden: the most hidden units, by the bytes of a value, for the kernels with W_hh in shared memory.
            With more of them, which the compiler would unroll, W_hh is read from memory at each step.
        spread_bytes: the shared memory that a program needs which keeps a part of W_hh there and a part in registers.
        resident_bytes: the most shared memory that W_hh may take for a launch to be tried at all.
        min_hidden_to_save_activations: the hidden units from which on the gates' activations are saved for backward.
        weight_tokens: the tokens of a tile of the weight gradient.
        weight_rows: the rows of a tile of the weight gradient.
        weight_programs_per_sm: the weight gradient's programs on one multiprocessor.
        max_small_batch: the values of the residual stream up to which the fused products are faster than the vendor's.
        max_normed_channels: the most channels for which a layer norm and a product fit into one launch.
        linear_rows: the rows of a tile of the fused products.
        add_columns: the columns of a tile of the product that is added to the residual stream.
        add_stages: the stages of that product's pipeline.
    """

    shared: Mapping[tuple[str, int], tuple[tuple[int, SharedLaunch], ...]]
    shared_default: Mapping[str, tuple[tuple[int, SharedLaunch], ...]]
    registers: Mapping[tuple[str, int], tuple[tuple[int, RegisterLaunch], ...]]
    streamed: tuple[tuple[int, StreamedLaunch], ...]
    max_shared_hidden: Mapping[int, int]
    spread_bytes: int
    resident_bytes: int
    min_hidden_to_save_activations: int
    weight_tokens: int
    weight_rows: int
    weight_programs_per_sm: int
    max_small_batch: int
    max_normed_channels: int
    linear_rows: int
    add_columns: int
    add_stages: int

    def runs_in_registers(self, hidden: int, shared_bytes: int) -> bool:
        """Whether there are launches with W_hh in registers for a number of hidden units and so much shared memory."""
        launches = self.registers.get(("forward", hidden), ())
        return bool(launches) and (launches[0][1].register_tiles is None or shared_bytes >= self.spread_bytes)

    def padded_hidden(self, hidden: int, shared_bytes: int) -> int:
        """The least hidden units from `hidden` on that registers hold, if those are less than half as many more.

        The other kernels compute in chunks of 16 to 64 units, which pads as much.
        """
        sizes = {size for _, size in self.registers if hidden <= size and 2 * size < 3 * hidden}
        return min((size for size in sizes if self.runs_in_registers(size, shared_bytes)), default=hidden)


# In bf16, by benchmarks/kernels/recurrence.py; the products with one image through the whole of sequencer2d_s.
H200 = LaunchTable(
    shared={
        ("forward", 96): ((2048, SharedLaunch(32, 32, 4)), (0, SharedLaunch(16, 32, 4, stages=3))),
        ("forward", 64): ((0, SharedLaunch(16, 64, 4, stages=3)),),
        ("forward", 48): (
            (4096, SharedLaunch(32, 16, 2, stages=4)),
            (1024, SharedLaunch(16, 16, 2, stages=3)),
            (0, SharedLaunch(16, 64, 4, stages=3)),
        ),
        ("backward", 96): ((0, SharedLaunch(16, 32, 4, stages=3, matmuls_first=False)),),
        ("backward", 64): (
            (2048, SharedLaunch(64, 32, 4, stages=3, product_inputs=64, matmuls_first=False)),
            (0, SharedLaunch(16, 32, 4, stages=3, matmuls_first=False)),
        ),
        ("backward", 48): (
            (4096, SharedLaunch(64, 16, 4, product_inputs=64)),
            (2048, SharedLaunch(64, 16, 4, stages=3, product_inputs=64)),
            (1024, SharedLaunch(32, 16, 2, stages=3)),
            (0, SharedLaunch(16, 64, 4, stages=3, matmuls_first=False)),
        ),
    },
    shared_default={
        "forward": ((1024, SharedLaunch(32, 32, 4)), (0, SharedLaunch(16, 32, 4))),
        "backward": (
            (1024, SharedLaunch(64, 32, 4, matmuls_first=False)),
            (0, SharedLaunch(16, 32, 4, matmuls_first=False)),
        ),
    },
    # Registers have room for 128 units. From 192 units on, W_hh is spread over registers, shared memory and memory.
    # Sizes that are missing here were not timed; forward of 256 units was timed in layers.
    registers={
        ("forward", 256): ((0, RegisterLaunch(8, 8, 2, 1, 3, 5)),),
        ("forward", 192): ((0, RegisterLaunch(8, 8, 3, 1, 4, 5)),),
        ("forward", 128): ((0, RegisterLaunch(8, 8, 4, 1)),),
        ("forward", 96): ((0, RegisterLaunch(8, 4, 4, 2)),),
        ("forward", 64): ((0, RegisterLaunch(8, 4, 3, 4)),),
        ("forward", 48): ((2048, RegisterLaunch(16, 2, 3, 4)), (0, RegisterLaunch(8, 2, 3, 6))),
        ("training", 256): ((0, RegisterLaunch(8, 8, 2, 1, 4, 5)),),
        ("training", 192): ((0, RegisterLaunch(8, 8, 3, 1, 4, 5)),),
        ("training", 128): ((0, RegisterLaunch(8, 8, 3, 1)),),
        ("training", 96): ((0, RegisterLaunch(8, 4, 4, 2)),),
        ("training", 64): ((1024, RegisterLaunch(16, 8, 3, 2)), (0, RegisterLaunch(8, 4, 3, 3))),
        ("training", 48): ((0, RegisterLaunch(8, 2, 3, 4)),),
        ("backward", 256): ((0, RegisterLaunch(16, 8, 2, 1, 3, 3)),),
        ("backward", 192): ((0, RegisterLaunch(16, 8, 2, 1, 3, 4)),),
        ("backward", 128): ((0, RegisterLaunch(16, 8, 3, 1)),),
        ("backward", 96): ((0, RegisterLaunch(16, 4, 3, 2)),),
        ("backward", 64): ((0, RegisterLaunch(16, 8, 3, 2)),),
        ("backward", 48): ((0, RegisterLaunch(16, 2, 3, 4)),),
    },
    # Not timed. The last one, for GPUs with little shared memory, takes 33 KiB of it.
    streamed=(
        (2048, StreamedLaunch(64, 32, 32, 8, 3)),
        (1024, StreamedLaunch(32, 32, 32, 8, 3)),
        (0, StreamedLaunch(16, 32, 32, 8, 3)),
        (0, StreamedLaunch(16, 16, 32, 4, 2)),
    ),
    max_shared_hidden={4: 128, 2: 256},
    spread_bytes=227 * 1024,
    resident_bytes=160 * 1024,
    # With fewer units all kernels wait for memory, and activations are more to write. At 64 units saving costs 3 or 4 %
    # in large batches and gains 15 to 35 % in small ones.
    min_hidden_to_save_activations=64,
    # wgmma needs 64 rows. All programs run at a time; a second round, however small, would take as long as the first.
    weight_tokens=64,
    weight_rows=64,
    weight_programs_per_sm=3,
    # One image of 224 x 224 pixels in the first stage, two images after it (not timed).
    max_small_batch=1024 * 192,
    max_normed_channels=384,
    linear_rows=64,
    add_columns=32,
    add_stages=4,
)
