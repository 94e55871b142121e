"""Speed up models that others built: timm's and the authors' token mixers, replaced in place by ours.

The replacement holds the same parameters under the same names in the same order, so optimisers, weight averages, state
dicts and checkpoints go on working.
"""

from dataclasses import dataclass

import torch
from torch import nn

from sequencer2d.errors import InputError
from sequencer2d.nn.rnn2d import RNN2D

_CELLS: dict[type[nn.Module], str] = {nn.LSTM: "lstm", nn.GRU: "gru", nn.RNN: "rnn"}


@dataclass(frozen=True)
class Replaced:
    """One module that `fuse` replaced: its path in the model, what it was and what it is."""

    path: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.path}: {self.before} → {self.after}"


def fuse(model: nn.Module, implementation: str = "auto") -> list[Replaced]:
    """Replace every recurrent token mixer of `model` by `sequencer2d.nn.rnn2d.RNN2D`, in place, sharing its parameters.

    Args:
        model: a Sequencer of timm's or the authors' code, or any model that holds their mixers: modules with `rnn_v`
            and `rnn_h`, recurrent layers over the columns and the rows of (B, H, W, C).
        implementation: of the recurrence, see `sequencer2d.ops.rnn2d`.

    Returns:
        What was replaced; empty for a model that has our mixers already.

    Raises:
        InputError: the model has no such mixer, or one that ours cannot stand for (several layers, projections, no
            biases), named with the reason. Nothing is replaced then.
    """
    found = [(path, module) for path, module in model.named_modules() if _is_mixer(module)]
    if not found and not any(isinstance(module, RNN2D) for module in model.modules()):
        name = type(model).__name__
        raise InputError(f"{name} has no recurrent token mixer (a module with rnn_v and rnn_h): nothing to fuse")
    if isinstance(model, RNN2D) or any(path == "" for path, _ in found):
        raise InputError("the model is a mixer itself: it cannot be replaced in place; give the model that holds it")
    converted = [(path, module, _convert(path, module, implementation)) for path, module in found]
    report = []
    for path, module, mixer in converted:
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, mixer)
        report.append(Replaced(path, type(module).__name__, f"RNN2D({mixer.extra_repr()})"))
    return report


def _is_mixer(module: nn.Module) -> bool:
    return not isinstance(module, RNN2D) and bool(_layers(module))


def _layers(module: nn.Module) -> dict[str, nn.RNNBase]:
    """The recurrent layers of a mixer by name, vertical first."""
    layers = {name: getattr(module, name, None) for name in ("rnn_v", "rnn_h")}
    return {name: layer for name, layer in layers.items() if isinstance(layer, nn.RNNBase) and type(layer) in _CELLS}


def _convert(path: str, module: nn.Module, implementation: str) -> RNN2D:
    layers = _layers(module)
    first = next(iter(layers.values()))
    for name, layer in layers.items():
        _check(f"{path}.{name}", layer, first)
    fc = getattr(module, "fc", None)
    fused = fc is not None and not isinstance(fc, nn.Identity)
    summed = len(layers) == 2 and getattr(module, "union", "cat") == "add"
    if summed and not fused:
        raise InputError(f"{path} adds its axes without a linear layer after them, which the replacement cannot do")
    # Built without memory of its own: every parameter comes from the layers it stands for.
    with torch.device("meta"):
        mixer = RNN2D(
            first.input_size,
            first.hidden_size,
            cell=_CELLS[type(first)],
            axes="both" if len(layers) == 2 else {"rnn_v": "vertical", "rnn_h": "horizontal"}[next(iter(layers))],
            bidirectional=first.bidirectional,
            fusion=("add" if summed else "concat") if fused else "none",
            implementation=implementation,
        )
    for name, layer in layers.items():
        for parameter_name, parameter in layer.named_parameters():
            setattr(getattr(mixer, name), parameter_name, parameter)
    if fused:
        mixer.add_module("fc", fc)
    _order_as(mixer, module)
    return mixer.train(module.training)


def _order_as(mixer: nn.Module, module: nn.Module) -> None:
    """Give the children of `mixer` the order they have in `module`: optimisers and some EMAs go by position."""
    for name in [name for name, _ in module.named_children() if hasattr(mixer, name)]:
        child = mixer.get_submodule(name)
        delattr(mixer, name)
        mixer.add_module(name, child)


def _check(path: str, layer: nn.RNNBase, first: nn.RNNBase) -> None:
    """Raise InputError unless one layer of ours can stand for it and both axes are alike."""
    reasons = {
        f"{layer.num_layers} layers": layer.num_layers != 1,
        "no biases": not layer.bias,
        "projections": getattr(layer, "proj_size", 0) != 0,
        "batch_first=False": not layer.batch_first,
        "a ReLU cell": getattr(layer, "nonlinearity", "tanh") == "relu",
        "another size or kind than the other axis": _kind(layer) != _kind(first),
    }
    for reason, holds in reasons.items():
        if holds:
            raise InputError(
                f"cannot fuse {path}: it has {reason}; the replacement is one layer with biases, batch first"
            )


def _kind(layer: nn.RNNBase) -> tuple[type, int, int, bool]:
    return type(layer), layer.input_size, layer.hidden_size, layer.bidirectional
