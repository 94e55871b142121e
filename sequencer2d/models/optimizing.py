"""The fastest inference form of a model in one line."""

import copy
import threading
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from sequencer2d.errors import CheckpointError, ConfigError, ImplementationError, InputError
from sequencer2d.models.compiling import compiler_mode, form_of
from sequencer2d.models.fusing_mixers import check_fusible, fuse_mixers
from sequencer2d.models.graphs import Graphs
from sequencer2d.models.inference import to_inference_form, treats_images_apart
from sequencer2d.nn.embed import check_images
from sequencer2d.nn.inference import PatchLinear
from sequencer2d.nn.rnn2d import RNN2D
from sequencer2d.ops import derivatives

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def optimize(
    model: nn.Module,
    *,
    dtype: torch.dtype | None = None,
    compile: bool | str = True,
    graph: bool | None = None,
    whole: bool = False,
) -> "Optimized":
    """Return a copy of a Sequencer in its fastest form for inference, in eval mode, without gradients.

    Takes our models and, through `fuse`, timm's and the authors'. The copy's weights are packed. Its GELU is done in
    the epilogue of the matrix product before it and, in 16 bits on CUDA, each residual sum of our models and timm's in
    that of its branch's last product; their norms' scales and biases become part of the products behind them. The first
    calls compile (seconds to a minute); after them any batch and image size runs at once. On CUDA a shape that comes
    again is captured as a graph, in a fraction of a second, and smaller batches are padded into it.

    Args:
        model: on the device it shall run on; it is not changed.
        dtype: of weights and computation; default bfloat16 on CUDA (float16 on GPUs before Ampere), float32 on a CPU.
            Images of any floating dtype are converted. In 16 bits on CUDA the GELU takes its tanh form, which differs
            by at most 5e-4.
        compile: whether to use torch.compile, or the name of its mode. CUDA graphs are never the compiler's own.
        graph: whether to replay CUDA graphs; default on CUDA. What a call returns is its own: the next call does not
            overwrite it.
        whole: compile the model as one graph for each image size instead of by its blocks: less for the host to do at
            a call without CUDA graphs, minutes of compilation where sizes change.

    Returns:
        A module that maps images (B, in_chans, H, W) to what `model` returns for them; see `Optimized`.

    Raises:
        InputError: the model holds no recurrent token mixer, or one that is not exactly understood.
        ConfigError: a dtype, a mode or a graph that the device or the compiler does not have; a model on several
            devices.
    """
    mode = compiler_mode(compile)
    _check_whole(model)
    if not isinstance(model, RNN2D):
        check_fusible(model)  # first: a copy of pruned or parametrized layers fails with an error of torch's
    network = copy.deepcopy(model).eval().requires_grad_(False)
    if not isinstance(network, RNN2D):
        fuse_mixers(network)
    device = _device(model)
    if graph is None:
        graph = device.type == "cuda"
    if graph and device.type != "cuda":
        raise ConfigError(f"graph=True needs a CUDA device; the model is on {device}")
    dtype = _dtype(dtype, device, bool(compile))
    in_place = device.type == "cuda" and dtype in (torch.float16, torch.bfloat16)
    return Optimized(to_inference_form(network, in_place).to(dtype), dtype, mode if compile else False, graph, whole)


def _check_whole(model: nn.Module) -> None:
    """Raise InputError if this process holds a part of the weights alone."""
    for name, parameter in model.named_parameters():
        if type(parameter).__module__.startswith("torch.distributed."):
            raise InputError(
                f"cannot optimize a sharded model: {name} is of the type {type(parameter).__name__}; "
                "give one that holds all weights"
            )


def _device(model: nn.Module) -> torch.device:
    devices = {parameter.device for parameter in model.parameters()}
    if len(devices) != 1:
        raise ConfigError(f"the model is on {', '.join(sorted(map(str, devices)))}: move it to one device first")
    return devices.pop()


def _dtype(dtype: torch.dtype | None, device: torch.device, compile: bool) -> torch.dtype:
    has_bf16 = device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)
    if dtype is None:
        sixteen_bits = torch.bfloat16 if has_bf16 else torch.float16
        return sixteen_bits if device.type == "cuda" else torch.float32
    if dtype not in DTYPES:
        raise ConfigError(f"dtype={dtype}; choose one of {', '.join(map(str, DTYPES))}")
    if dtype is torch.bfloat16 and compile and not has_bf16:
        raise ConfigError("dtype=torch.bfloat16 needs a GPU of compute capability 8.0 (Ampere) or newer: take float16")
    return dtype


