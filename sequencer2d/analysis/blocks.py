"""Naming the blocks of a model, ours or timm's, and catching what one of them puts out."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from sequencer2d.errors import ConfigError, did_you_mean
from sequencer2d.evaluation.modes import eval_mode, vendor_rnn_backward

# Ours and most of timm's hierarchical models, Swin and PoolFormer, ViT and Mixer, ResNet; the first that matches
# counts.
PATTERNS = (
    r"stages\.\d+\.blocks\.\d+",
    r"layers\.\d+\.blocks\.\d+",
    r"blocks\.\d+\.\d+",
    r"blocks\.\d+",
    r"layer\d+\.\d+",
    r"stages\.\d+\.\d+",
    r"stages\.\d+",
    r"s\d\.b\d+",
)


class _Reached(Exception):
    """The block that was asked for has run; the rest of the model need not."""


def block_names(model: nn.Module) -> tuple[str, ...]:
    """The residual blocks of a model in the order they run in, as its modules are named.

    Models that follow none of timm's conventions give the names of all their modules.
    """
    names = [name for name, _ in model.named_modules() if name]
    for pattern in PATTERNS:
        found = [name for name in names if re.fullmatch(pattern, name)]
        if len(found) > 1:
            return tuple(found)
    return tuple(names)


def find_block(model: nn.Module, name: str) -> nn.Module:
    """The module called `name`, any module of the model. Raises `ConfigError`, listing the blocks, if there is none."""
    modules = dict(model.named_modules())
    if name and name in modules:
        return modules[name]
    known = block_names(model)
    hint = did_you_mean(name, known, otherwise="", cutoff=0.8)
    raise ConfigError(
        f"{type(model).__name__} has no block {name!r}{hint and f' ({hint})'}; its blocks: {', '.join(known)}"
    )


def spread_blocks(model: nn.Module, count: int = 4) -> tuple[str, ...]:
    """The last block of each stage if the model has `count` stages or fewer, else blocks evenly over its depth."""
    names = block_names(model)
    stages: dict[str, str] = {}
    for name in names:
        stages[name.rsplit(".", 1)[0]] = name
    last = tuple(stages.values())
    if 2 <= len(last) <= count:
        return last
    count = min(count, len(names))
    return tuple(names[round((index + 1) * len(names) / count) - 1] for index in range(count))


def block_outputs(model: nn.Module, x: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
    """What the named blocks put out for `x`, from one pass, which ends at the last of them.

    Raises:
        ConfigError: no such block, a block that did not run, or one whose output is no tensor.
    """
    wanted = list(dict.fromkeys(names))
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            outputs[name] = _as_tensor(name, output)
            if len(outputs) == len(wanted):
                raise _Reached

        return hook

    handles = [find_block(model, name).register_forward_hook(keep(name)) for name in wanted]
    try:
        with eval_mode(model), vendor_rnn_backward(model):
            model(x)
    except _Reached:
        pass
    finally:
        for handle in handles:
            handle.remove()
    missing = [name for name in wanted if name not in outputs]
    if missing:
        raise ConfigError(
            f"{', '.join(missing)} did not run for an image: choose one of {', '.join(block_names(model))}"
        )
    return outputs


def pick_blocks(model: nn.Module, names: Sequence[str] | None, count: int = 4) -> tuple[str, ...]:
    """The named blocks, checked, or without names `spread_blocks`."""
    if not names:
        return spread_blocks(model, count)
    for name in names:
        find_block(model, name)
    return tuple(names)


def _as_tensor(name: str, output: Any) -> Tensor:
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        output = output[0]
    if not isinstance(output, Tensor):
        raise ConfigError(f"block {name!r} puts out {type(output).__name__}, not a tensor: choose another block")
    return output
