"""Launches that a device does not hold give way to the next, once; every size has launches of a form that compiles."""

import pytest
import torch

from sequencer2d.ops import CELLS, tuning
from sequencer2d.ops.fused import MAX_HIDDEN
from sequencer2d.ops.launches import H200
from sequencer2d.ops.precision import tf32


def choose(kernel, rows, hidden, cell="lstm", dtype=torch.bfloat16):
    width = CELLS[cell].gates * hidden
    gates = torch.empty(rows, 1, 1, 4 * width, dtype=dtype, device="meta")
    return tuning.choose_shared_launches(kernel, gates, torch.empty(4, width, hidden, device="meta"), (0, 1, 2, 3))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_every_size_has_launches_that_compile_and_one_for_small_memories(cell, dtype):
    for hidden in range(1, MAX_HIDDEN + 1):
        for kernel in ("forward", "backward"):
            for rows in (1, 1023, 1024, 2048, 8192):
                launches = choose(kernel, rows, hidden, cell, dtype)
                for launch in launches:
                    inputs = launch.product_inputs or launch.chunk
                    # A product takes at least 16 inputs, and a part of them holds whole chunks: 1, 2 or 4.
                    assert launch.chunk >= 16, (kernel, rows, hidden)
                    assert inputs // launch.chunk in (1, 2, 4), (kernel, rows, hidden)
                assert not launches[-1].resident, (kernel, rows, hidden)
                assert (launches[-1].rows, launches[-1].stages) == (16, 1), (kernel, rows, hidden)


@pytest.mark.parametrize(
    "kernel, hidden, cell, with_tf32, without",
    [
        ("forward", 64, "lstm", True, True),
        ("forward", 96, "lstm", True, False),
        ("forward", 128, "lstm", False, False),
        ("backward", 64, "lstm", True, False),
        ("backward", 96, "lstm", False, False),
        ("forward", 128, "rnn", True, True),
    ],
)
def test_w_hh_in_fp32_stays_on_the_chip_where_its_parts_have_room(kernel, hidden, cell, with_tf32, without):
    """TF32 takes one part of each value, the accuracy of fp32 two."""
    found = []
    for allowed in (True, False):
        with tf32(allowed):
            found.append(choose(kernel, 64, hidden, cell, torch.float32)[0].resident)
    assert found == [with_tf32, without]


def test_few_rows_get_small_tiles_and_many_rows_large_ones_first():
    few, many = choose("backward", 16, 48), choose("backward", 4096, 48)
    assert few[0].rows == 16
    assert many[0].rows == 64
    assert set(few) < set(many)


@pytest.mark.parametrize(("kernel", "hidden"), H200.registers)
def test_launches_with_w_hh_in_registers_have_room_for_it(kernel, hidden):
    for rows in (1, 1024, 8192):
        gates = torch.empty(rows, 1, 1, 16 * hidden, dtype=torch.bfloat16, device="meta")
        weight_hh = torch.empty(4, 4 * hidden, hidden, device="meta")
        launches = tuning.choose_register_launches(kernel, gates, weight_hh, (0, 1, 2, 3))
        assert launches[-1].stages == 2, (hidden, rows)  # the least that a ring works with
        for launch in launches:
            units = 8 * launch.warps
            assert hidden % units == 0, (hidden, rows)
            tiles = (hidden // units) ** 2 if launch.register_tiles is None else launch.register_tiles
            # Of 255 registers a thread; two values in each.
            assert tiles * 4 * units * units / 2 / (32 * launch.warps) <= 160, (hidden, rows)
            assert launch.rows % (16 if kernel == "backward" else 8) == 0, (hidden, rows)
            # The ring holds a step's gates, in backward also c and the gradient of h.
            values = (6 if kernel == "backward" else 4) * hidden * launch.rows * launch.stages
            values += (5 if kernel == "training" else 4 if kernel == "backward" else 0) * hidden * launch.rows
            assert 2 * (values + launch.shared_tiles * 4 * units * units) <= H200.spread_bytes, (hidden, rows)


def test_a_spread_w_hh_needs_the_shared_memory_of_an_h200():
    runs = {hidden: [H200.runs_in_registers(hidden, 1024 * kib) for kib in (99, 163, 227)] for hidden in (96, 192, 160)}
    assert runs == {96: [True, True, True], 192: [False, False, True], 160: [False, False, False]}


class Device:
    """Starts kernels of at most `size`, which stands for shared memory, and notes what was tried."""

    def __init__(self, size):
        self.size, self.tried = size, []

    def start(self, candidate):
        from triton.runtime.errors import OutOfResources

        self.tried.append(candidate)
        if candidate > self.size:
            raise OutOfResources(candidate, self.size, "shared memory")


@pytest.fixture
def first_that_fits(monkeypatch):
    launching = pytest.importorskip("sequencer2d.ops.kernels.launching", reason="Triton is not installed")
    monkeypatch.setattr(launching, "_REFUSED", set())
    return launching.first_that_fits


def test_what_did_not_fit_is_tried_once_for_each_device(first_that_fits):
    small, large = Device(2), Device(9)
    for device, key in ((small, ("small",)), (large, ("large",)), (small, ("small",))):
        first_that_fits(key, (8, 4, 2, 1), device.start)
    assert small.tried == [8, 4, 2, 2]
    assert large.tried == [8]


def test_when_nothing_fits_the_error_is_tritons(first_that_fits):
    with pytest.raises(Exception, match="out of resource"):
        first_that_fits((), (8, 4), Device(1).start)


def test_hidden_units_are_padded_to_what_registers_hold_if_few_are_added():
    padded = {hidden: H200.padded_hidden(hidden, 227 * 1024) for hidden in (16, 32, 33, 48, 65, 100, 129, 200, 257)}
    assert padded == {16: 16, 32: 32, 33: 48, 48: 48, 65: 96, 100: 128, 129: 192, 200: 256, 257: 257}
    assert H200.padded_hidden(160, 99 * 1024) == 160
