"""What the host decides for the kernels: edges of scans, grids of launches, tables and devices, by hand."""

from fractions import Fraction

import pytest
import torch

from sequencer2d.ops import devices, measured, targets, tuning
from sequencer2d.ops.edges import first_steps, last_steps, states_before
from sequencer2d.ops.launches import H200, RegisterLaunch
from sequencer2d.ops.measured import Problems

SCANS = (0, 1, 2, 3)
"""Down, up, right, left."""


def grid() -> torch.Tensor:
    """(1, 2, 3, 4): each scan has one unit, whose value is its number in hundreds, the row in tens and the column."""
    rows, columns, slots = torch.arange(2), torch.arange(3), torch.arange(4)
    return (100 * slots + 10 * rows[:, None, None] + columns[:, None])[None]


def test_scans_begin_and_end_at_the_edges_that_they_run_between() -> None:
    down_first, up_first, right_first, left_first = [0, 1, 2], [110, 111, 112], [200, 210], [302, 312]
    vertical, horizontal = grid()[..., :2], grid()[..., 2:]
    assert first_steps(vertical, (0, 1))[..., 0].tolist() == [down_first, up_first]
    assert first_steps(horizontal, (2, 3))[..., 0].tolist() == [right_first, left_first]
    assert last_steps(vertical, (0, 1))[..., 0].tolist() == [[10, 11, 12], [100, 101, 102]]
    assert last_steps(horizontal, (2, 3))[..., 0].tolist() == [[202, 212], [300, 310]]


def test_before_each_step_stands_the_one_that_the_scan_visits_earlier() -> None:
    values, first = grid(), torch.tensor([[[7], [8], [9]]])
    before = states_before(values, SCANS, None)[0]
    assert before[..., 0].tolist() == [[0, 0, 0], [0, 1, 2]]
    assert before[..., 1].tolist() == [[110, 111, 112], [0, 0, 0]]
    assert before[..., 2].tolist() == [[0, 200, 201], [0, 210, 211]]
    assert before[..., 3].tolist() == [[301, 302, 0], [311, 312, 0]]
    assert states_before(values[..., :1], (0,), first)[0, ..., 0].tolist() == [[7, 8, 9], [0, 1, 2]]


@pytest.mark.parametrize("function", [targets.max_small_batch, targets.max_normed_channels, measured._arithmetic])
def test_what_torch_compile_takes_for_a_constant_is_marked_as_torch_marks_it(function) -> None:
    def reference() -> None: ...

    marked = vars(torch.compiler.assume_constant_result(reference)).items()
    assert marked <= vars(function).items()


def test_the_interpreter_runs_one_program_with_the_h200s_table() -> None:
    assert targets.find("cpu", None) is targets.INTERPRETER
    assert targets.of(torch.device("cpu")) is targets.INTERPRETER
    assert not targets.INTERPRETER.starts_early
    assert not targets.INTERPRETER.inline_ptx
    assert (targets.max_small_batch("cpu", None), targets.max_normed_channels("cpu", None)) == (196_608, 384)
    assert targets.TARGETS[4].shared_bytes == 232_448
    assert tuning.multiprocessors(torch.device("cpu")) == 1
    assert not devices.approximates_tanh(torch.zeros(1, dtype=torch.bfloat16))


def test_without_a_gpu_each_family_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    ask = devices._ask.__wrapped__
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert ask("shared", "cpu", None) == "the input is on cpu, it needs a CUDA device"
    assert ask("shared", "cuda", 0) == "there is no CUDA device"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert ask("registers", "cpu", None) == "Triton's interpreter does not run it"
    assert ask("shared", "cpu", None) is None
    assert ask("shared", "mps", None) == "the input is on mps, it needs a CUDA device"


def test_bounds_of_what_was_measured_are_inclusive() -> None:
    row = Problems("lstm", "bfloat16", False, (48, 64), (2, 192))
    for hidden, sequences in ((48, 2), (64, 192), (50, 10)):
        assert row.include("lstm", "bfloat16", False, hidden, sequences)
    for hidden, sequences in ((47, 2), (65, 2), (48, 1), (64, 193)):
        assert not row.include("lstm", "bfloat16", False, hidden, sequences)
    for other in (("gru", "bfloat16", False), ("lstm", "float16", False), ("lstm", "bfloat16", True)):
        assert not row.include(*other, 50, 10)


