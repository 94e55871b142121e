"""A model as one HTML file that recognizes photos in a browser, without a server and without a network.

It holds the model as ONNX, ONNX Runtime Web, and `web/`: the page, its look, and how a photo becomes the model's input.
Whoever opens the file from a disk has all of it; a policy in the page forbids it to load or to send anything.

ONNX Runtime Web is no part of this package. It comes from npm, as the archive that `npm pack onnxruntime-web` leaves or
as an unpacked folder.
"""

import base64
import gzip
import html
import importlib.resources
import json
import os
import re
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sequencer2d.errors import CheckpointError, ConfigError, ExportError, first_line
from sequencer2d.evaluation.predict import class_names_of
from sequencer2d.models.sequencer2d import Sequencer2D

SCRIPT, CODE, ABOUT = "dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.wasm", "package.json"
"""What the page takes of the npm package: its script, its code in WebAssembly, and its version."""
HOW_TO_GET = (
    "get ONNX Runtime Web by `npm pack onnxruntime-web` and name the archive that it leaves: "
    "--runtime onnxruntime-web-VERSION.tgz (in Python, runtime=…)"
)
LARGEST_MODEL = 2**31
"""Bytes of an ONNX file, at most."""
_MODEL = re.compile(r'<script id="model" type="text/plain">([A-Za-z0-9+/=]*)</script>')
_PLACE = re.compile(r"\{\{([\w.-]+)\}\}")


@dataclass(frozen=True)
class Runtime:
    """ONNX Runtime Web, for WebAssembly.

    Attributes:
        version: of the npm package.
        script: an ES module.
        code: what it runs, WebAssembly.
    """

    version: str
    script: bytes
    code: bytes


def read_runtime(path: str | os.PathLike[str] | None) -> Runtime:
    """Read ONNX Runtime Web.

    Args:
        path: the archive that `npm pack onnxruntime-web` leaves, or the folder of the unpacked package, such as
            `node_modules/onnxruntime-web`.

    Raises:
        ConfigError: none is given, or it is no such package.
    """
    found = check_runtime(path)
    try:
        files = _read_folder(found) if found.is_dir() else _read_archive(found)
        version = json.loads(files[ABOUT])["version"]
    except (OSError, tarfile.TarError, KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"{found} holds no ONNX Runtime Web ({first_line(error)}): {HOW_TO_GET}") from error
    return Runtime(str(version), files[SCRIPT], files[CODE])


def check_runtime(path: str | os.PathLike[str] | None) -> Path:
    """The path of a runtime, without a look into it. Raises `ConfigError` where none is given or nothing is there."""
    if path is None:
        raise ConfigError(f"format 'web' puts ONNX Runtime Web into the page: {HOW_TO_GET}")
    if not Path(path).exists():
        raise ConfigError(f"no such file or folder: {os.fspath(path)!r}; {HOW_TO_GET}")
    return Path(path)


def write_page(model: Sequencer2D, onnx: bytes, path: Path, meta: Mapping[str, Any], runtime: Runtime) -> None:
    """Write the page of a model.

    Args:
        model: whose classes have names.
        onnx: the model as ONNX: `images` (1, 3, H, W) → `logits`.
        path: of the page.
        meta: what the model says of itself.
        runtime: what runs it.

    Raises:
        ExportError: the model takes no RGB images, which are all that a browser reads.
    """
    if model.in_chans != 3:
        raise ExportError(
            f"a browser reads photos as 3 channels, and the model takes {model.in_chans}: choose another format"
        )
    classes = class_names_of(model)
    description = {**meta["input"], "classes": classes}
    title = f"{meta['model']}: what is in the photo?"
    summary = f"{len(classes):,} classes, {meta['artifact']['precision']}, {len(onnx) / 2**20:.1f} MiB"
    values = {
        "title": html.escape(title),
        "summary": html.escape(summary),
        "notice": html.escape(f"ONNX Runtime Web {runtime.version}, Copyright Microsoft Corporation, MIT License."),
        # A name may hold </script>.
        "description": json.dumps(description).replace("<", "\\u003c"),
        "runtime-script": _packed(runtime.script),
        "runtime-code": _packed(runtime.code),
        "model": _packed(onnx),
    }
    page = _PLACE.sub(lambda place: values[place[1]] if place[1] in values else _part(place[1]), _part("page.html"))
    path.write_text(page, encoding="utf-8")


def read_model(path: Path) -> bytes:
    """The ONNX file in a page. Raises `CheckpointError` if it holds none."""
    found = _MODEL.search(path.read_text(encoding="utf-8", errors="replace"))
    if found is None:
        raise CheckpointError(f"{path} holds no model: it was not written by `sequencer2d export --format web`")
    unpacking = zlib.decompressobj(wbits=31)  # gzip
    content = unpacking.decompress(base64.b64decode(found[1]), LARGEST_MODEL)
    if not unpacking.eof:
        raise CheckpointError(f"{path} holds a model that is cut off or larger than {LARGEST_MODEL // 2**30} GiB")
    return content


def _read_folder(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in (SCRIPT, CODE, ABOUT)}


def _read_archive(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        found = {name: archive.extractfile(f"package/{name}") for name in (SCRIPT, CODE, ABOUT)}
        return {name: file.read() for name, file in found.items() if file is not None}


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, mtime=0)).decode("ascii")


def _part(name: str) -> str:
    return (importlib.resources.files("sequencer2d.export") / "web" / name).read_text(encoding="utf-8")
