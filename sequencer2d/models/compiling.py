"""torch.compile for inference forms: block by block with free sizes, or the whole model for each image size."""

import contextlib
import functools
import math
import threading
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config as shape_config

from sequencer2d.errors import ConfigError
from sequencer2d.models.inference import is_block
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

# What the code for the layers of a kind can depend on: four dtypes, two kinds of batches, four sizes that can be 1. The
# compiler's own limit for a function is 8, past which it runs uncompiled.
MAX_PATTERNS = 4 * 2 * 16

# Image sizes of which it is known how large the input of each layer is.
MAX_KNOWN_SIZES = 64
# Batches that smaller ones are padded to while the compiler has no code for these.
BATCHES = (1, 2, 3, 4, 5, 6, 7, 8, *(1 << power for power in range(4, 17)))


def compiler_mode(compile: bool | str) -> str | None:
    """Return the compiler's mode for the argument `compile` of `optimize`. Raises ConfigError for an unknown name."""
    if isinstance(compile, bool):
        return None
    if compile not in MODES:
        raise ConfigError(f"compile={compile!r}; give True, False or a mode of torch.compile: {', '.join(MODES)}")
    return MODES[compile]


class Form:
    """A model as it is run: uncompiled here, compiled in classes that inherit this one."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def __call__(self, images: Tensor) -> Any:
        return self._model(images)

    def ready_batch(self, shape: Sequence[int]) -> int:
        """The smallest batch, from that of images of a shape (B, C, H, W) on, that runs without compiling.

        That is B itself where nothing is known of the image size.
        """
        return shape[0]

    def missing_batch(self, shape: Sequence[int]) -> int | None:
        """A batch that lacks code by which every smaller one could be run, padded; None if there is nothing to do."""
        return None


def form_of(model: nn.Module, compile: bool | str | None, whole: bool) -> Form:
    """The form for arguments of `Optimized`: by blocks if every mixer is in a block, otherwise as a whole."""
    if compile is False:
        return Form(model)
    mode = compile if isinstance(compile, str) else None
    if not whole and compile_regions(model, mode):
        return Regions(model)
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


class Regions(Form):
    """A model whose blocks and patch layers are compiled by `compile_regions`. It knows which batches have code.

    The code of a layer depends on whether its input has one image, and on whether it is small enough for our kernels of
    small batches. The first call with an image size tells how large each layer's input is.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._visits: OrderedDict[tuple[int, ...], set[_Visit]] = OrderedDict()

    def __call__(self, images: Tensor) -> Any:
        size = tuple(images.shape[1:])
        if size in self._visits or not images.numel():
            return self._model(images)
        with _recording() as visits:
            output = self._model(images)
        self._visits[size] = visits
        while len(self._visits) > MAX_KNOWN_SIZES:
            self._visits.popitem(last=False)
        return output

    def ready_batch(self, shape: Sequence[int]) -> int:
        batch, general = shape[0], self._general_batch(shape)
        candidates = (batch, *(size for size in BATCHES if batch < size <= max(general, batch)))
        return next((size for size in candidates if self._has_code(size, shape)), batch)

    def missing_batch(self, shape: Sequence[int]) -> int | None:
        general = self._general_batch(shape)
        return None if general <= shape[0] or self._has_code(general, shape) else general

    def _general_batch(self, shape: Sequence[int]) -> int:
        """The smallest batch that is small for no layer; 0 for an unknown image size."""
        visits = self._visits.get(tuple(shape[1:]))
        if not visits:
            return 0
        return next((size for size in BATCHES[1:] if not any(visit.is_small(size) for visit in visits)), 0)

    def _has_code(self, batch: int, shape: Sequence[int]) -> bool:
        visits = self._visits.get(tuple(shape[1:]), set())
        return bool(visits) and all(visit.has_code(batch) for visit in visits)


class _Visit(NamedTuple):
    """The input of a layer in one call."""

    kind: "_AnySize"
    dtype: torch.dtype
    device: torch.device
    sizes: tuple[int, ...]
    """Of an image."""

    def is_small(self, batch: int) -> bool:
        return _is_small((batch, *self.sizes), self.device)

    def has_code(self, batch: int) -> bool:
        return self.kind.has_code(self.dtype, self.device, (batch, *self.sizes))


