"""What several verbs share: arguments, configuration fields, devices, progress on the terminal."""

from __future__ import annotations

import argparse
import itertools
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from sequencer2d import terminal
from sequencer2d.choices import Orientation
from sequencer2d.cli.parsing import check_first
from sequencer2d.errors import ConfigError, DeviceError, UserError, how_to_install
from sequencer2d.precisions import PRECISIONS
from sequencer2d.ranges import expand_home

if TYPE_CHECKING:
    import torch
    from rich.console import Console
    from rich.progress import Progress

FIELD = re.compile(r"[A-Za-z_][\w.]*=")
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


def add_checkpoint(parser: argparse.ArgumentParser, *, peers: bool = False, optional: bool = False) -> None:
    """Add `CHECKPOINT` and `--model`.

    Args:
        parser: of the verb.
        peers: say that models of timm and the paper's peers are taken too.
        optional: say that it may be left out where a model comes with the package.
    """
    from sequencer2d.models.shipped import SHIPPED

    shipped = f"; or a model that comes with the package: {', '.join(SHIPPED)}" if SHIPPED else ""
    if optional and SHIPPED:
        shipped += " (it is taken if you name images alone)"
    peer = (
        "; or a model of timm: timm:NAME with its published weights, timm:NAME=FILE with others; or one of the paper's "
        "peers: NAME=FILE"
        if peers
        else ""
    )
    parser.add_argument(
        "checkpoint",
        nargs="?" if optional and SHIPPED else None,
        metavar="CHECKPOINT",
        help="a run's folder, a .safetensors or .pth file, or an id on the Hugging Face hub: hf-hub:owner/name"
        f"{peer}{shipped}",
    )
    parser.add_argument(
        "--model", metavar="NAME", help="name of the model, for a file that does not say which one it is"
    )
    check_first(parser, _check_named_model if peers else _check_checkpoint)


def add_device(parser: argparse.ArgumentParser, *, precision_of_run: bool = False) -> None:
    """Add `--device` and `--precision`, which is none by default where a run's own is to be taken."""
    parser.add_argument(
        "--device",
        default="auto",
        metavar="DEVICE",
        help="auto (CUDA if there is a GPU), cpu, cuda or cuda:INDEX (default: auto)",
    )
    said = "the run's own, for anything else fp32" if precision_of_run else "fp32"
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=None if precision_of_run else "fp32",
        help=f"arithmetic of the forward pass (default: {said})",
    )
    check_first(parser, check_device)


def add_download(parser: argparse.ArgumentParser) -> None:
    """Add `--download`."""
    parser.add_argument(
        "--download",
        action="store_true",
        help="fetch the published weights of timm:NAME from the Hugging Face hub if its cache does not hold them",
    )


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add `--trust`."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="load a .pt2 file, which holds code of whoever made it: that code runs with all that you may do",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="write JSON to standard output instead of a table")


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """Add `--orientation` and `--background`."""
    parser.add_argument(
        "--orientation",
        choices=get_args(Orientation),
        default="upright",
        help="turn photos as their EXIF orientation says, or take pixels as stored, as timm does (default: upright)",
    )
    parser.add_argument(
        "--background",
        default="white",
        metavar="COLOR",
        help="behind transparent pixels: a CSS name or #rrggbb; none drops transparency, as timm does (default: white)",
    )


def decoding_fields(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `add_decoding` took, as fields of a `DataConfig`."""
    return {"orientation": arguments.orientation, "background": arguments.background}


def positive(text: str) -> int:
    """An argument that is an integer of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text!r}")
    return value


def share(text: str) -> float:
    """An argument that is a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return value


def writable_path(text: str) -> Path:
    """An argument that is a path to write to; `~` is the home folder. One that cannot be written is a mistake."""
    path = _path(text)
    folder = path if path.is_dir() else next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        why = "is read-only, or not yours" if folder.is_dir() else "is a file, not a folder"
        raise argparse.ArgumentTypeError(f"cannot write to {path}: {folder} {why}; give another path")
    return path


def _path(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError("expected a path, got an empty one")
    try:
        return Path(expand_home(text, "the path"))
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def present_folder(text: str) -> Path:
    """An argument that is a folder which exists; `~` is the home folder."""
    path = _path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} {'is a file' if path.exists() else 'does not exist'}; give a folder")
    return path


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Add `FOLDER`, of one's own photos."""
    parser.add_argument(
        "folder",
        type=present_folder,
        metavar="FOLDER",
        help="folder of class folders, or of train/ and val/ with those",
    )


