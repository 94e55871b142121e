"""A small block, tokens for it, and what tests of its one node ask."""

import contextlib

import pytest
import torch
from torch import nn

from sequencer2d.nn import blocks
from sequencer2d.nn.blocks import SequencerBlock


def make_block(device, dtype=torch.float32, **options):
    torch.manual_seed(0)
    block = SequencerBlock(32, 16, **({"implementation": "triton"} | options)).to(device, dtype)
    for norm in (block.norm1, block.norm2):  # otherwise scales are 1, and a mistake in them does not show
        nn.init.normal_(norm.weight, 1, 0.3)
        nn.init.normal_(norm.bias, 0, 0.3)
    return block


def tokens(device, dtype=torch.float32):
    torch.manual_seed(1)
    return torch.randn(3, 4, 5, 32, device=device, dtype=dtype)


def is_one_node(out):
    return out.grad_fn is not None and type(out.grad_fn).__name__ == "BlockBackward"


@contextlib.contextmanager
def layer_by_layer():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "run_as_one_node", lambda *_: None)
        yield


def solve(block, x, autocast=None):
    """The output and all gradients, that of the tokens first."""
    x = x.clone().requires_grad_()
    torch.manual_seed(2)
    with torch.autocast(x.device.type, autocast) if autocast else contextlib.nullcontext():
        out = block(x)
    grad = torch.linspace(-1, 1, out.numel(), device=x.device).view(out.shape).to(out.dtype)
    return [out, *torch.autograd.grad(out, [x, *block.parameters()], grad)]


def error(value, exact):
    return ((value.double() - exact).norm() / exact.norm()).item()


def expected(block, x):
    with torch.no_grad(), layer_by_layer():
        return block(x)
