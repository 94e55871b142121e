"""Replace timm's and the authors' token mixers in place by ours: the part of `fuse` that knows Sequencers.

The replacement holds the same parameters under the same names in the same order, so optimizers, weight averages, state
dicts and checkpoints go on working.
"""

import copy
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from sequencer2d.errors import InputError
from sequencer2d.models.exact import full_name, peculiarity, share_hooks, unusual_state
from sequencer2d.nn.rnn2d import RNN2D
from sequencer2d.ops import CELLS

_AXES = ("rnn_v", "rnn_h")
_TIMMS_BLOCK = "timm.models.sequencer.Sequencer2dBlock"
# Largest relative error of a mixer's output in float64. The order of summation changes it by about 1e-15.
_TOLERANCE = 1e-6
M = TypeVar("M", bound=nn.Module)
_CELLS = {cell.layer: name for name, cell in CELLS.items() if cell.layer is not None}


@dataclass(frozen=True)
class Replaced:
    """One module that `fuse` replaced: its path in the model, what it was and what it is."""

    path: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.path}: {self.before} → {self.after}"


def fuse_mixers(model: nn.Module, implementation: str = "auto") -> list[Replaced]:
    """Replace every recurrent token mixer of `model` by `sequencer2d.nn.rnn2d.RNN2D`, in place, sharing its parameters.

    A mixer is replaced only if it is exactly understood: its recurrent layers are torch's own, without
    parametrizations, pruning or hooks, and on random tokens it returns what its replacement returns. Hooks on the mixer
    itself move to the replacement.

    Args:
        model: a Sequencer of timm's or the authors' code, or any model that holds their mixers: modules with `rnn_v`
            and `rnn_h`, recurrent layers over the columns and the rows of (B, H, W, C).
        implementation: of the recurrence, see `sequencer2d.ops.rnn2d`.

    Returns:
        What was replaced; empty for a model that has none, or has ours already.

    Raises:
        InputError: the model has a mixer that ours cannot stand for, named with the reason and the remedy. Nothing is
            replaced then.
    """
    found, mixers = _understand(model, implementation)
    report = []
    for path, module in found:
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, share_hooks(module, mixers[module]))
        report.append(Replaced(path, type(module).__name__, f"RNN2D({mixers[module].extra_repr()})"))
    _run_timms_blocks_as_ours(model)
    return report


def _run_timms_blocks_as_ours(model: nn.Module) -> None:
    """Give timm's blocks the class that runs them as one autograd node."""
    for block in model.modules():
        if full_name(type(block)) == _TIMMS_BLOCK and type(block.rnn_tokens) is RNN2D:
            from sequencer2d.models.timm_block import EagerSequencer2dBlock  # it imports all of timm's models

            block.__class__ = EagerSequencer2dBlock


def check_fusible(model: nn.Module) -> None:
    """Raise InputError if the model has no mixer or `fuse_mixers` would; nothing is changed."""
    found, _ = _understand(model, "auto")
    if not found and not any(isinstance(module, RNN2D) for module in model.modules()):
        name = type(model).__name__
        raise InputError(f"{name} has no recurrent token mixer (a module with rnn_v and rnn_h)")


def _understand(model: nn.Module, implementation: str) -> tuple[list[tuple[str, nn.Module]], dict[nn.Module, RNN2D]]:
    """Find the model's mixers by path and build the replacement of each. Raises InputError as `fuse_mixers`."""
    found = [(path, module) for path, module in model.named_modules(remove_duplicate=False) if _is_mixer(module)]
    if isinstance(model, RNN2D) or any(path == "" for path, _ in found):
        raise InputError("the model is a mixer itself: it cannot be replaced in place; give the model that holds it")
    mixers: dict[nn.Module, RNN2D] = {}
    for path, module in found:
        if module not in mixers:
            mixers[module] = _convert(path, module, implementation)
    return found, mixers


def _is_mixer(module: nn.Module) -> bool:
    """Whether the module scans columns or rows: its child `rnn_v` or `rnn_h` is a recurrent layer or wraps one."""
    if isinstance(module, RNN2D):
        return False
    children = dict(module.named_children())
    return any(isinstance(part, nn.RNNBase) for name in _AXES if name in children for part in children[name].modules())


