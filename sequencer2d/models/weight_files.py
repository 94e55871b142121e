"""Files of tensors, read as what they are: data that somebody else wrote.

One reader for every `.pt` and every `.safetensors` file of the package. Nothing of a file is executed, a damaged one is
noticed, and a small file cannot ask for much memory (docs/security.md).
"""

import argparse
import os
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import safetensors
import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from sequencer2d.errors import CheckpointError, first_line
from sequencer2d.files import parse_json

HEADER_KEY = "sequencer2d"
"""Entry of a `.safetensors` header that holds what a file of ours says of itself."""
LONGEST_NAME = 500
"""Characters of a parameter's name, at most."""

# What may stand in a pickle beside numbers, text, lists and dicts. `torch.load` takes some more, among them bytearray,
# with which a few bytes can ask for any amount of memory.
_PLAIN = {
    "_codecs.encode",
    "argparse.Namespace",
    "builtins.complex",
    "builtins.set",
    "collections.Counter",
    "collections.OrderedDict",
    "torch.Size",
    "torch.Tensor",
    "torch.device",
    "torch.nn.parameter.Parameter",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
}
_STORAGE = re.compile(r"torch(\.cuda|\.storage)?\.\w*Storage")
# A legacy file holds several pickles in a row: magic number, protocol, system, content, keys of the storages.
_LEGACY_PICKLES = 5


class _RefusedError(Exception):
    """A file that is whole, and holds what is not read."""


def read_torch_file(path: str | os.PathLike[str]) -> Any:
    """What `torch.save` wrote: tensors on the CPU, in containers of plain values.

    Raises:
        CheckpointError: damaged (every entry's check sum is compared), more than tensors and plain values, or tensors
            that claim more memory than the file has bytes.
    """
    path = Path(path)
    try:
        archived = zipfile.is_zipfile(path)
        if archived:
            _check_archive(path)
        _check_pickles(path, archived)
        # timm's and the authors' training scripts store their argparse.Namespace, which holds plain values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            # Mapped, a storage cannot reach beyond the file, whatever size the pickle claims for it.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=archived)
        return _Copies(path.stat().st_size).copy(content)
    except _RefusedError as error:
        raise CheckpointError(f"{path} is not read: {error}") from None
    except pickle.UnpicklingError:
        # Not chained: torch's message advises to switch the check off.
        raise CheckpointError(f"{path} is not read: it {HOLDS_OBJECTS}") from None
    except Exception as error:
        # A damaged file fails anywhere between zip, pickle and tensor, with as many types of error.
        raise CheckpointError(describe_damage(path, error)) from error


def read_safetensors_file(path: Path) -> tuple[dict[str, Tensor], Any]:
    """The tensors of a `.safetensors` file, and what its header says of the model ({} if nothing).

    Raises:
        CheckpointError: damaged.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (a file is no mapping)
            return state, _description(file)
    except Exception as error:
        raise CheckpointError(describe_damage(path, error)) from error


def read_safetensors_description(path: Path) -> Any:
    """What the header of a `.safetensors` file says of its model ({} if nothing), without its tensors.

    Raises:
        CheckpointError: damaged.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return _description(file)
    except Exception as error:
        raise CheckpointError(describe_damage(path, error)) from error


def _description(file: Any) -> Any:
    header = file.metadata() or {}
    return parse_json(header[HEADER_KEY]) if HEADER_KEY in header else {}


def check_weights(state: Mapping[Any, Any], path: Path) -> None:
    """Raise `CheckpointError` unless `state` is a state dict of dense tensors, all of whose numbers are finite."""
    for name, tensor in state.items():
        if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME:
            raise CheckpointError(f"{path}: {str(name)[:40]!r} is no name of a parameter")
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise CheckpointError(f"{path}: {name} is no dense tensor of plain numbers; save the weights unquantized")
    broken = [name for name, tensor in state.items() if not _is_finite(tensor)]
    if broken:
        raise CheckpointError(
            f"{path} holds weights that are not finite numbers (NaN or infinity), in {len(broken)} of {len(state)} "
            f"tensors, {broken[0]} first: the training that wrote them had failed; take an earlier checkpoint"
        )


def check_plain(state: Mapping[str, Tensor], path: Path) -> None:
    """Raise `CheckpointError` if a tensor that shall be written is one of another library's: quantized or sharded."""
    for name, tensor in state.items():
        if not is_traceable_wrapper_subclass(tensor):
            continue
        kind = type(tensor)
        remedy = (
            "gather the weights on all processes (torch.distributed.checkpoint.state_dict.get_model_state_dict with "
            "full_state_dict=True), load them into a model that is not sharded, and save that one"
            if kind.__module__.startswith("torch.distributed.")
            else "save the model before it is quantized, and quantize what you load"
        )
        raise CheckpointError(
            f"cannot write {path}: {name} is of the type {kind.__name__}, which no file of weights holds; {remedy}"
        )


