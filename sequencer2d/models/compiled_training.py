"""torch.compile for training: the whole model, or each kind of block once. A form is a row of FORMS."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sequencer2d.errors import ConfigError
from sequencer2d.models.compiling import with_code_of_its_own
from sequencer2d.nn.blocks import SequencerBlock


def compile_for_training(model: nn.Module, form: bool | str) -> str:
    """Compile a model in place.

    Args:
        model: to be trained.
        form: a row of FORMS, a mode of torch.compile for the whole model, or True: DEFAULT, or "whole" if the model has
            none of our blocks.

    Returns:
        The row or mode that was taken.

    Raises:
        ConfigError: the model has no blocks, and they were asked for.
    """
    if form is True:
        return next(row for row in (DEFAULT, "whole") if FORMS[row](model))
    if form not in FORMS:
        compile_whole(model, mode=str(form))
    elif not FORMS[str(form)](model):
        raise ConfigError(f"run.compile={form}: the model has no blocks of ours; set run.compile=true")
    return str(form)


def compile_whole(model: nn.Module, mode: str | None = None) -> bool:
    """Compile a model as one graph. It is compiled again for the second batch and the second image size, then for any.

    Returns True.
    """
    model.compile(mode=mode)
    return True


def compile_blocks(model: nn.Module, dynamic: bool | None = None) -> bool:
    """Compile the blocks of a model, each kind once; the layers between them run as they are.

    A kind is compiled again for the second batch and the second image size, then for any; with `dynamic` for any at
    once. Draws of stochastic depth are arguments of the compiled code: blocks that differ in their rates alone share
    it. Hooks of a block run outside of it, and a block whose stochastic depth was replaced or hooked runs uncompiled.
    Returns whether the model has blocks.
    """
    # FSDP gives a block a class that inherits ours.
    blocks = [
        module
        for module in model.modules()
        if isinstance(module, SequencerBlock) and type(module).forward is SequencerBlock.forward
    ]
    kinds: dict[Any, Callable[..., Tensor]] = {}
    for block in blocks:
        kind = repr(block.rnn_tokens), tuple((name, value.shape) for name, value in block.state_dict().items())
        if kind not in kinds:
            kinds[kind] = torch.compile(with_code_of_its_own(_add_branches), dynamic=dynamic)
        block.compiled = kinds[kind]
    return bool(blocks)


# What `run.compile` can name besides the modes of the compiler, which compile the whole model.
FORMS: dict[str, Callable[[nn.Module], bool]] = {"blocks": compile_blocks, "whole": compile_whole}
# What `run.compile=true` means if the model has blocks. By blocks it would start sooner, and run at 0.92 of the rate
# where the host is the slower part (`benchmarks/results/trials/compiling-training.json`).
DEFAULT = "whole"


def _add_branches(block: SequencerBlock, x: Tensor, mask1: Tensor | None, mask2: Tensor | None) -> Tensor:
    return block.add_branches(x, mask1, mask2)
