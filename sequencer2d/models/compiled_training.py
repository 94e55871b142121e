"""torch.compile for training: the whole model, or each kind of block once."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sequencer2d.models.compiling import with_code_of_its_own
from sequencer2d.nn.blocks import SequencerBlock
from sequencer2d.nn.eager import draw_mask


def compile_blocks(model: nn.Module) -> bool:
    """Compile the blocks of a model for training, each kind once, in place; the layers between them run as they are.

    A kind is compiled again for the second batch and the second image size, then for any. Draws of stochastic depth are
    arguments of the compiled code: blocks that differ in their rates alone share it. Returns whether the model has
    blocks.
    """
    blocks = [module for module in model.modules() if type(module) is SequencerBlock]
    kinds: dict[Any, Callable[..., Tensor]] = {}
    for block in blocks:
        kind = repr(block.rnn_tokens), tuple((name, value.shape) for name, value in block.state_dict().items())
        if kind not in kinds:
            kinds[kind] = torch.compile(with_code_of_its_own(_add_branches))
        block._compiled_call_impl = functools.partial(_draw_and_run, kinds[kind], block)
    return bool(blocks)


def _draw_and_run(run: Callable[..., Tensor], block: SequencerBlock, x: Tensor) -> Tensor:
    return run(block, x, draw_mask(block.drop_path1, x), draw_mask(block.drop_path2, x))


def _add_branches(block: SequencerBlock, x: Tensor, mask1: Tensor | None, mask2: Tensor | None) -> Tensor:
    return block.add_branches(x, mask1, mask2)