def _layers(path: str, module: nn.Module) -> dict[str, nn.RNNBase]:
    """Return the recurrent layers of a mixer by name, vertical first. Raises InputError unless they are torch's own."""
    if reason := peculiarity(module, ignore_hooks=True):
        raise InputError(f"cannot fuse {path}: it {reason}")
    layers: dict[str, nn.RNNBase] = {}
    for name, child in module.named_children():
        if name in _AXES and type(child) in _CELLS:
            layers[name] = child  # type: ignore[assignment]
        elif name in _AXES and any(isinstance(part, nn.RNNBase) for part in child.modules()):
            reason = peculiarity(child) or (
                f"is a {type(child).__name__}, which may do more than a recurrent layer of torch: put an "
                f"{', '.join(f'nn.{kind.__name__}' for kind in _CELLS)} there (adapters: merge them first)"
            )
            raise InputError(f"cannot fuse {path}.{name}: it {reason}")
        elif name not in ("fc", *_AXES):
            raise InputError(
                f"cannot fuse {path}: it has a {type(child).__name__} named {name}, which the replacement lacks; "
                "keep this model as it is, or take the layer out"
            )
    for name, layer in layers.items():
        if reason := peculiarity(layer) or unusual_state(layer):
            raise InputError(f"cannot fuse {path}.{name}: it {reason}")
    return {name: layers[name] for name in _AXES if name in layers}


def _convert(path: str, module: nn.Module, implementation: str) -> RNN2D:
    layers = _layers(path, module)
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
        for parameter_name, parameter in layer.named_parameters(remove_duplicate=False):
            setattr(getattr(mixer, name), parameter_name, parameter)
    if fused:
        mixer.add_module("fc", fc)
    _order_as(mixer, module)
    mixer.train(module.training)
    _check_same_output(path, module, mixer)
    return mixer


def _check_same_output(path: str, module: nn.Module, mixer: RNN2D) -> None:
    """Raise InputError unless both return the same for random tokens: their classes alone do not tell."""
    weight = next(module.parameters())
    if weight.is_meta or not weight.is_floating_point():
        return
    tokens = torch.randn(2, 3, 5, mixer.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            given = _copy_in_float64(module).forward(tokens)
            replacement = _copy_in_float64(mixer)
            replacement.set_implementation("reference")
            ours = replacement(tokens)
        same = given.shape == ours.shape and _error(ours, given) <= _TOLERANCE
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"cannot fuse {path}: it does not map tokens (B, H, W, C) to tokens ({reason})") from error
    if not same:
        raise InputError(
            f"cannot fuse {path}: a {type(module).__name__} returns something else than two recurrent scans, "
            "concatenated or added, and a linear layer; keep it as it is"
        )


def _copy_in_float64(module: M) -> M:
    """A copy in eval mode on the CPU, where every machine has float64. Only weights and children are copied.

    Other attributes, such as hooks and outputs that a module remembers, stay shared: some of them cannot be copied.
    """
    copied = ("_parameters", "_buffers", "_modules")
    shared = {id(value): value for name, value in vars(module).items() if name not in copied}
    return copy.deepcopy(module, shared).to("cpu", torch.float64).eval()


def _error(ours: Tensor, given: Tensor) -> float:
    return float((ours.double() - given.double()).norm() / given.double().norm().clamp_min(1e-12))


def _order_as(mixer: nn.Module, module: nn.Module) -> None:
    """Give the children of `mixer` the order they have in `module`: optimizers and some EMAs go by position."""
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
        "several dtypes": len({parameter.dtype for parameter in layer.parameters()} | {first.weight_hh_l0.dtype}) > 1,
        "another size or kind than the other axis": _kind(layer) != _kind(first),
    }
    for reason, holds in reasons.items():
        if holds:
            raise InputError(
                f"cannot fuse {path}: it has {reason}; the replacement is one layer with biases, batch first"
            )


def _kind(layer: nn.RNNBase) -> tuple[type, int, int, bool]:
    return type(layer), layer.input_size, layer.hidden_size, layer.bidirectional