def new_folder(parent: Path, name: str) -> Path:
    """The first of parent/name, parent/name-2, … that does not exist yet."""
    numbered = (parent / (name if number == 1 else f"{name}-{number}") for number in itertools.count(1))
    return next(folder for folder in numbered if not folder.exists())


def field_values(arguments: list[str]) -> dict[str, str]:
    """["optimizer.lr=1e-3", …] as {"optimizer.lr": "1e-3", …}."""
    values: dict[str, str] = {}
    for argument in arguments:
        if not FIELD.match(argument):
            raise ConfigError(f"expected field=value, for example optimizer.lr=1e-3, got {argument!r}")
        path, _, value = argument.partition("=")
        values[path] = value
    return values


def check_images(arguments: argparse.Namespace) -> None:
    """Raise `DataError` for an image or a folder of --images or IMAGE that is not there or holds no image."""
    from sequencer2d.data.finding import find_images

    if arguments.images:
        find_images([arguments.images] if isinstance(arguments.images, str) else arguments.images, quiet=True)


def check_data(arguments: argparse.Namespace) -> None:
    """Raise `DataError` for a --data that is neither a kind of source nor a folder that exists."""
    from sequencer2d.data.opening import check_spec

    if arguments.data:
        check_spec(arguments.data)


def check_device(arguments: argparse.Namespace) -> None:
    """Raise `DeviceError` for a --device that no machine has. `resolve_device` checks whether this one has it."""
    if not _DEVICE.fullmatch(arguments.device):
        raise _no_device(arguments.device)


def _check_named_model(arguments: argparse.Namespace) -> None:
    from sequencer2d.models.specs import check_spec

    check_spec(arguments.checkpoint)


def _check_checkpoint(arguments: argparse.Namespace) -> None:
    from sequencer2d.export.naming import check_artifact, is_artifact
    from sequencer2d.models.locate import HUB_PREFIXES, locate

    if is_artifact(arguments.checkpoint):
        check_artifact(arguments.checkpoint)
    elif not arguments.checkpoint.startswith(HUB_PREFIXES):
        locate(arguments.checkpoint)


def _no_device(name: str) -> DeviceError:
    return DeviceError(f"unknown device {name!r}; expected auto, cpu, cuda or cuda:INDEX")


def resolve_device(name: str) -> torch.device:
    """The device of `--device`. Raises `DeviceError` for one that is not there."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise _no_device(name)
    if device.type == "cuda":
        _check_cuda(name, device.index or 0)
    return device


def need(package: str, extra: str, what: str) -> None:
    """Raise a `UserError` that names the extra when `package` is not installed."""
    import importlib.util

    if importlib.util.find_spec(package) is None:
        raise UserError(f"{what} needs the package {package}: {how_to_install(extra)}")


def progress_bar(unit: str) -> Progress:
    """A progress bar on standard error, so that standard output can be piped; silent where it is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = error_console()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def console() -> Console:
    """Standard output. Where it is no terminal, tables take the width they need instead of 80 columns."""
    return terminal.console(width=None if sys.stdout.isatty() else 200)


def error_console() -> Console:
    """Standard error, for progress and remarks."""
    return terminal.console(error=True)


def remark(text: str) -> None:
    """A line on standard error."""
    terminal.write(text, error=True)


def _check_cuda(name: str, index: int) -> None:
    import torch

    if not torch.cuda.is_available():
        raise DeviceError(
            f"--device {name} asks for a GPU, but PyTorch sees none here (torch {torch.__version__}, built for CUDA: "
            f"{torch.version.cuda or 'no'}); check nvidia-smi, or use --device cpu"
        )
    if index >= torch.cuda.device_count():
        raise DeviceError(f"--device {name}: there are {torch.cuda.device_count()} GPUs, numbered from 0")
