"""add_linear_ adds a matrix product to a tensor in place, without a copy."""

import pytest
import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
add_linear_ = torch.ops.sequencer2d.add_linear_


def operands(*shape, inner=5, outer=7, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    sizes = ((*shape, outer), (*shape, inner), (outer, inner))
    return [torch.randn(*size, generator=generator, dtype=torch.float64).to(DEVICE, dtype) for size in sizes]


@pytest.mark.parametrize("shape", [(), (1,), (33,), (2, 3, 4), (0, 3, 4)], ids=str)
def test_it_adds_the_product(shape):
    total, x, weight = operands(*shape)
    expected = total + x @ weight.T
    address = total.data_ptr()
    assert add_linear_(total, x, weight) is None
    assert total.data_ptr() == address
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-12)


def test_the_factors_may_have_any_strides():
    total, x, weight = operands(2, 3, 4)
    expected = total + x @ weight.T
    add_linear_(total, x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1), weight.T.contiguous().T)
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-12)


def test_a_view_is_written_through():
    _, x, weight = operands(2, 3, 4)
    flat = torch.zeros(24, 7, device=DEVICE, dtype=torch.float64)
    add_linear_(flat.view(2, 3, 4, 7), x, weight)
    torch.testing.assert_close(flat.view(2, 3, 4, 7), x @ weight.T, rtol=1e-12, atol=1e-12)


def test_a_sum_that_would_be_lost_in_a_copy_is_refused():
    total, x, weight = operands(2, 3, 4)
    with pytest.raises(RuntimeError, match="view"):
        add_linear_(total.transpose(0, 1), x.transpose(0, 1), weight)


def test_ten_runs_are_identical():
    totals = []
    for _ in range(10):
        total, x, weight = operands(33, inner=64, outer=48, dtype=torch.float32)
        add_linear_(total, x, weight)
        totals.append(total)
    assert all(torch.equal(total, totals[0]) for total in totals)


@pytest.mark.parametrize("shape", [(6,), (2, 3, 4)], ids=str)
def test_opcheck(shape):
    torch.library.opcheck(add_linear_, tuple(operands(*shape)))


@pytest.mark.gpu
def test_on_a_gpu_nothing_is_copied():
    """The vendor's workspace, at most 32 MiB, is all that a call may allocate; the sum is of 192 MiB."""
    total, x, weight = operands(1 << 18, inner=8, outer=384, dtype=torch.bfloat16)
    add_linear_(total, x, weight)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    add_linear_(total, x, weight)
    assert torch.cuda.max_memory_allocated() - before < total.nbytes / 2
