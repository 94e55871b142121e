"""Runs a block as one autograd node in eager PyTorch, if no layer is modified and nothing observes it.

The conditions are checked at each call, because hooks, adapters, parametrizations and observers come and go.
"""

import functools
import operator
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.modules import module as global_hooks

from sequencer2d.nn.rnn2d import KINDS, RNN2D, RecurrentWeights, layer_names, scans_along
from sequencer2d.ops.block import BlockOptions, run_block, runs_eagerly, takes


def run_as_one_node(
    block: nn.Module, x: Tensor, drop_paths: tuple[str, str], known: tuple[type, type]
) -> Tensor | None:
    """The output of a block for tokens (B, H, W, C); None if its layers must run one by one.

    Args:
        block: with `norm1`, `rnn_tokens`, `norm2` and `mlp_channels`, as `SequencerBlock`.
        x: tokens.
        drop_paths: the names of its two layers of stochastic depth.
        known: the classes of the MLP and of stochastic depth, which compute what `Mlp` and `DropPath` do.
    """
    if not runs_eagerly() or global_hooks._has_any_global_hook() or type(x) is not Tensor:
        return None
    parts: Any = block._modules
    mixer, norms = parts["rnn_tokens"], (parts["norm1"], parts["norm2"])
    mlp = parts["mlp_channels"]
    if type(mixer) is not RNN2D or type(mlp) is not known[0] or mixer.fusion != "concat" or mixer.gates != "stored":
        return None
    in_mlp: dict[str, Any] = parts["mlp_channels"]._modules
    layout = _layout(mixer.axes, mixer.bidirectional)
    recurrent: list[Any] = [mixer._modules[name] for name in layout.layers]
    linears: Any = (mixer._modules["fc"], in_mlp["fc1"], in_mlp["fc2"])
    others = [layer for name, layer in in_mlp.items() if name not in ("fc1", "fc2")]
    depths = [parts[name] for name in drop_paths]
    layers = (*recurrent, *linears, *norms)
    if tuple(map(type, layers)) != layout.classes or not (
        _are_of(depths, (known[1], nn.Identity))
        and _are_of(others, (nn.GELU, nn.Dropout, nn.Identity))
        and _are_plain((mixer, mlp, *layers, *depths, *others))
        and not any(map(_differs, others))
    ):
        return None
    try:
        found = [weight for layer in recurrent for weight in layout.weights_of(layer._parameters)]
        weights = [*layout.in_order(found)]
        for layer in (*linears, *norms):
            weights += _WEIGHT_AND_BIAS(layer._parameters)
    except KeyError:
        return None
    if {type(weight) for weight in weights} != {nn.Parameter}:
        return None
    eps = (norms[0].eps, norms[1].eps)
    options = BlockOptions(layout.scans, mixer.cell, mixer.implementation, mixer.axes == "flatten", eps)
    if not takes(x, weights, options):
        return None
    return run_block(x, weights, options, (draw_mask(depths[0], x), draw_mask(depths[1], x)))


_WEIGHT_AND_BIAS = operator.itemgetter("weight", "bias")


class _Layout(NamedTuple):
    """What the options of a mixer determine.

    Attributes:
        scans: of the mixer.
        layers: the names of its recurrent layers.
        classes: those that the recurrent layers, the three linear ones and the two norms must have.
        weights_of: takes all weights of a recurrent layer out of its parameters.
        in_order: brings those of all recurrent layers into the order of `run_block`.
    """

    scans: tuple[int, ...]
    layers: tuple[str, ...]
    classes: tuple[type, ...]
    weights_of: Callable[[dict[str, Any]], tuple[Any, ...]]
    in_order: Callable[[list[Any]], tuple[Any, ...]]


@functools.cache  # small batches wait for the host
def _layout(axes: str, bidirectional: bool) -> _Layout:
    layers, suffixes = layer_names(axes), ("", "_reverse") if bidirectional else ("",)
    names = [f"{kind}_l0{suffix}" for kind in KINDS for suffix in suffixes]
    found = [(layer, name) for layer in layers for name in names]
    wanted = [(layer, f"{kind}_l0{suffix}") for kind in KINDS for layer in layers for suffix in suffixes]
    classes = (*[RecurrentWeights] * len(layers), *[nn.Linear] * 3, *[nn.LayerNorm] * 2)
    in_order = operator.itemgetter(*map(found.index, wanted))
    return _Layout(scans_along(axes, bidirectional), layers, classes, operator.itemgetter(*names), in_order)


def _are_of(layers: Iterable[Any], kinds: tuple[type, ...]) -> bool:
    """Whether layers are exactly of the given classes."""
    return all(type(layer) in kinds for layer in layers)


def _are_plain(layers: Iterable[Any]) -> bool:
    """Whether layers have no hooks, replaced methods or compiled code."""
    for layer in layers:
        if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks:
            return False
        own = layer.__dict__
        if layer._compiled_call_impl is not None or "forward" in own or "scan" in own or "weights" in own:
            return False
    return True


def _differs(layer: Any) -> bool:
    """Whether a layer of the MLP between its products is neither the exact GELU nor the identity."""
    if type(layer) is nn.GELU:
        return bool(layer.approximate != "none")
    return type(layer) is nn.Dropout and layer.training and layer.p > 0


def draw_masks(depths: Iterable[Any], x: Tensor, known: type) -> tuple[Tensor | None, ...] | None:
    """What `draw_mask` draws for each layer; None if one is more than stochastic depth of the class `known`."""
    depths = tuple(depths)
    if global_hooks._has_any_global_hook() or not (_are_of(depths, (known, nn.Identity)) and _are_plain(depths)):
        return None
    return tuple(draw_mask(depth, x) for depth in depths)


def draw_mask(depth: Any, x: Tensor) -> Tensor | None:
    """The factor of stochastic depth for each sample of a branch, (B, 1, 1, 1), drawn as the layer draws it.

    None for an identity, a rate of 0 and eval mode.
    """
    if type(depth) is nn.Identity or not depth.training:
        return None
    rate = depth.rate if hasattr(depth, "rate") else depth.drop_prob
    if rate <= 0:
        return None
    mask = x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(1 - rate)
    # timm's layer may leave out the scaling.
    return mask.div_(1 - rate) if getattr(depth, "scale_by_keep", True) and rate < 1 else mask
