"""A launch through a handle is the launch that Triton's Python would do."""

import pytest
import torch

from tests.ops.test_compiling import check_repeated, missing_compiler, repeated_launches

prepared = pytest.importorskip("sequencer2d.ops.kernels.prepared", reason="Triton is not installed")

KERNELS = [
    "forward_kernel", "backward_kernel", "weight_gradient_kernel", "forward_kernel", "backward_kernel",
    "forward_kernel", "backward_kernel",
    "add_norm_kernel", "add_norm_backward_kernel", "mask_kernel", "gelu_backward_kernel", "normed_linear_kernel",
    "add_linear_kernel",
]  # fmt: skip


class Compiled:
    """A binary that notes its launches."""

    packed_metadata = None

    def __init__(self):
        self.launched = []

    def __getitem__(self, grid):
        return lambda *arguments, stream: self.launched.append((grid, arguments, stream))


class Kernel:
    arg_names = ("x", "y", "rows", "SIZE")


@pytest.fixture(autouse=True)
def stream(monkeypatch):
    monkeypatch.setattr(prepared, "_HANDLES", {})
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda device: 7, raising=False)


def a_handle(*tensors):
    compiled = Compiled()
    return prepared.make_handle(Kernel, compiled, (3,), (*tensors, 5), {"SIZE": 16, "num_warps": 4}), compiled


def test_kernels_get_from_a_handle_what_they_get_from_triton():
    reason = missing_compiler()
    if reason:
        pytest.skip(reason)
    check_repeated(repeated_launches(), KERNELS)


def test_other_tensors_take_the_place_of_the_first_ones():
    handle, compiled = a_handle(torch.zeros(4), torch.zeros(4))
    x, y = torch.zeros(4), torch.zeros(4)
    prepared.keep("key", handle)
    assert prepared.repeat("key", x, y)
    assert compiled.launched == [((3, 1, 1), (x.data_ptr(), y.data_ptr(), 5, 16), 7)]
    assert not prepared.repeat("another key", x, y)
    assert len(compiled.launched) == 1


def test_tensors_at_other_addresses_than_the_binary_is_for_are_not_launched():
    handle, compiled = a_handle(torch.zeros(4), torch.zeros(4))
    prepared.keep("key", handle)
    assert not prepared.repeat("key", torch.zeros(4), torch.zeros(5)[1:])
    assert compiled.launched == []
    assert a_handle(torch.zeros(4), torch.zeros(5)[1:])[0] is None


def test_tensors_of_other_dtypes_than_the_binary_is_for_are_not_launched():
    handle, compiled = a_handle(torch.zeros(4), torch.zeros(4))
    prepared.keep("key", handle)
    assert not prepared.repeat("key", torch.zeros(4), torch.zeros(4).half())
    assert compiled.launched == []


class Loaded:
    """A binary that is started by Triton's own code."""

    function, packed_metadata, name, src = 11, b"packed", "kernel", None

    def __init__(self):
        from triton.compiler.compiler import CompiledKernel

        self.started, kind = [], type(self)
        kind.__getitem__, kind.launch_metadata = CompiledKernel.__getitem__, CompiledKernel.launch_metadata

    def _init_handles(self):
        pass

    def run(self, *arguments):
        self.started.append(arguments)


def test_without_profilers_a_binary_is_started_as_triton_does_it_and_with_them_by_triton():
    knobs = pytest.importorskip("triton.knobs")
    compiled, observe = Loaded(), [].append
    x, y = torch.zeros(4), torch.zeros(4)
    handle = prepared.make_handle(Kernel, compiled, (3,), (x, y, 5), {"SIZE": 16})
    arguments = (x.data_ptr(), y.data_ptr(), 5, 16)
    handle.launch([x.data_ptr(), y.data_ptr()])
    assert compiled.started == [(3, 1, 1, 7, 11, b"packed", None, None, None, *arguments)]
    knobs.runtime.launch_enter_hook.add(observe)
    try:
        handle.launch([x.data_ptr(), y.data_ptr()])
    finally:
        knobs.runtime.launch_enter_hook.remove(observe)
    chains = knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook
    (*start, metadata, before, after), rest = compiled.started[1][:9], compiled.started[1][9:]
    assert start == [3, 1, 1, 7, 11, b"packed"]
    assert metadata is not None
    assert ((before, after), rest) == (chains, arguments)


def test_a_triton_that_starts_binaries_in_another_way_does_it_itself():
    compiled = Loaded()
    kind = type(compiled)
    kind.__getitem__ = lambda self, grid: lambda *arguments, stream: self.run(stream, *grid, *arguments)
    x, y = torch.zeros(4), torch.zeros(4)
    prepared.make_handle(Kernel, compiled, (3,), (x, y, 5), {"SIZE": 16}).launch([x.data_ptr(), y.data_ptr()])
    assert compiled.started == [(7, 3, 1, 1, x.data_ptr(), y.data_ptr(), 5, 16)]


def test_what_the_interpreter_runs_has_no_handle():
    assert prepared.make_handle(Kernel, None, (3,), (torch.zeros(4), torch.zeros(4), 5), {"SIZE": 16}) is None


def test_handles_are_bounded(monkeypatch):
    monkeypatch.setattr(prepared, "MAX_HANDLES", 3)
    handle, _ = a_handle(torch.zeros(4), torch.zeros(4))
    for key in range(5):
        prepared.keep(key, handle)
    assert list(prepared._HANDLES) == [2, 3, 4]
    prepared.keep("none", None)
    assert "none" not in prepared._HANDLES
