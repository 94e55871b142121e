"""`export_model`: a model into a file of another runtime, checked before anyone sees it."""

import copy
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import nn

from sequencer2d.errors import ConfigError, ExportError
from sequencer2d.export import page, verify
from sequencer2d.export.artifacts import load_artifact, need
from sequencer2d.export.formats import PRECISIONS, Format, find_format, recurrent_nodes
from sequencer2d.export.metadata import describe
from sequencer2d.input_spec import InputSpec
from sequencer2d.models import from_authors
from sequencer2d.models.fit import HEAD, STEM, fit_state, identify
from sequencer2d.models.names import is_authors, strip_wrappers
from sequencer2d.models.sequencer2d import Sequencer2D
from sequencer2d.models.variants import model_config


@dataclass(frozen=True)
class Exported:
    """What `export_model` did.

    Attributes:
        path: the artifact.
        format: its format's name.
        precision: "fp32", "bf16" or "int8".
        differences: from the model, per input, batch and size; all within `limit`.
        limit: the largest relative difference allowed.
        recurrent_nodes: how many of its graph's nodes are recurrences.
        nodes: how many its graph has.
        seconds: how long it took, checking included.
        size_mib: of its file or files.
    """

    path: Path
    format: str
    precision: str
    differences: tuple[verify.Difference, ...]
    limit: float
    recurrent_nodes: int
    nodes: int
    seconds: float
    size_mib: float


def export_model(
    model: nn.Module,
    path: str | os.PathLike[str],
    format: str,
    *,
    precision: str = "fp32",
    opset: int | None = None,
    runtime: str | os.PathLike[str] | None = None,
    images: Sequence[str | os.PathLike[str]] | None = None,
    sizes: Sequence[tuple[int, int]] | None = None,
    batches: Sequence[int] = verify.BATCHES,
) -> Exported:
    """Export a model with free batch, height and width, and compare the artifact with it before it appears at `path`.

    Args:
        model: ours, or a Sequencer that timm or the authors' code built (also after `sequencer2d.fuse`). Not changed.
        path: of the artifact; its suffix is the format's. Missing folders are made.
        format: "torch", "aoti", "onnx", "openvino" or "web".
        precision: "fp32", "bf16" (torch, aoti) or "int8" (onnx, web).
        opset: for the format onnx, its set of operators, 18 to 25; none: 18, which most runtimes read.
        runtime: for the format web, ONNX Runtime Web: the archive that `npm pack onnxruntime-web` leaves, or the folder
            of the unpacked package.
        images: real image files to compare on; by default scikit-learn's photographs, if it is installed.
        sizes: (height, width) in pixels to compare at; by default three, of which one is the model's own.
        batches: sizes of the batches of random images to compare on.

    Raises:
        ConfigError: an unknown format, a precision, opset or suffix that it does not have, or no runtime where it
            needs one.
        ExportError: the artifact differs from the model (nothing is left behind), or cannot be written.
        UserError: a package that the format needs is not installed.
    """
    started = time.perf_counter()
    chosen = check_options(path, format, precision, opset, runtime)
    write = partial(chosen.write, runtime=page.read_runtime(runtime)) if chosen.takes_runtime else chosen.write
    model = as_ours(model)
    target = Path(path)
    sizes = sizes or verify.sizes_for(model)
    files = [Path(image) for image in images] if images is not None else verify.real_images()
    if model.in_chans != 3:
        files = []
    with _folder_beside(target) as folder:
        draft = Path(folder) / target.name
        nodes = write(_in_precision(model, precision), draft, describe(model, format, precision, opset))
        differences = verify.compare(
            load_artifact(draft, trust=True), model, sizes=sizes, batches=batches, images=files
        )
        limit = verify.limit_for(model, precision, sizes)
        verify.check(differences, limit, f"the {chosen.title} artifact")
        size_mib = _publish(Path(folder), target)
    return Exported(
        path=target,
        format=format,
        precision=precision,
        differences=tuple(differences),
        limit=limit,
        recurrent_nodes=recurrent_nodes(nodes),
        nodes=sum(nodes.values()),
        seconds=time.perf_counter() - started,
        size_mib=size_mib,
    )


