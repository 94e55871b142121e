"""Grids and constants with which the host launches kernels, by hand; nothing is launched."""

import pytest
import torch

from sequencer2d.ops import devices
from sequencer2d.ops.launches import RegisterLaunch

pytest.importorskip("triton", reason="Triton is not installed")


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[int, ...], tuple, dict]]:
    """What would be launched: (kernel, grid, arguments, options); nothing is kept."""
    from sequencer2d.ops.kernels import launching, prepared

    seen: list[tuple[str, tuple[int, ...], tuple, dict]] = []
    monkeypatch.setattr(prepared, "repeat", lambda *_: False)
    monkeypatch.setattr(prepared, "keep", lambda *_: None)
    monkeypatch.setattr(
        launching, "run_kernel", lambda kernel, grid, *given, **named: seen.append((str(kernel), grid, given, named))
    )
    return seen


@pytest.mark.parametrize(
    ("rows", "inputs", "outputs", "grid", "chunk", "chunks", "columns", "warps"),
    [
        (20, 192, 300, (3, 1), 64, 3, 128, 4),
        (64, 16, 128, (1, 1), 16, 1, 128, 4),
        (65, 208, 128, (2, 2), 16, 13, 64, 8),
        (130, 384, 129, (3, 3), 128, 3, 64, 8),
        (1, 256, 64, (1, 1), 128, 2, 64, 8),
    ],
)
def test_a_normed_product_is_cut_into_tiles(launched, rows, inputs, outputs, grid, chunk, chunks, columns, warps):
    from sequencer2d.ops.kernels import triton_linear_launch

    x, shift = torch.empty(rows, inputs), torch.empty(inputs)
    weight, bias = torch.empty(outputs, inputs), torch.empty(outputs)
    out = triton_linear_launch.launch_normed_linear(
        x, shift, weight, bias, 1e-6, gelu=True, approximate_tanh=False, early_start=False
    )
    assert out.shape == (rows, outputs)
    ((_, found, given, options),) = launched
    assert found == grid
    assert given[5:] == (rows, outputs, 1e-6)
    assert options == {
        "K": inputs, "KC": chunk, "NK": chunks, "R": 64, "T": columns, "GELU": True, "APPROX_TANH": False,
        "EARLY_START": False, "num_warps": warps,
    }  # fmt: skip


@pytest.mark.parametrize(("inputs", "lines"), [(16, 1), (64, 1), (80, 2), (192, 4), (576, 16)])
def test_an_added_product_is_cut_into_tiles(launched, inputs, lines):
    from sequencer2d.ops.kernels import triton_linear_launch

    total, x, weight = torch.empty(2, 33, 70), torch.empty(2, 33, inputs), torch.empty(70, inputs)
    triton_linear_launch.launch_add_linear(total, x, weight, early_start=True)
    ((_, grid, given, options),) = launched
    assert (grid, given[3:]) == ((3, 2), (66, 70))
    assert options["KC"] * options["NK"] == inputs
    assert {name: options[name] for name in ("R", "T", "STAGES", "CACHE_LINES", "num_warps", "launch_pdl")} == {
        "R": 64, "T": 32, "STAGES": 4, "CACHE_LINES": lines, "num_warps": 4, "launch_pdl": True,
    }  # fmt: skip


def test_products_of_nothing_are_not_launched(launched):
    from sequencer2d.ops.kernels import triton_linear_launch

    triton_linear_launch.launch_add_linear(
        torch.empty(0, 16), torch.empty(0, 16), torch.empty(16, 16), early_start=True
    )
    assert launched == []


def test_the_weight_gradient_is_cut_so_that_all_programs_run_at_a_time(monkeypatch):
    from sequencer2d.ops.kernels import triton_launch

    monkeypatch.setattr(triton_launch, "multiprocessors", lambda _: 132)
    cut, cpu = triton_launch._weight_tiling.__wrapped__, torch.device("cpu")
    assert cut(6400, 4, 192, cpu) == (25, 256, 3), "3 · 132 programs // (4 scans · 3 tiles) = 33 splits of 194 tokens"
    assert cut(10, 4, 65, cpu) == (1, 64, 2)
    assert cut(128, 1000, 64, cpu) == (1, 128, 1)
    assert cut(65, 4, 64, cpu) == (2, 64, 1)


def test_tiles_of_w_hh_from_memory_are_spread_evenly():
    from sequencer2d.ops.kernels.spread import MEMORY, REGISTERS, SHARED, tile_places

    found = tile_places(RegisterLaunch(8, 8, 2, 1, 3, 5), 256)
    quick = [REGISTERS] * 3 + [SHARED] * 5
    assert found["PLACES"] == tuple(place for one in quick for place in (one, MEMORY))
    assert found["STREAMED"] == (1, 1, 3, 3, 5, 5, 7, 7, 9, 9, 11, 11, 13, 13, 15, 15, -1)
    assert tile_places(RegisterLaunch(8, 8, 4, 1), 128) == {"PLACES": (), "STREAMED": ()}
    all_fit = tile_places(RegisterLaunch(8, 8, 2, 1, 2, 9), 128)
    assert all_fit == {"PLACES": (REGISTERS, REGISTERS, SHARED, SHARED), "STREAMED": (-1,) * 5}


@pytest.mark.parametrize(("family", "count", "size"), [("shared", 3, "D"), ("products", 2, "K"), ("blocks", 7, "")])
def test_a_family_is_compiled_at_its_smallest_size(launched, family, count, size):
    devices._COMPILE[family](torch.device("cpu"))
    assert len(launched) == count
    for _, _, _, options in launched:
        assert 16 in [options.get(name) for name in ([size] if size else ["C", "M"])]


def test_the_derivative_of_gelu_runs_a_program_for_256_columns(launched):
    from sequencer2d.ops.kernels import triton_block_launch

    grad, sums = torch.empty(18, 257), torch.empty(2, 600)
    active = triton_block_launch.gelu_backward_(grad, grad, sums, 32)
    assert active.shape == grad.shape
    ((_, grid, given, options),) = launched
    assert (grid, given[4:]) == ((2, 2), (18, 600, 32))
    assert options == {"M": 257, "T": 256, "R": 8, "num_warps": 8}
    triton_block_launch.add_norm(grad, None, None, sums, sums, 1e-6)
    assert launched[-1][1] == (3,)
    assert launched[-1][3] == {
        "CP": 512, "R": 8, "num_warps": 8, "C": 257, "HAS_BRANCH": False, "HAS_MASK": False,
    }  # fmt: skip
