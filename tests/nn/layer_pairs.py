"""torch's recurrent layers beside ours, and what they return, for comparing them."""

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

import sequencer2d.nn as ours

NAMES = ("LSTM", "GRU", "RNN")


def pair(name, *sizes, implementation="auto", **options):
    """torch's layer and ours with the same weights."""
    torch.manual_seed(0)
    theirs = getattr(nn, name)(*sizes, **options)
    layer = getattr(ours, name)(*sizes, implementation=implementation, **options)
    layer.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, layer


def states(name, layer, sequences, dtype, device="cpu"):
    directions = 2 if layer.bidirectional else 1
    shape = (layer.num_layers * directions, sequences, layer.hidden_size)
    count = 2 if name == "LSTM" else 1
    made = [torch.randn(shape, dtype=dtype, device=device, requires_grad=True) for _ in range(count)]
    return made, tuple(made) if count == 2 else made[0]


def tensors(results):
    """Output and last states as a list."""
    out, last = results
    out = out.data if isinstance(out, PackedSequence) else out
    return [out, *(last if isinstance(last, tuple) else (last,))]


def solve(layer, x, hx, extra):
    """Output, last states, and the gradients of x, the parameters and the first states."""
    results = tensors(layer(x, hx))
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(r.shape, generator=generator).to(r) for r in results]
    loss = sum((r * w).sum() for r, w in zip(results, weights, strict=True))
    return results + list(torch.autograd.grad(loss, [*extra, *layer.parameters()]))


def worst(values, expected):
    errors = [
        (v.double() - e.double()).norm() / e.double().norm().clamp_min(1e-12)
        for v, e in zip(values, expected, strict=True)
    ]
    return max(error.item() for error in errors)