class _Visits(threading.local):
    """Where a thread's call records the inputs of layers; None outside of such a call."""

    current: set[_Visit] | None = None


_VISITS = _Visits()


@contextlib.contextmanager
def _recording() -> Iterator[set[_Visit]]:
    visits: set[_Visit] = set()
    _VISITS.current = visits
    try:
        yield visits
    finally:
        _VISITS.current = None


def _is_small(shape: Sequence[int], device: torch.device) -> bool:
    return math.prod(shape) <= max_small_batch(device.type, device.index)


class _AnySize:
    """Runs layers of one kind, compiled for inputs of any size: (module, x) → the module's output.

    The compiler starts again for a size of 1 and for batches that are too large for our kernels of small batches: a few
    times, and at most MAX_PATTERNS. An empty batch runs uncompiled.
    """

    def __init__(self, mode: str | None) -> None:
        self._run = torch.compile(with_code_of_its_own(_call), mode=mode, dynamic=True)
        self._known: set[tuple[Any, ...]] = set()

    def __call__(self, module: nn.Module, x: Tensor) -> Any:
        if torch.compiler.is_compiling() or not x.numel():
            return _call(module, x)
        if isinstance(module, PatchLinear):
            # Outside compiled code: PyTorch 2.11 compiles no cut if the first size needs none, and takes the pixels
            # beyond whole patches of later sizes for tokens. Contiguous, as strides are conditions of compiled code.
            x = module.fit(x).contiguous()
        if _VISITS.current is not None:
            _VISITS.current.add(_Visit(self, x.dtype, x.device, tuple(x.shape[1:])))
        pattern = _pattern(x.dtype, x.device, x.shape)
        if pattern in self._known:
            return self._run(module, x)
        # Sizes that are equal in the first input may differ in the next: without this, a square would be special.
        no_squares = shape_config.patch(use_duck_shape=False)  # type: ignore[attr-defined]
        with no_squares, torch._dynamo.config.patch(recompile_limit=MAX_PATTERNS):
            out = self._run(module, x)
        self._known.add(pattern)
        return out

    def has_code(self, dtype: torch.dtype, device: torch.device, shape: Sequence[int]) -> bool:
        """Whether an input of this shape runs without compiling."""
        return _pattern(dtype, device, shape) in self._known


def _pattern(dtype: torch.dtype, device: torch.device, shape: Sequence[int]) -> tuple[Any, ...]:
    """What the code for an input depends on."""
    return dtype, device, _is_small(shape, device), *(size == 1 for size in shape)


class WholeModel(Form):
    """A model compiled as one graph for each image size and any batch: the fastest calls, and the longest compilation.

    Past the compiler's limit of recompilations for a size, it runs uncompiled.
    """

    def __init__(self, model: nn.Module, mode: str | None) -> None:
        super().__init__(model)
        self._mode = mode
        self._by_size: OrderedDict[tuple[int, ...], Callable[..., Any]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, images: Tensor) -> Any:
        if not images.numel():
            return self._model(images)
        with self._lock:
            run = self._code_for(tuple(images.shape[1:]))
        images = images.detach()  # what is marked is this call's own
        torch._dynamo.maybe_mark_dynamic(images, 0)
        return run(self._model, images)

    def _code_for(self, size: tuple[int, ...]) -> Callable[..., Any]:
        if size not in self._by_size:
            if len(self._by_size) == MAX_SIZES:
                self._by_size.popitem(last=False)
            self._by_size[size] = torch.compile(with_code_of_its_own(_call), mode=self._mode)
        self._by_size.move_to_end(size)
        return self._by_size[size]


def _call(module: nn.Module, x: Tensor) -> Any:
    # Not `module(x)`: that may be what is being compiled.
    return module._call_impl(x)


def with_code_of_its_own(function: Callable[..., Any]) -> Callable[..., Any]:
    """A copy of a function. The compiler counts what it compiles by code object, and refuses too much for one."""
    code = function.__code__.replace()  # type: ignore[attr-defined]
    return types.FunctionType(code, function.__globals__, function.__name__)  # type: ignore[attr-defined]
