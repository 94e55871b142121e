"""Speed up models that others built: `fuse` puts our token mixers and recurrent layers in the place of theirs.

Replacements hold the same parameters under the same names in the same order, so optimizers, weight averages, state
dicts and checkpoints go on working.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from sequencer2d.errors import InputError
from sequencer2d.models.exact import HOOKS, peculiarity, share_hooks
from sequencer2d.models.fusing_mixers import Replaced, fuse_mixers
from sequencer2d.nn.recurrent import GRU, LSTM, RNN
from sequencer2d.nn.rnn2d import RNN2D

OURS: dict[type[nn.RNNBase], type[nn.RNNBase]] = {nn.LSTM: LSTM, nn.GRU: GRU, nn.RNN: RNN}


@dataclass(frozen=True)
class Left:
    """One recurrent layer that `fuse` left: its path in the model, its class, and why, as the end of a sentence."""

    path: str
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.kind} stays: it {self.reason}"


class Report(list[Replaced]):
    """What `fuse` replaced. `print` shows it a line each, and after it what was left.

    Attributes:
        left: the recurrent layers that were left as they were.
    """

    def __init__(self, replaced: list[Replaced], left: list[Left]) -> None:
        super().__init__(replaced)
        self.left = left

    def __str__(self) -> str:
        return "\n".join(str(entry) for entry in (*self, *self.left)) or "nothing to replace"


def fuse(model: nn.Module, implementation: str = "auto") -> Report:
    """Replace the recurrent token mixers and the recurrent layers of `model` by ours, in place, sharing parameters.

    Mixers of timm's or the authors' Sequencers (modules with `rnn_v` and `rnn_h` over (B, H, W, C)) become
    `sequencer2d.nn.rnn2d.RNN2D`; every other `torch.nn.LSTM`, `GRU` and `RNN` becomes `sequencer2d.nn.LSTM`, `GRU` or
    `RNN`. Hooks move to the replacement.

    A layer stays, and the report says why, if it is more than an instance of torch's class: a subclass, one with
    parametrized, pruned or quantized weights, or with projections. A reference to a layer that the model keeps outside
    of its modules, in a list or a bound method, still leads to the old one.

    Args:
        model: any model.
        implementation: of the recurrences, see `sequencer2d.ops.rnn2d`.

    Returns:
        What was replaced, a list, and in its `left` what was not.

    Raises:
        InputError: the model has no recurrence, is a recurrent layer or a mixer itself, or has a mixer that ours cannot
            stand for, named with the reason and the remedy. Nothing is replaced then.
    """
    if type(model) in OURS:
        raise InputError("the model is a recurrent layer itself: it cannot be replaced in place; give what holds it")
    mixers = fuse_mixers(model, implementation)
    layers = [(path, part) for path, part in model.named_modules(remove_duplicate=False) if _is_layer(part)]
    if not mixers and not layers and not any(isinstance(part, (RNN2D, *OURS.values())) for part in model.modules()):
        raise InputError(f"{type(model).__name__} has no recurrent layer and no recurrent token mixer: nothing to fuse")
    replaced, left, made = list(mixers), [], dict[nn.Module, nn.RNNBase]()
    for path, layer in layers:
        kind = f"{type(layer).__name__}({layer.extra_repr()})"
        if reason := _reason_to_stay(layer):
            left.append(Left(path, kind, reason))
            continue
        if layer not in made:
            made[layer] = _convert(layer, implementation)
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, made[layer])
        replaced.append(Replaced(path, kind, f"sequencer2d.nn.{type(made[layer]).__name__}"))
    return Report(replaced, left)


def _is_layer(module: nn.Module) -> bool:
    """Whether it is a recurrent layer of torch's, or derives from one, and not ours."""
    return isinstance(module, nn.RNNBase) and not isinstance(module, tuple(OURS.values()))


def _reason_to_stay(layer: Any) -> str | None:
    """Why a layer cannot be replaced, as the end of a sentence; None if it can."""
    if parametrize.is_parametrized(layer):
        return peculiarity(layer)
    if type(layer) not in OURS:
        return f"is a {type(layer).__name__}, which may do more than a recurrent layer of torch"
    if layer.proj_size:
        return "has projections, which the replacement lacks"
    if layer.mode == "RNN_RELU":
        return "has ReLU, for which there are no kernels"
    # A hook of pruning, of a weight norm or of a spectral norm writes the weights of the module that it was made for.
    hooks = [hook for table in HOOKS for hook in (getattr(layer, table, None) or {}).values()]
    if any(type(hook).__module__.startswith("torch.nn.utils") for hook in hooks):
        return "has a hook that computes its weights: remove it by its own function first"
    return peculiarity(layer, ignore_hooks=True)


def _convert(layer: Any, implementation: str) -> nn.RNNBase:
    options = {"num_layers": layer.num_layers, "bias": layer.bias, "batch_first": layer.batch_first}
    options |= {"dropout": layer.dropout, "bidirectional": layer.bidirectional, "implementation": implementation}
    # Built without memory of its own: every parameter comes from the layer it stands for.
    with torch.device("meta"):
        ours = OURS[type(layer)](layer.input_size, layer.hidden_size, **options)
    for name, parameter in layer.named_parameters():
        setattr(ours, name, parameter)
    ours.train(layer.training)
    share_hooks(layer, ours)
    return ours