class Optimized(nn.Module):
    """What `optimize` returns: a network for inference, and how it is run. Always in eval mode, never with gradients.

    It may be called from any thread and on any stream, inside autocast (which it ignores), torch.compile and
    torch.export. It may be moved to another device or dtype, copied, pickled, and given the state dict of another
    `Optimized` of the same model: what was compiled or captured for the weights before is dropped.

    Args:
        model: the network with packed weights, in eval mode.
        dtype: of its weights, in which it computes.
        compile: whether to compile it, or the compiler's mode (None: its default one).
        graph: whether calls on CUDA replay graphs.
        whole: compile it as one graph for each image size.

    Raises:
        InputError: a call with images of integers, on another device or that the model does not take.
        CheckpointError: a state dict that is not one of this form.
        ImplementationError: derivatives of it, its export to ONNX with dynamo=False, or weights of another library.
    """

    _anchor: Tensor

    def __init__(
        self, model: nn.Module, dtype: torch.dtype, compile: bool | str | None, graph: bool, whole: bool = False
    ) -> None:
        super().__init__()
        self.model, self.graph = model, graph
        self._compile, self._whole = compile, whole
        # Moves and is converted with the weights, so it says where and in what they are now.
        device = next((value.device for value in model.state_dict().values()), None)
        self.register_buffer("_anchor", torch.empty(0, dtype=dtype, device=device), persistent=False)
        super().train(False)
        self._prepare()

    def _prepare(self) -> None:
        """Build the parts that are neither copied nor pickled."""
        stems = [m for m in self.model.modules() if isinstance(m, PatchLinear) and m.from_image]
        self._stem = (stems[0].in_channels, stems[0].stride) if stems else None
        self._run = form_of(self.model, self._compile, self._whole)
        self._graphs: Graphs | None = None
        self._lock = threading.Lock()

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of its weights, in which it computes."""
        return self._anchor.dtype

    @property
    def device(self) -> torch.device:
        """The device on which it runs."""
        return self._anchor.device

    def forward(self, images: Tensor) -> Any:
        self._check(images)
        if torch.compiler.is_compiling():
            return self.model(images.to(self.dtype))
        # Always the same surroundings: none is compiled or captured for anew, and what is returned is an ordinary
        # tensor, which may go into a layer that is trained.
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            if images.is_inference():
                images = images.clone()
            try:
                if self.graph and self.device.type == "cuda" and images.numel():
                    return self._captured()(images)
                return self._run(images.to(self.dtype))
            except NotImplementedError as error:
                if all(not is_traceable_wrapper_subclass(weight) for weight in self.state_dict().values()):
                    raise
                raise ImplementationError(
                    "the packed layers do not take the weights that were put into this optimized model (quantized?): "
                    "quantize the model that it came from, and optimize that"
                ) from error

    def _check(self, images: Tensor) -> None:
        if not torch.compiler.is_compiling() and derivatives.transforms() & {"grad", "jvp"}:
            raise ImplementationError(
                "an optimized model has no derivatives: differentiate the model that it came from"
            )
        if torch.jit.is_tracing() and torch.onnx.is_in_onnx_export():
            raise ImplementationError(
                "the older exporter to ONNX lacks the operators of an optimized model: export the one that it came from"
            )
        # Before the conversion, which would let images of bytes pass unnormalized.
        if not images.is_floating_point():
            raise InputError(
                f"images have dtype {images.dtype}; expected floating point: scale and normalize them first"
            )
        if images.device != self.device:
            raise InputError(f"images are on {images.device}, the optimized model on {self.device}: move one of them")
        if self._stem is not None:
            check_images(images, *self._stem)

    def _captured(self) -> Graphs:
        with self._lock:
            graphs = self._graphs
            if graphs is None or (graphs.dtype, graphs.device) != (self.dtype, self.device):
                pads = treats_images_apart(self.model)
                graphs = self._graphs = Graphs(self._run, self.model, self.dtype, pads, self.device)
            return graphs

    def train(self, mode: bool = True) -> "Optimized":
        """Stay in eval mode, whatever the mode: a model that holds this one may be trained."""
        return super().train(False)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, local_metadata: Mapping[str, Any], *rest: Any
    ) -> None:
        given = {key: value for key, value in state_dict.items() if key.startswith(prefix)}
        own = self.state_dict(prefix=prefix)
        if given.keys() != own.keys() or any(given[key].shape != own[key].shape for key in own):
            raise CheckpointError(
                "the weights are not those of this optimized form, which packs its own: load them into the model that "
                "it was made of, and call optimize again"
            )
        if local_metadata.get("assign_to_params_buffers"):
            for key, value in own.items():
                if (given[key].dtype, given[key].device) != (value.dtype, value.device):
                    raise CheckpointError(
                        f"{key} is {given[key].dtype} on {given[key].device}, the optimized model {value.dtype} on "
                        f"{value.device}: load with assign=False, which converts"
                    )
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    def _replicate_for_data_parallel(self) -> "Optimized":
        raise ConfigError("DataParallel cannot share one optimized model: call optimize once for each device")

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()  # type: ignore[misc]
        return {key: value for key, value in state.items() if key not in ("_run", "_graphs", "_lock", "_stem")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._prepare()

    def extra_repr(self) -> str:
        return f"{self.dtype}, {self.device}, compile={self._compile}, graph={self.graph}"