def test_grids_take_kernels_that_hold_w_hh_on_the_chip() -> None:
    for dtype, most in ((torch.float32, 128), (torch.bfloat16, 256)):
        x = torch.zeros(1, dtype=dtype)
        assert measured.are_kernels_faster_on_grids(x, most)
        assert not measured.are_kernels_faster_on_grids(x, most + 1)
    assert measured.are_kernels_faster_on_grids(torch.zeros(1, dtype=torch.float64), 1000)


def test_a_program_for_each_tile_but_no_more_than_run_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "multiprocessors", lambda _: 10)
    launch, device = RegisterLaunch(8, 4, 2, 2), torch.device("cpu")
    assert [tuning.programs(launch, rows, 4, device) for rows in (1, 8, 9, 40, 41, 1000)] == [1, 1, 2, 5, 5, 5]
    assert tuning.programs(launch, 1000, 40, device) == 1


def test_chunks_pad_hidden_units_least() -> None:
    sizes = {hidden: tuning._chunk(hidden) for hidden in (1, 16, 17, 32, 33, 48, 49, 128, 129)}
    assert sizes == {1: 16, 16: 16, 17: 32, 32: 32, 33: 16, 48: 16, 49: 32, 128: 32, 129: 64}


def test_rows_are_the_sequences_of_the_scan_that_has_the_most() -> None:
    gates = torch.empty(2, 3, 5, 8)
    assert [tuning.most_rows(gates, scans) for scans in ((0,), (3,), (0, 2))] == [10, 6, 10]


def test_streamed_launches_are_those_for_so_many_rows() -> None:
    found = {}
    for rows in (1, 1023, 1024, 2047, 2048):
        gates = torch.empty(rows, 1, 8, device="meta")
        found[rows] = [launch.rows for launch in tuning.choose_streamed_launches(gates, (0,))]
    few, more, many = [16, 16], [32, 16, 16], [64, 32, 16, 16]
    assert found == {1: few, 1023: few, 1024: more, 2047: more, 2048: many}


def test_default_launches_take_all_inputs_of_a_product_at_once() -> None:
    default = H200.shared_default["backward"][0][1]
    adapted = {hidden: tuning._adapted(default, "backward", hidden, 32).product_inputs for hidden in (16, 64, 65, 100)}
    assert adapted == {16: 32, 64: 64, 65: 128, 100: 128}
    assert tuning._adapted(default, "forward", 64, 32).product_inputs is None
    small = tuning._adapted(H200.shared_default["backward"][1][1], "backward", 64, 16)
    assert (small.product_inputs, small.chunk, small.rows) == (None, 16, 16)


@pytest.mark.parametrize(
    ("factor", "steps"),
    [("1", 0), ("2", 1), ("8", 3), ("1/2", -1), ("1/4", -2), ("3", None), ("3/2", None), ("2/3", None), ("1/3", None)],
)
def test_doublings_of_a_power_of_two(factor: str, steps: int | None) -> None:
    from sequencer2d.nn.pyramid import doublings

    assert doublings(Fraction(factor)) == steps


# Launches of the kernels between the products of a block


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch):
    """The module of launches, and a list of (kernel, grid, tensors, scalars, constants) in place of launching."""
    pytest.importorskip("triton", reason="Triton is not installed")
    from sequencer2d.ops.kernels import triton_block_launch

    seen: list[tuple] = []
    monkeypatch.setattr(triton_block_launch, "_launch", lambda *given: seen.append(given))
    monkeypatch.setattr(triton_block_launch, "multiprocessors", lambda _: 3)
    return triton_block_launch, seen


def test_sums_have_a_row_for_each_program(launched) -> None:
    module, _ = launched
    for tokens, programs in ((1, 1), (8, 1), (9, 2), (48, 6), (4000, 6)):
        sums = module.new_sums(torch.empty(tokens, 16, dtype=torch.half), 96)
        assert (sums.shape, sums.dtype) == ((programs, 96), torch.float32)