def describe_damage(path: Path, error: Exception) -> str:
    """The message about a file that cannot be read because of `error`."""
    size = path.stat().st_size if path.exists() else 0
    return (
        f"cannot read {path} ({size} bytes): damaged, truncated or not a file of weights alone. "
        f"Copy or download it again. Reason: {first_line(error)}"
    )


HOLDS_OBJECTS = (
    "holds objects of Python, and to build those can run code of whoever made the file. Only tensors, numbers, text, "
    "lists and dicts are read. Ask for the weights alone, as a .safetensors file, or write one where you trust the "
    "file: safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"
)


def _check_archive(path: Path) -> None:
    """Refuse a zip archive whose entries unpack to more than the file, and compare the check sums.

    `torch.save` compresses nothing; `torch.load` ignores check sums and loads damaged weights.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.filename.endswith("/constants.pkl") for entry in entries):
            raise _RefusedError("it is a TorchScript program, which holds code; save the weights: model.state_dict()")
        unpacked = sum(entry.file_size for entry in entries)
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or unpacked > path.stat().st_size:
            raise _RefusedError(
                f"its {path.stat().st_size:,} bytes unpack to {unpacked:,}, and no file of torch.save is packed"
            )
        if (damaged := archive.testzip()) is not None:
            raise ValueError(f"its entry {damaged} does not match its check sum")


def _check_pickles(path: Path, archived: bool) -> None:
    """Refuse pickles that name more than tensors and plain containers, before anything is built from them."""
    for name in _globals(path, archived):
        if not _is_plain(name):
            raise _RefusedError(f"it {HOLDS_OBJECTS}. Found: {re.sub(r'[^a-zA-Z0-9_.]', '?', name)[:80]}")


def _globals(path: Path, archived: bool) -> Iterator[str]:
    """The names of modules' contents that the file's pickles ask for."""
    if archived:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.filename.endswith("/data.pkl"):
                    with archive.open(entry) as file:
                        yield from _globals_of(file)
    else:
        with path.open("rb") as file:
            for _ in range(_LEGACY_PICKLES):
                yield from _globals_of(file)


def _globals_of(file: IO[bytes]) -> Iterator[str]:
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in ("GLOBAL", "INST"):
            # Protocol 2 calls the builtins as Python 2 did.
            yield str(argument).replace(" ", ".", 1).replace("__builtin__.", "builtins.", 1)
        elif opcode.name == "STACK_GLOBAL":
            raise pickle.UnpicklingError("a pickle of a newer protocol than torch.save writes")


def _is_plain(name: str) -> bool:
    if name in _PLAIN or _STORAGE.fullmatch(name):
        return True
    module, _, last = name.rpartition(".")
    return module == "torch" and isinstance(getattr(torch, last, None), torch.dtype)


class _Copies:
    """Copies content into memory of its own: the mapped file may change. Shared tensors stay shared.

    Views of one storage become tensors of their own, so the copies may take a little more than the file has bytes.
    """

    def __init__(self, file_size: int) -> None:
        self._left = 4 * file_size + 2**20
        # Each value stands beside its copy: a list that holds itself has an end, and no id is given out twice.
        self._done: dict[int, tuple[Any, Any]] = {}

    def copy(self, value: Any) -> Any:
        if id(value) in self._done:
            return self._done[id(value)][1]
        if isinstance(value, dict | list):
            self._done[id(value)] = (value, value)
            for key in list(value) if isinstance(value, dict) else range(len(value)):
                value[key] = self.copy(value[key])
            return value
        if not isinstance(value, Tensor | tuple):
            return value
        result = self._copy_tensor(value) if isinstance(value, Tensor) else tuple(self.copy(item) for item in value)
        self._done[id(value)] = (value, result)
        return result

    def _copy_tensor(self, tensor: Tensor) -> Tensor:
        size = tensor.numel() * tensor.element_size()
        self._left -= size
        if self._left < 0 or size > tensor.untyped_storage().nbytes():
            raise _RefusedError("its tensors claim more memory than the file has bytes")
        copy = tensor.detach().clone()
        return torch.nn.Parameter(copy, tensor.requires_grad) if isinstance(tensor, torch.nn.Parameter) else copy


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point():
        return not tensor.is_complex()
    wide = tensor if tensor.element_size() > 1 else tensor.float()
    return bool(wide.isfinite().all())
