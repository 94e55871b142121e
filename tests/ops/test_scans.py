"""A scan is one row, for grids of any number of axes: sequences, images and videos run in every implementation."""

import pytest
import torch

from sequencer2d.errors import ImplementationError, InputError
from sequencer2d.ops import choose_implementation, rnn2d
from sequencer2d.ops.edges import ends_of_sequences, last_steps
from sequencer2d.ops.scans import SEQUENCE_SCANS, Scan, by_axis, scans_of, time_first
from tests.ops.problems import NAMES, Problem, make_problem, relative_errors

GRIDS = {"sequence": (5,), "image": (3, 4), "video": (3, 2, 4)}


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("shape", [(3, 5), (3, 1), (1, 5, 3), (1, 1, 3), (0, 5), (1, 4, 0)], ids=str)
def test_the_ends_of_sequences_are_the_last_steps_of_their_scans(shape, slots):
    values = torch.randn(slots * 4, *shape).movedim(0, -1)  # of any strides
    found = ends_of_sequences(values, slots)
    assert torch.equal(found, last_steps(values, SEQUENCE_SCANS[slots]))
    assert found.is_contiguous()
    assert found.untyped_storage().data_ptr() != values.untyped_storage().data_ptr() or values.numel() == 0


def problem_on(grid, dtype, device="cpu", cell="lstm", hidden=16):
    """Two images with all scans of a grid."""
    scans = scans_of(range(len(grid)), bidirectional=True)
    flat = make_problem(device, dtype, cell=cell, height=1, width=torch.tensor(grid).prod(), scans=scans, hidden=hidden)
    x, *weights = flat.arguments
    return Problem((x.reshape(2, *grid, -1), *weights), flat.grad.reshape(2, *grid, -1), scans, cell)


def by_torch(problem):
    """Output and every gradient by one nn.LSTM or nn.GRU for each scan, over sequences that are cut out of the grid."""
    leaves = [value.detach().clone().requires_grad_() for value in problem.arguments]
    x, *stacks = leaves
    outputs = []
    for slot, number in enumerate(problem.scans):
        dim = 1 + number // 2
        layer = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[problem.cell](
            x.shape[-1], stacks[1].shape[-1], dtype=x.dtype
        )
        sequences = x.movedim(dim, 0)
        shape = sequences.shape
        sequences = sequences.reshape(shape[0], -1, shape[-1])
        parameters = dict(
            zip(("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"), (s[slot] for s in stacks), strict=True)
        )
        flipped = sequences.flip(0) if number % 2 else sequences
        out, _ = torch.func.functional_call(layer, parameters, (flipped,))
        out = out.flip(0) if number % 2 else out
        outputs.append(out.reshape(*shape[:-1], -1).movedim(0, dim))
    out = torch.cat(outputs, -1)
    return dict(zip(NAMES, (out.detach(), *torch.autograd.grad(out, leaves, problem.grad)), strict=True))


@pytest.mark.parametrize("sizes", GRIDS.values(), ids=GRIDS)
def test_a_walk_visits_each_token_once_and_in_order(sizes):
    grid = torch.arange(2 * torch.tensor(sizes).prod()).reshape(2, *sizes)
    for number in scans_of(range(len(sizes)), bidirectional=True):
        scan = Scan.numbered(number)
        assert scan.number == number
        walk = scan.walk(sizes)
        visited = [
            [(r // walk.stride) * walk.group + r % walk.stride + t * walk.stride for t in scan.order(walk.steps)]
            for r in range(grid.numel() // walk.steps)
        ]
        sequences = grid.movedim(1 + number // 2, -1).reshape(-1, walk.steps)
        expected = sequences.flip(-1) if number % 2 else sequences
        assert sorted(visited) == sorted(expected.tolist())


@pytest.mark.parametrize("implementation", ["reference", "aten"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("sizes", GRIDS.values(), ids=GRIDS)
def test_grids_of_one_two_and_three_axes(sizes, cell, implementation):
    problem = problem_on(sizes, torch.float64, cell=cell, hidden=3)
    errors = relative_errors(problem.solve(implementation), by_torch(problem))
    assert all(error < 1e-13 for error in errors.values()), errors


@pytest.mark.parametrize("gates", ["stored", "recomputed"])
@pytest.mark.parametrize("sizes", [GRIDS["sequence"], GRIDS["video"]], ids=["sequence", "video"])
def test_the_kernels_take_one_and_three_axes(device, sizes, gates):
    problem = problem_on(sizes, torch.float32, device)
    errors = relative_errors(problem.solve("triton", gates), problem.to(torch.float64).solve("reference"))
    assert all(error < 2e-6 for error in errors.values()), errors


def test_a_sequence_equals_a_grid_of_one_row():
    sequence = problem_on((5,), torch.float64)
    x, *weights = sequence.arguments
    expected = rnn2d(x[:, None], *weights, scans=(2, 3))
    assert torch.equal(rnn2d(x, *weights, scans=(0, 1)), expected[:, 0])


@pytest.mark.parametrize(("sizes", "scans"), [((5,), (2,)), ((3, 4), (4,)), ((3, 4), (-1,)), ((3, 4), ())], ids=str)
def test_a_scan_along_an_axis_that_the_grid_lacks_is_refused(sizes, scans):
    problem = problem_on(sizes, torch.float32)
    with pytest.raises(InputError, match=rf"give one or more of 0 to {2 * len(sizes) - 1}"):
        rnn2d(*problem.arguments, scans=scans)


def test_the_kernels_say_how_many_axes_they_take(device):
    x = torch.zeros(1, 2, 2, 2, 2, 16, device=device)
    with pytest.raises(ImplementationError, match="more than 6 scans of 3 axes"):
        choose_implementation(x, 16, scans=range(8), implementation="triton")


def test_slots_by_axis_and_the_order_of_dimensions():
    assert by_axis((2, 0, 3)) == {0: [1], 1: [0, 2]}
    for axis in range(3):
        order, back = time_first(axis, 5)
        x = torch.empty(2, 3, 4, 5, 6)
        assert x.permute(order).shape == x.movedim(1 + axis, 0).shape
        assert x.permute(order).permute(back).shape == x.shape