@pytest.mark.parametrize("with_mask", [False, True])
def test_the_norm_runs_a_program_for_8_tokens(launched, with_mask) -> None:
    module, seen = launched
    x, vector = torch.empty(18, 16, dtype=torch.half), torch.empty(16)
    mask = torch.empty(3, dtype=torch.half) if with_mask else None
    total, normed, mean, scale = module.add_norm(x, x, mask, vector, vector, 1e-6)
    kernel, blocks, tensors, scalars, constants = seen[0]
    assert kernel is module.triton_block.add_norm_kernel
    assert (blocks, scalars) == ((3,), (18, 6 if with_mask else 18, 1e-6))
    assert constants == {"C": 16, "HAS_BRANCH": True, "HAS_MASK": with_mask}
    assert tensors[2] is (mask if with_mask else x)
    assert total is not x
    assert (normed.shape, normed.dtype) == (x.shape, torch.half)
    assert (mean.shape, scale.shape, mean.dtype) == ((18,), (18,), torch.float32)
    assert mean.data_ptr() != scale.data_ptr()
    alone, _, mean, scale = module.add_norm(x, None, None, vector, vector, 1e-6, save=False)
    assert alone is x
    assert mean is scale
    assert seen[1][4] == {"C": 16, "HAS_BRANCH": False, "HAS_MASK": False}


@pytest.mark.parametrize("with_mask", [False, True])
def test_backward_runs_a_program_for_each_row_of_sums(launched, with_mask) -> None:
    module, seen = launched
    x, vector, sums = torch.empty(18, 16), torch.empty(16), torch.empty(2, 96)
    mask = torch.empty(3) if with_mask else None
    saved = (x.clone(), torch.empty(18), torch.empty(18))
    images = 6 if with_mask else 18
    for branch_column, scalars in ((64, (18, images, 96, 32, 64)), (None, (18, images, 96, 32, 0))):
        grad_x, grad_branch = module.add_norm_backward(x, x, saved, vector, mask, sums, 32, branch_column)
        assert grad_x is x
        assert (grad_branch is grad_x) == (not with_mask)
        assert seen[-1][0] is module.triton_block.add_norm_backward_kernel
        assert seen[-1][1] == (2,)
        assert seen[-1][3] == scalars
        assert seen[-1][4] == {"C": 16, "HAS_BRANCH": branch_column is not None, "HAS_MASK": with_mask}
    grad_branch = module.apply_mask(x, mask, sums, 48)
    assert (grad_branch is x) == (not with_mask)
    assert seen[-1][0] is module.triton_block.mask_kernel
    assert (seen[-1][1], seen[-1][3]) == ((2,), (18, images, 96, 48))
    assert seen[-1][4] == {"C": 16, "HAS_MASK": with_mask}


# Hidden units that are added


@pytest.mark.parametrize(("cell", "gates"), [("lstm", 4), ("gru", 3)])
def test_added_units_have_zero_weights_and_leave_the_others_where_they_are(cell: str, gates: int) -> None:
    from sequencer2d.ops.padding import pad_units, pad_weights, without_padding
    from sequencer2d.ops.weights import Weights

    given = Weights(
        torch.randn(2, gates * 3, 5), torch.randn(2, gates * 3, 3), torch.randn(2, gates * 3), torch.randn(2, gates * 3)
    )
    padded = pad_weights(given, 4, cell)
    shapes = [tuple(part.shape) for part in padded]
    assert shapes == [(2, gates * 4, 5), (2, gates * 4, 4), (2, gates * 4), (2, gates * 4)]
    rows = padded.weight_hh.unflatten(1, (gates, 4))
    assert torch.equal(rows[:, :, :3, :3].flatten(1, 2), given.weight_hh)
    assert not rows[:, :, 3].any()
    assert not rows[..., 3].any()
    for wide, narrow in zip(padded, given, strict=True):
        units = wide.unflatten(1, (gates, 4))
        assert not units[:, :, 3].any()
        if narrow is not given.weight_hh:
            assert torch.equal(units[:, :, :3].flatten(1, 2), narrow)
    values = torch.tensor([[1, 2, 3, 4, 5, 6]])
    assert pad_units(values, 3, 4).tolist() == [[1, 2, 3, 0, 4, 5, 6, 0]]
    assert torch.equal(without_padding(pad_units(values, 3, 4), 3, 4), values)
