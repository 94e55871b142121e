"""torch.compile for inference forms: block by block with free sizes, or the whole model for each image size."""

import functools
import threading
import types
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config as shape_config

from sequencer2d.errors import ConfigError
from sequencer2d.models.inference import is_block
from sequencer2d.nn.blocks import SequencerBlock
from sequencer2d.nn.eager import draw_mask
from sequencer2d.nn.inference import InPlaceBlock, PackedRNN2D, PatchLinear
from sequencer2d.ops.targets import max_small_batch

# The modes of torch.compile, and the mode that takes its place: without CUDA graphs of the compiler's own, which would
# overwrite what a call returned and cannot be captured in another graph.
MODES: dict[str, str | None] = {
    "default": None,
    "reduce-overhead": None,
    "max-autotune": "max-autotune-no-cudagraphs",
    "max-autotune-no-cudagraphs": "max-autotune-no-cudagraphs",
}
# Image sizes for which the whole-model form keeps its code.
MAX_SIZES = 8

Run = Callable[[Tensor], Any]


def compiler_mode(compile: bool | str) -> str | None:
    """Return the compiler's mode for the argument `compile` of `optimize`. Raises ConfigError for an unknown name."""
    if isinstance(compile, bool):
        return None
    if compile not in MODES:
        raise ConfigError(f"compile={compile!r}; give True, False or a mode of torch.compile: {', '.join(MODES)}")
    return MODES[compile]


def compiled(model: nn.Module, mode: str | None, whole: bool) -> Run:
    """Return a function that runs `model` compiled: by blocks if every mixer is in a block, otherwise as a whole."""
    if not whole and compile_regions(model, mode):
        return model.__call__
    return WholeModel(model, mode)


def compile_regions(model: nn.Module, mode: str | None) -> bool:
    """Compile the blocks and patch layers of `model` in place, each kind once, for any batch and image size.

    The layers between them run as they are. Returns whether that reaches every mixer; if not, nothing is changed.
    """
    regions = [
        module for module in model.modules() if isinstance(module, PatchLinear | InPlaceBlock) or is_block(module)
    ]
    reached = {id(module) for region in regions for module in region.modules()}
    if not all(id(module) in reached for module in model.modules() if isinstance(module, PackedRNN2D)):
        return False
    kinds: dict[Any, _AnySize] = {}
    for region in regions:
        kind = type(region), tuple((name, value.shape) for name, value in region.state_dict().items())
        if kind not in kinds:
            kinds[kind] = _AnySize(mode)
        # What `nn.Module.compile` sets, too: it leaves names alone, and copies and pickles go without it.
        region._compiled_call_impl = functools.partial(kinds[kind], region)
    return True


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
            kinds[kind] = torch.compile(_with_code_of_its_own(_add_branches))
        block._compiled_call_impl = functools.partial(_draw_and_run, kinds[kind], block)
    return bool(blocks)


def _draw_and_run(run: Callable[..., Tensor], block: SequencerBlock, x: Tensor) -> Tensor:
    return run(block, x, draw_mask(block.drop_path1, x), draw_mask(block.drop_path2, x))


def _add_branches(block: SequencerBlock, x: Tensor, mask1: Tensor | None, mask2: Tensor | None) -> Tensor:
    return block.add_branches(x, mask1, mask2)


class _AnySize:
    """Runs layers of one kind, compiled for inputs of any size: (module, x) → the module's output.

    The compiler starts again for a size of 1 and for batches that are too large for our kernels of small batches. Past
    its limit of recompilations, layers run uncompiled.
    """

    def __init__(self, mode: str | None) -> None:
        self._run = torch.compile(_with_code_of_its_own(_call), mode=mode, dynamic=True)
        self._known: set[tuple[Any, ...]] = set()

    def __call__(self, module: nn.Module, x: Tensor) -> Any:
        if torch.compiler.is_compiling():
            return _call(module, x)
        if isinstance(module, PatchLinear):
            # Outside compiled code: PyTorch 2.11 compiles no cut if the first size needs none, and takes the pixels
            # beyond whole patches of later sizes for tokens. Contiguous, as strides are conditions of compiled code.
            x = module.fit(x).contiguous()
        pattern = (
            x.dtype,
            x.numel() > max_small_batch(x.device.type, x.device.index),
            *(size == 1 for size in x.shape),
        )
        if pattern in self._known:
            return self._run(module, x)
        # Sizes that are equal in the first input may differ in the next: without this, a square would be special.
        with shape_config.patch(use_duck_shape=False):  # type: ignore[attr-defined]
            out = self._run(module, x)
        self._known.add(pattern)
        return out


class WholeModel:
    """A model compiled as one graph for each image size and any batch: the fastest calls, and the longest compilation.

    Past the compiler's limit of recompilations for a size, it runs uncompiled.
    """

    def __init__(self, model: nn.Module, mode: str | None) -> None:
        self._model, self._mode = model, mode
        self._by_size: OrderedDict[tuple[int, ...], Callable[..., Any]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, images: Tensor) -> Any:
        with self._lock:
            run = self._code_for(tuple(images.shape[1:]))
        images = images.detach()  # what is marked is this call's own
        torch._dynamo.maybe_mark_dynamic(images, 0)
        return run(self._model, images)

    def _code_for(self, size: tuple[int, ...]) -> Callable[..., Any]:
        if size not in self._by_size:
            if len(self._by_size) == MAX_SIZES:
                self._by_size.popitem(last=False)
            self._by_size[size] = torch.compile(_with_code_of_its_own(_call), mode=self._mode)
        self._by_size.move_to_end(size)
        return self._by_size[size]


def _call(module: nn.Module, x: Tensor) -> Any:
    # Not `module(x)`: that may be what is being compiled.
    return module._call_impl(x)


def _with_code_of_its_own(function: Callable[..., Any]) -> Callable[..., Any]:
    """A copy of a function. The compiler counts what it compiles by code object, and refuses too much for one."""
    code = function.__code__.replace()  # type: ignore[attr-defined]
    return types.FunctionType(code, function.__globals__, function.__name__)  # type: ignore[attr-defined]