def check_options(
    path: str | os.PathLike[str],
    format: str,
    precision: str,
    opset: int | None = None,
    runtime: str | os.PathLike[str] | None = None,
) -> Format:
    """The format, if it can be written to `path` with these options here, or the error of `export_model`."""
    chosen = find_format(format)
    if precision not in PRECISIONS:
        raise ConfigError(f"no precision {precision!r}; there are {', '.join(PRECISIONS)}")
    if precision not in chosen.precisions:
        able = " and ".join(chosen.precisions)
        raise ConfigError(
            f"format {format!r} is written in {able}, not in {precision}: choose another format or precision"
        )
    if opset is not None:
        _check_opset(format, chosen, opset)
    if chosen.takes_runtime:
        page.check_runtime(runtime)
    elif runtime is not None:
        raise ConfigError(f"format {format!r} holds no runtime: leave it out, or choose format 'web'")
    if Path(path).suffix != chosen.suffix:
        raise ConfigError(f"format {format!r} has the suffix {chosen.suffix}; given {str(path)!r}")
    for package in chosen.needs:
        need(package)
    return chosen


def _check_opset(name: str, chosen: Format, opset: int) -> None:
    if chosen.opsets is None:
        raise ConfigError(f"format {name!r} has no opset to choose: leave it out, or choose format 'onnx'")
    oldest, newest = chosen.opsets
    if not oldest <= opset <= newest:
        raise ConfigError(
            f"no opset {opset} for format {name!r}: PyTorch's exporter writes {oldest} and later, and {newest} is the "
            f"newest that is tested; choose one from {oldest} to {newest}"
        )


def as_ours(model: nn.Module) -> Sequencer2D:
    """Our model with the same weights, in evaluation mode on the CPU in fp32.

    Raises:
        ExportError: a model of others whose parameters are not those of a variant of ours.
    """
    if isinstance(model, Sequencer2D):
        return copy.deepcopy(model).float().cpu().eval().requires_grad_(False)
    state = strip_wrappers({name: value.detach().cpu().float() for name, value in model.state_dict().items()})
    state = from_authors(state) if is_authors(state) else state
    name = identify(state, Sequencer2D)
    if name is None:
        raise ExportError(
            f"{type(model).__name__} is no Sequencer of the table of variants: save its weights and load them with "
            "sequencer2d.models.load_model(file, name=…, dims=…) to say what it is"
        )
    sizes = {
        "num_classes": state[HEAD[0]].shape[0] if HEAD[0] in state else 0,
        "in_chans": state[STEM].shape[1],
    }
    ours = Sequencer2D(model_config(name, **sizes), name)
    ours.load_state_dict(fit_state(state, ours, type(model).__name__), strict=True)
    stated = {key: value for key, value in (getattr(model, "pretrained_cfg", None) or {}).items() if value is not None}
    if len(stated.get("mean", ())) == ours.in_chans:
        ours.pretrained_cfg |= InputSpec.from_timm(ours.pretrained_cfg | stated).to_timm()
    return ours.eval().requires_grad_(False)


def _in_precision(model: Sequencer2D, precision: str) -> Sequencer2D:
    if precision != "bf16":
        return model
    return copy.deepcopy(model).to(PRECISIONS[precision])


def _folder_beside(target: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder on the same file system, so that what is finished only needs to be renamed."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(f"{target} is a folder")
        return tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise ExportError(f"cannot write to {target}: {error.strerror or error}; give another path") from error


def _publish(folder: Path, target: Path) -> float:
    """Move what was written to its place, the named file last; its size in MiB."""
    files = sorted(folder.iterdir(), key=lambda file: file.name == target.name)
    size = sum(file.stat().st_size for file in files)
    try:
        for file in files:
            file.replace(target.with_name(file.name))
    except OSError as error:
        raise ExportError(f"cannot write to {target}: {error.strerror or error}; give another path") from error
    return size / 2**20
