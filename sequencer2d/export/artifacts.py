"""Artifacts: what `sequencer2d export` wrote, loaded in place of a model.

An artifact runs on the CPU in its runtime: torch (`torch.export` programs, AOTInductor packages), ONNX Runtime (the
model in a web page too) or OpenVINO.
"""

import contextlib
import importlib.util
import os
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sequencer2d.errors import CheckpointError, TrustError, UserError, first_line, how_to_install
from sequencer2d.export import page, programs
from sequencer2d.export.loaded import Artifact, DetectorArtifact, SegmenterArtifact
from sequencer2d.export.metadata import KEY, from_string
from sequencer2d.export.naming import SUFFIXES, check_artifact
from sequencer2d.files import JSON_LIMIT, parse_json

CODE_SUFFIXES = (".pt2",)
"""Files whose loading runs code of whoever made them."""


def load_artifact(path: str | os.PathLike[str], *, trust: bool = False) -> Artifact:
    """Load an exported model for the CPU.

    Args:
        path: a `.pt2`, `.onnx`, `.xml` or `.html` file that `sequencer2d export` wrote.
        trust: run code that the file holds. A `.pt2` file does hold code, and loading it runs it with all that you may
            do: AOTInductor's packages are a shared library, programs of `torch.export` hold pickles and expressions
            that are evaluated. The other formats hold none and do not ask.

    Raises:
        TrustError: a file that holds code, without `trust`. Nothing of it has been opened.
        CheckpointError: missing, damaged, of another version, or not written by this package.
        UserError: its runtime is not installed.
    """
    path = Path(path)
    check_artifact(path)
    if path.suffix in (".onnx", ".html"):
        return _load_onnx(path)
    if path.suffix == ".xml":
        return _load_openvino(path)
    if path.suffix in CODE_SUFFIXES:
        if not trust:
            raise TrustError(
                f"{path} holds code, which runs as soon as it is loaded, with all that you may do on this machine. If "
                "you made it, or trust whoever did, say so: --trust (in Python, trust=True). Exports to .onnx and .xml "
                "hold no code"
            )
        return _load_aoti(path) if _holds_compiled_code(path) else _load_torch(path)
    raise CheckpointError(f"{path} is no artifact: expected one of {', '.join(SUFFIXES)}")


def need(package: str) -> None:
    """Raise `UserError` with the command that installs `package` where it is missing."""
    if importlib.util.find_spec(package) is None:
        raise UserError(f"this format needs the package {package}: {how_to_install('export')}")


def _load_torch(path: Path) -> Artifact:
    from sequencer2d.ops import registration  # noqa: F401  (the program's recurrences are its operators)

    meta = from_string(_entry(path, f"extra/{KEY}"), path, "torch")
    with _damage(path), programs.quiet():
        module = torch.export.load(path).module()
    dtype = _dtype(meta)
    return Artifact(path, meta, lambda images: [module(images.to(dtype)).float()])


def _load_aoti(path: Path) -> Artifact:
    meta = from_string(_aoti_metadata(path), path, "aoti")
    built = meta["artifact"]["torch"]
    try:
        with programs.quiet():
            package = torch._inductor.aoti_load_package(str(path))
    except Exception as error:
        raise CheckpointError(
            f"{path} was compiled with torch {built} and does not load in torch {torch.__version__} on this machine "
            f"({first_line(error)}): export the model again here"
        ) from error
    dtype = _dtype(meta)
    return Artifact(path, meta, lambda images: [package(images.to(dtype)).float()])


def _load_onnx(path: Path) -> Artifact:
    need("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    with _damage(path):
        file = page.read_model(path) if path.suffix == ".html" else path
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    kind = "web" if path.suffix == ".html" else "onnx"
    meta = from_string(session.get_modelmeta().custom_metadata_map.get(KEY), path, kind)
    kinds = {"segmentation": SegmenterArtifact, "detection": DetectorArtifact}

    def run(images: Tensor) -> list[Tensor]:
        return [torch.from_numpy(output) for output in session.run(None, {"images": images.numpy()})]

    return kinds.get(meta.get("task", ""), Artifact)(path, meta, run)


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
    return Artifact(path, meta, lambda images: [torch.from_numpy(compiled(images.numpy())[0].copy())])


def _dtype(meta: dict[str, Any]) -> torch.dtype:
    return torch.bfloat16 if meta["artifact"]["precision"] == "bf16" else torch.float32


def _holds_compiled_code(path: Path) -> bool:
    with _damage(path), zipfile.ZipFile(path) as archive:
        return any("aotinductor" in name for name in archive.namelist())


def _aoti_metadata(path: Path) -> Any:
    """The description in a package, read without running anything of it."""
    text = _entry(path, "_metadata.json")
    with _damage(path):
        said = parse_json(text) if text else {}
        return said.get(KEY) if isinstance(said, dict) else None


def _entry(path: Path, end: str) -> bytes | None:
    """The content of the archive's entry whose name ends so; None without one."""
    with _damage(path), zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.filename.endswith(end):
                if entry.file_size > JSON_LIMIT:
                    raise ValueError(f"{entry.filename} is too long for a description")
                return archive.read(entry)
    return None


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turn what a runtime raises over a file that it cannot read into a `CheckpointError`."""
    try:
        yield
    except UserError:
        raise
    except pickle.UnpicklingError:
        raise CheckpointError(f"{path} holds more than a program and its weights: export the model again") from None
    except Exception as error:
        raise CheckpointError(
            f"cannot read {path} ({path.stat().st_size} bytes): damaged or of another version. Export the model again. "
            f"Reason: {first_line(error)}"
        ) from error
