"""What a drop-in layer asks of the host in eager PyTorch, where small layers wait for it. No kernel runs here."""

import pytest
import torch

from sequencer2d.ops import devices, scan_kernels
from tests.nn.layer_pairs import pair


@pytest.fixture(autouse=True)
def kernels_that_do_nothing(monkeypatch):
    """The scans only allocate what they return, as the kernels with W_hh in registers do."""

    def scan(gates, weight_hh, inner_bias, scans, cell, save, first=None, last=None):
        out = gates.new_empty(*gates.shape[:-1], len(scans) * weight_hh.shape[-1])
        return (out, torch.empty_like(out), torch.empty_like(gates)) if save else (out, *[gates.new_empty(0)] * 2)

    def scan_backward(grad_out, gates, weight_hh, *_, **__):
        grad_weight = torch.empty_like(weight_hh, dtype=torch.float32)
        return torch.empty_like(gates), grad_weight, grad_weight.new_empty(weight_hh.shape[:-1])

    monkeypatch.setattr(devices, "_ask", lambda *_: None)
    monkeypatch.setattr(devices, "interpreting", lambda: True)
    monkeypatch.setattr(scan_kernels, "scan", scan)
    monkeypatch.setattr(scan_kernels, "scan_backward", scan_backward)


def operators(call):
    """The operators that a call runs, those inside of others included, by name."""
    call()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
    return [event.name for event in profile.events() if event.name.startswith("aten::")]


# What launches a kernel on a GPU. A conversion or a copy by `contiguous` appears as one of the last two.
LAUNCHES = {f"aten::{name}" for name in ("_foreach_copy_", "add", "addmm", "mm", "cat", "sum", "_to_copy", "clone")}


@pytest.mark.parametrize(
    "dtype, bidirectional, inference, training",
    [
        (torch.bfloat16, True, (60, 4), (118, 9)),
        (torch.bfloat16, False, (30, 3), (80, 8)),
        (torch.float32, True, (60, 4), (110, 7)),
    ],
)
def test_operators_and_launches_of_a_layer_stay_few(dtype, bidirectional, inference, training):
    """Apart from the scans themselves: two in backward, one in forward, and the sums of the weight gradient's parts."""
    layer = pair("LSTM", 16, 24, batch_first=True, bidirectional=bidirectional, implementation="triton")[1].to(dtype)
    x = torch.randn(2, 3, 16, dtype=dtype)
    leaf, grad = x.clone().requires_grad_(), torch.randn(2, 3, 48 if bidirectional else 24, dtype=dtype)

    def infer():
        with torch.no_grad():
            layer(x)

    def train():
        torch.autograd.grad(layer(leaf)[0], [leaf, *layer.parameters()], grad)

    for call, most in ((infer, inference), (train, training)):
        found = operators(call)
        assert len(found) <= most[0], found
        assert sum(name in LAUNCHES for name in found) <= most[1], found
