"""Small parts of layers on the host, by hand: pieces of memory, gradients at last steps, gates beyond ends."""

import pytest
import torch

from sequencer2d.ops import devices, linear_kernels
from sequencer2d.ops.block_weights import cut, pieces
from sequencer2d.ops.layer import _add_at_last_steps, _pack
from sequencer2d.ops.sequences import _add_at_first_steps, _at_ends, _hold_beyond_ends


def test_pieces_of_memory_begin_at_multiples_of_8_values() -> None:
    found = pieces(torch.empty(1), torch.half, [3, 8, 9])
    assert [(part.numel(), part.storage_offset(), part.dtype) for part in found] == [
        (3, 0, torch.half), (8, 8, torch.half), (9, 16, torch.half),
    ]  # fmt: skip
    assert found[0].untyped_storage().nbytes() == 2 * 32
    assert [part.tolist() for part in cut(torch.arange(6), 2)] == [[0, 1], [2, 3], [4, 5]]


def test_gradients_of_the_last_states_are_added_where_each_scan_ends() -> None:
    out, given = torch.zeros(2, 3, 2), torch.ones(2, 3, 2)
    hidden = torch.tensor([[[10.0], [20.0]], [[30.0], [40.0]]])
    found = _add_at_last_steps(given, hidden, out, (0, 1))
    assert found[..., 0].tolist() == [[1, 1, 11], [1, 1, 21]]
    assert found[..., 1].tolist() == [[31, 1, 1], [41, 1, 1]]
    assert given.eq(1).all(), "what was given stays"
    assert _add_at_last_steps(None, hidden, out, (0, 1)).sum() == 100
    assert _add_at_last_steps(given, None, out, (0, 1)) is given
    assert not _add_at_last_steps(None, None, out, (0, 1)).any()


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize(("cell", "gates"), [("lstm", 4), ("gru", 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_weights_are_packed_in_the_dtype_of_the_products(slots, cell, gates, dtype) -> None:
    rows = gates * 2
    shapes = [(rows, 5)] * slots + [(rows, 2)] * slots + [(rows,)] * (2 * slots)
    weights = [torch.randn(shape) for shape in shapes]
    weight_ih, weight_hh, bias, inner = _pack(weights, slots, cell, dtype)
    assert {part.dtype for part in (weight_ih, weight_hh, bias)} == {dtype}
    assert torch.equal(weight_ih, torch.cat(weights[:slots]).to(dtype))
    assert torch.equal(weight_hh, torch.stack(weights[slots : 2 * slots]).to(dtype))
    outer, recurrent = (torch.stack(weights[k * slots : (k + 1) * slots]).to(dtype) for k in (2, 3))
    if cell == "gru":
        assert torch.equal(inner, recurrent[:, 4:])
        recurrent[:, 4:] = 0
    else:
        assert inner is None
    assert torch.equal(bias, (outer + recurrent).flatten())
    without = _pack(weights[: 2 * slots], slots, cell, dtype)
    assert without[2] is without[3] is None
    assert torch.equal(without[1], weight_hh)


def test_gates_beyond_an_end_keep_the_state() -> None:
    gates, lengths = torch.zeros(2, 3, 4), torch.tensor([3, 1])
    held = _hold_beyond_ends(gates, lengths, "lstm", 1)
    assert not held[0].any()
    assert not held[1, 0].any()
    ingate, forget = held[1, 1, 0].sigmoid(), held[1, 1, 1].sigmoid()
    assert (ingate.item(), forget.item()) == (0, 1)
    major = _hold_beyond_ends(gates.transpose(0, 1)[None], lengths, "lstm", 1)
    assert torch.equal(major[0].transpose(0, 1), held)
    added = _add_at_first_steps(torch.zeros(2, 3, 2), torch.tensor([[[1.0], [2]], [[3], [4]]]), lengths, (0, 1))
    assert added[..., 0].tolist() == [[1, 0, 0], [2, 0, 0]]
    assert added[..., 1].tolist() == [[0, 0, 3], [4, 0, 0]]
    values = torch.arange(12.0).reshape(2, 3, 2)
    assert _at_ends(values, lengths, (0, 1))[..., 0].tolist() == [[4, 6], [1, 7]]


def test_batches_are_small_up_to_as_many_values_as_were_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "problem", lambda *_: None)
    most, x = 1024 * 192, torch.empty(1, 32, dtype=torch.half)
    for stream, small in ((most, True), (most + 1, False)):
        assert linear_kernels.is_small_batch(torch.empty(stream, dtype=torch.half), x) == small
    stream = torch.empty(16, dtype=torch.half)
    assert not linear_kernels.is_small_batch(stream, torch.empty(1, 40, dtype=torch.half))
    assert not linear_kernels.is_small_batch(stream, x.bfloat16())
    assert not linear_kernels.is_small_batch(stream.float(), x.float())
    for channels, pays in ((384, True), (400, False)):
        assert linear_kernels.normed_linear_pays(torch.empty(1, channels, dtype=torch.half)) == pays
    monkeypatch.setattr(devices, "problem", lambda *_: "none")
    assert not linear_kernels.is_small_batch(stream, x)


def test_kernels_read_scans_and_grids_from_a_few_numbers() -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    from sequencer2d.ops.kernels.scan_launch import grid_arguments, pack_scans

    assert pack_scans((0, 1, 2, 3)) == 0b011_010_001_000
    assert grid_arguments(torch.empty(2, 5, 8)) == (10, 5, 1, 1, 1, 1, 1)
    assert grid_arguments(torch.empty(2, 3, 5, 8)) == (30, 3, 5, 5, 1, 1, 1)
    assert grid_arguments(torch.empty(2, 3, 5, 7, 8)) == (210, 3, 35, 5, 7, 7, 1)
