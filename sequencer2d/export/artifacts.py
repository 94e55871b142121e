"""Artefacts: what `sequencer2d export` wrote, loaded in place of a model.

An artefact runs on the CPU in its runtime: torch (`torch.export` programs, AOTInductor packages), ONNX Runtime or
OpenVINO.
"""

import contextlib
import importlib.util
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sequencer2d.errors import CheckpointError, InputError, UserError
from sequencer2d.export import programs
from sequencer2d.export.metadata import KEY, from_string

SUFFIXES = (".pt2", ".onnx", ".xml")

Run = Callable[[Tensor], Tensor]


class Artifact(nn.Module):
    """An exported model: images (B, in_chans, H, W), fp32, normalised → logits (B, classes), fp32, on the CPU.

    Attributes:
        path: its file.
        meta: what it says of itself: a checkpoint's `meta` and the entry `artifact`.
        kind: "torch", "aoti", "onnx" or "openvino".
        num_classes, in_chans, pretrained_cfg: as a model's.

    Raises:
        InputError: images of another shape, or smaller than it takes.
    """

    def __init__(self, path: Path, meta: dict[str, Any], run: Run) -> None:
        super().__init__()
        self.path, self.meta, self._run = path, meta, run
        self.kind: str = meta["artifact"]["kind"]
        self.precision: str = meta["artifact"]["precision"]
        self.num_classes: int = meta["num_classes"]
        self.in_chans: int = meta["in_chans"]
        said = meta["input"]
        self.pretrained_cfg = {
            "input_size": (self.in_chans, *said["size"]),
            "mean": tuple(said["mean"]),
            "std": tuple(said["std"]),
            "interpolation": said["interpolation"],
            "crop_pct": said["crop_pct"],
            "label_names": meta["class_names"],
            "num_classes": self.num_classes,
        }

    def forward(self, images: Tensor) -> Tensor:
        self._check(images)
        with torch.no_grad():
            return self._run(images.detach().float().cpu().contiguous())

    def _check(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != self.in_chans:
            raise InputError(
                f"images have shape {tuple(images.shape)}; {self.path.name} takes "
                f"(batch, {self.in_chans}, height, width)"
            )
        least = self.meta["artifact"]["minimum_size"]
        if min(images.shape[2:]) < least:
            raise InputError(
                f"images of {images.shape[2]}×{images.shape[3]} pixels are too small; {self.path.name} takes "
                f"{least}×{least} or more, which make two tokens along each axis: enlarge them"
            )

    def extra_repr(self) -> str:
        return f"{self.path.name}, {self.kind}, {self.precision}"


def is_artifact(source: str | os.PathLike[str]) -> bool:
    """Whether a path is named like an exported artefact."""
    return Path(source).suffix in SUFFIXES


def load_artifact(path: str | os.PathLike[str]) -> Artifact:
    """Load an exported model for the CPU.

    Args:
        path: a `.pt2`, `.onnx` or `.xml` file that `sequencer2d export` wrote.

    Raises:
        CheckpointError: missing, damaged, of another version, or not written by this package.
        UserError: its runtime is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no artefact at {str(path)!r}: expected a file, one of {', '.join(SUFFIXES)}")
    if path.suffix == ".onnx":
        return _load_onnx(path)
    if path.suffix == ".xml":
        return _load_openvino(path)
    if path.suffix == ".pt2":
        return _load_aoti(path) if _holds_compiled_code(path) else _load_torch(path)
    raise CheckpointError(f"{path} is no artefact: expected one of {', '.join(SUFFIXES)}")


def need(package: str) -> None:
    """Raise `UserError` with the command that installs `package` where it is missing."""
    if importlib.util.find_spec(package) is None:
        raise UserError(f"this format needs the package {package}: pip install 'sequencer2d[export]'")


def _load_torch(path: Path) -> Artifact:
    from sequencer2d.ops import registration  # noqa: F401  (the program's recurrences are its operators)

    extra = {KEY: ""}
    with _damage(path), programs.quiet():
        program = torch.export.load(path, extra_files=extra)
    meta = from_string(extra[KEY], path, "torch")
    module, dtype = program.module(), _dtype(meta)
    return Artifact(path, meta, lambda images: module(images.to(dtype)).float())


def _load_aoti(path: Path) -> Artifact:
    meta = from_string(_aoti_metadata(path), path, "aoti")
    built = meta["artifact"]["torch"]
    try:
        with programs.quiet():
            package = torch._inductor.aoti_load_package(str(path))
    except Exception as error:
        raise CheckpointError(
            f"{path} was compiled with torch {built} and does not load in torch {torch.__version__} on this machine "
            f"({_first_line(error)}): export the model again here"
        ) from error
    dtype = _dtype(meta)
    return Artifact(path, meta, lambda images: package(images.to(dtype)).float())


def _load_onnx(path: Path) -> Artifact:
    need("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    with _damage(path):
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    meta = from_string(session.get_modelmeta().custom_metadata_map.get(KEY), path, "onnx")
    return Artifact(path, meta, lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0]))


def _load_openvino(path: Path) -> Artifact:
    need("openvino")
    import openvino

    core = openvino.Core()
    with _damage(path):
        model = core.read_model(path)
        text = model.get_rt_info([KEY, KEY]).value if model.has_rt_info([KEY, KEY]) else None
    meta = from_string(text, path, "openvino")
    # Left to itself the plugin computes in bf16 where the processor has it.
    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    with _damage(path):
        compiled = core.compile_model(model, "CPU", config)
    return Artifact(path, meta, lambda images: torch.from_numpy(compiled(images.numpy())[0].copy()))


def _dtype(meta: dict[str, Any]) -> torch.dtype:
    return torch.bfloat16 if meta["artifact"]["precision"] == "bf16" else torch.float32


def _holds_compiled_code(path: Path) -> bool:
    with _damage(path), zipfile.ZipFile(path) as archive:
        return any("aotinductor" in name for name in archive.namelist())


def _aoti_metadata(path: Path) -> str | None:
    """The description in a package, read without running anything of it."""
    with _damage(path), zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith("_metadata.json"):
                return json.loads(archive.read(name)).get(KEY)
    return None


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turn what a runtime raises over a file that it cannot read into a `CheckpointError`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"cannot read {path} ({path.stat().st_size} bytes): damaged or of another version. Export the model again. "
            f"Reason: {_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
