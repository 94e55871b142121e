"""The mode of a model while it is measured."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Run the body with the model in evaluation mode and restore every module's mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def vendor_rnn_backward(model: nn.Module) -> Iterator[None]:
    """Let torch's own recurrent layers (timm's Sequencer has them) run backward in evaluation mode: cuDNN refuses."""
    if torch.is_grad_enabled() and any(isinstance(module, nn.RNNBase) for module in model.modules()):
        with torch.backends.cudnn.flags(enabled=False):
            yield
    else:
        yield
