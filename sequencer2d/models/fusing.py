"""Speed up models that others built: `fuse` puts our token mixers and recurrent layers in the place of theirs.

Replacements hold the same parameters under the same names in the same order, so optimizers, weight averages, state
dicts and checkpoints go on working.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from sequencer2d.errors import ConfigError, InputError
from sequencer2d.models.exact import HOOKS, peculiarity, share_hooks, unusual_state
from sequencer2d.models.fusing_mixers import Replaced, fuse_mixers
from sequencer2d.nn.recurrent import GRU, LSTM, RNN
from sequencer2d.nn.rnn2d import RNN2D
from sequencer2d.ops import IMPLEMENTATIONS

OURS: dict[type[nn.RNNBase], type[nn.RNNBase]] = {nn.LSTM: LSTM, nn.GRU: GRU, nn.RNN: RNN}
_ALREADY: tuple[type[nn.Module], ...] = (RNN2D, *OURS.values())


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

    A layer stays, and the report says why, if it is not just an instance of torch's class: a subclass, one with
    parametrized, pruned or quantized weights, with projections, with parameters, buffers or modules of its own, or
    compiled in place. So do cells (`torch.nn.LSTMCell`), and what is ours already. A reference to a layer that the
    model keeps outside of its modules, in a list or a bound method, still leads to the old one.

    Args:
        model: any model.
        implementation: of the recurrences, see `sequencer2d.ops.rnn2d`.

    Returns:
        What was replaced, a list, and in its `left` what was not.

    Raises:
        InputError: the model is no module, has no recurrence, is a recurrent layer or a mixer itself, or has a mixer
            that ours cannot stand for, named with the reason and the remedy. Nothing is replaced then.
        ConfigError: an unknown implementation.
    """
    _check(model, implementation)
    already: list[tuple[str, Any]] = [named for named in model.named_modules() if isinstance(named[1], _ALREADY)]
    mixers = fuse_mixers(model, implementation)
    layers = [(path, part) for path, part in model.named_modules(remove_duplicate=False) if _is_layer(part)]
    if not (mixers or layers or already):
        raise InputError(f"{type(model).__name__} has no recurrent layer and no recurrent token mixer: nothing to fuse")
    reasons = {part: _reason_to_stay(part) for _, part in layers}
    made = {part: _convert(part, implementation) for part, reason in reasons.items() if reason is None}
    report = Report(mixers, [Left(path, _kind(part), reason) for path, part in layers if (reason := reasons[part])])
    for path, layer in layers:
        if layer in made:
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, made[layer])
            report.append(Replaced(path, _kind(layer), f"sequencer2d.nn.{type(made[layer]).__name__}"))
    for path, part in already:
        if implementation not in ("auto", part.implementation):
            reason = f"is ours already: its set_implementation({implementation!r}) changes how it runs"
            report.left.append(Left(path, f"sequencer2d.nn.{type(part).__name__}", reason))
    return report


def _check(model: Any, implementation: str) -> None:
    """Raise InputError or ConfigError for what cannot be fused at all."""
    if implementation not in IMPLEMENTATIONS:
        raise ConfigError(f"unknown implementation {implementation!r}; choose one of {', '.join(IMPLEMENTATIONS)}")
    if not isinstance(model, nn.Module):
        raise InputError(f"fuse() takes a model, a torch.nn.Module, and changes it in place; got {_described(model)}")
    if _is_layer(model):
        kind = type(model).__name__
        raise InputError(
            f"the model is a recurrent layer itself ({kind}): it cannot be replaced in place; give what holds it, or "
            "load its state dict into a layer of sequencer2d.nn"
        )


def _described(given: Any) -> str:
    return f"the class {given.__name__}" if isinstance(given, type) else f"an object of type {type(given).__name__}"


def _is_layer(module: nn.Module) -> bool:
    """Whether it is a recurrent layer or cell of torch's, or derives from one, and is not ours."""
    if isinstance(module, torch.jit.ScriptModule):
        return module.original_name in {kind.__name__ for kind in OURS}
    is_torchs = isinstance(module, (nn.RNNBase, nn.RNNCellBase)) or _is_quantized(module)
    return is_torchs and not isinstance(module, tuple(OURS.values()))


def _is_quantized(module: nn.Module) -> bool:
    # The module where PyTorch keeps its quantized layers and cells, and their parts. It warns when it is imported.
    return type(module).__module__.endswith("quantized.dynamic.modules.rnn") and hasattr(module, "hidden_size")


def _kind(layer: nn.Module) -> str:
    return f"{type(layer).__name__}({layer.extra_repr()})"


def _reason_to_stay(layer: Any) -> str | None:
    """Why a layer cannot be replaced, as the end of a sentence; None if it can."""
    if isinstance(layer, torch.jit.ScriptModule):
        return "is scripted, which the replacement cannot be: fuse the eager model, and export or trace that one"
    if _is_quantized(layer):
        return "is quantized: fuse the model in floating point"
    if parametrize.is_parametrized(layer):
        return peculiarity(layer)
    if isinstance(layer, nn.RNNCellBase):
        return "runs one step at a call: a layer that gets all steps at once can be replaced"
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
    return peculiarity(layer, ignore_hooks=True) or unusual_state(layer)


def _convert(layer: Any, implementation: str) -> nn.RNNBase:
    options = {"num_layers": layer.num_layers, "bias": layer.bias, "batch_first": layer.batch_first}
    options |= {"dropout": layer.dropout, "bidirectional": layer.bidirectional, "implementation": implementation}
    # Built without memory of its own: every parameter comes from the layer it stands for.
    with torch.device("meta"):
        ours = OURS[type(layer)](layer.input_size, layer.hidden_size, **options)
    for name, parameter in layer.named_parameters(remove_duplicate=False):
        setattr(ours, name, parameter)
    # What torch's layers remember of their weights: without it the first forward would lay them out in memory again.
    ours._flat_weight_refs = list(layer._flat_weight_refs)
    ours.train(layer.training)
    for name, value in vars(layer).items():
        if name not in vars(ours):
            setattr(ours, name, value)  # what the model's code keeps on the layer
    share_hooks(layer, ours)
    return ours
