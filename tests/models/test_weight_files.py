"""Files of tensors that were made to harm: each is a CheckpointError in one line, in little memory and time."""

import argparse
import io
import pickle
import resource
import time
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from sequencer2d.errors import CheckpointError
from sequencer2d.models import load_model, read_checkpoint
from sequencer2d.models.weight_files import read_torch_file

WEIGHT = torch.arange(6.0).reshape(2, 3)


def refused(path: Path, match: str) -> str:
    """Reading fails with one line, within a second and 300 MiB; that line."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=match) as caught:
        read_checkpoint(path)
    assert time.monotonic() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value), "no advice to switch off what protects"
    return str(caught.value)


def saved(content: Any, path: Path, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def with_pickle(path: Path, content: bytes) -> Path:
    """A file of torch.save whose pickle is replaced."""
    buffer = io.BytesIO()
    torch.save({"weight": WEIGHT}, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, content if entry.filename.endswith("data.pkl") else source.read(entry))
    return path


def pickle_of(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with zipfile.ZipFile(buffer) as archive:
        return archive.read("archive/data.pkl")


@pytest.mark.parametrize("legacy", [False, True])
def test_what_training_scripts_store_is_read(tmp_path: Path, legacy: bool) -> None:
    tied = torch.rand(3, dtype=torch.float64)
    content = {
        "state_dict": OrderedDict(a=WEIGHT, b=torch.nn.Parameter(WEIGHT.clone()), c=WEIGHT.bfloat16().t()),
        "optimizer": {
            "state": {0: {"step": torch.tensor(3.0), "tied": [tied, tied]}},
            "groups": [{"betas": (0.9, 1.0)}],
        },
        "scheduler": {"milestones": Counter([3, 3, 5])},
        "args": argparse.Namespace(lr=0.1, names=["a"], sizes={1, 2}),
        "torch": (torch.float16, torch.device("cpu"), torch.Size([2]), b"bytes", None, 1j),
    }
    path = saved(content, tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    read = read_torch_file(path)
    assert all(torch.equal(read["state_dict"][name], content["state_dict"][name]) for name in "abc")
    assert isinstance(read["state_dict"]["b"], torch.nn.Parameter)
    assert read["optimizer"]["groups"] == content["optimizer"]["groups"]
    first, second = read["optimizer"]["state"][0]["tied"]
    assert first is second
    assert torch.equal(first, tied)
    assert (read["scheduler"], read["args"], read["torch"]) == (
        content["scheduler"], content["args"], content["torch"],
    )  # fmt: skip
    path.write_bytes(b"")  # what was read does not hang on the file
    assert torch.equal(read["state_dict"]["a"], WEIGHT)


def test_an_archive_that_unpacks_to_more_than_the_file_is_refused(tmp_path: Path) -> None:
    source = saved({"weight": torch.zeros(2**26)}, tmp_path / "big.pt")
    with zipfile.ZipFile(source) as big, zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        for entry in big.infolist():
            bomb.writestr(entry.filename, big.read(entry))
    assert (tmp_path / "bomb.pt").stat().st_size < 2**19
    source.unlink()
    refused(tmp_path / "bomb.pt", r"unpack to 268,4\d\d,\d\d\d")


def test_entries_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    path = saved({"weight": torch.rand(2**16)}, tmp_path / "w.pt")
    with zipfile.ZipFile(path, "a") as archive:
        entry = next(entry for entry in archive.infolist() if entry.filename.endswith("data/0"))
        for number in range(100):
            twin = zipfile.ZipInfo(f"w/data/{number + 1}")
            for field in ("CRC", "compress_size", "file_size", "header_offset", "compress_type"):
                setattr(twin, field, getattr(entry, field))
            archive.filelist.append(twin)
            archive.NameToInfo[twin.filename] = twin
        archive._didModify = True
    refused(path, "unpack to")


class Make:
    """An object whose pickle calls `function(*arguments)`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize(
    "value, found",
    [
        (Make(bytearray, 10**10), "builtins.bytearray"),
        (np.float64(3), "numpy"),
        (Make(torch._utils._rebuild_qtensor), "torch._utils._rebuild_qtensor"),
        (Make(print, "code ran"), "print"),
        (Make(getattr, "text", "upper"), "getattr"),
    ],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_objects_are_named_and_never_built(
    tmp_path: Path, value: Any, found: str, legacy: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    path = saved({"w": WEIGHT, "x": value}, tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    message = refused(path, "can run code of whoever made the file")
    assert found in message.partition("Found: ")[2]
    assert "code ran" not in capfd.readouterr().out


@pytest.mark.parametrize("protocol", [0, 1, 3, 4, 5])
def test_pickles_of_other_protocols_are_refused_in_words_of_ours(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "w.pt").write_bytes(pickle.dumps({"weight": Make(print, "code ran")}, protocol=protocol))
    refused(tmp_path / "w.pt", "can run code of whoever made the file")


def test_a_storage_cannot_reach_beyond_its_file(tmp_path: Path) -> None:
    small, large = pickle_of({"weight": torch.zeros(6)}), pickle_of({"weight": torch.zeros(2**28)})
    assert small != large
    refused(with_pickle(tmp_path / "w.pt", large), "cannot read|claim more memory")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_number_repeated_without_memory_is_refused(tmp_path: Path, legacy: bool) -> None:
    wide = torch.zeros(1).expand(2**20, 2**14)
    path = saved({"weight": wide}, tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    refused(path, "claim more memory than the file has bytes")


def test_many_views_of_one_storage_are_refused(tmp_path: Path) -> None:
    base = torch.zeros(2**20)
    refused(saved({f"w{i}": base[:] for i in range(2000)}, tmp_path / "w.pt"), "claim more memory")


def test_containers_that_hold_themselves_or_each_other_end(tmp_path: Path) -> None:
    own: list[Any] = [WEIGHT]
    own.append(own)
    doubled: Any = [WEIGHT]
    for _ in range(200):
        doubled = [doubled, doubled]
    read = read_torch_file(saved({"own": own, "doubled": doubled}, tmp_path / "w.pt"))
    assert read["own"][1] is read["own"]
    deep: Any = b"]" * 100_000 + b"a" * 99_999
    refused(with_pickle(tmp_path / "deep.pt", b"\x80\x02" + deep + b"."), "cannot read|holds a list")


def test_programs_of_torchscript_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("w/constants.pkl", pickle.dumps(()))
        archive.writestr("w/data.pkl", pickle.dumps({}))
    refused(tmp_path / "w.pt", "TorchScript program, which holds code")


@pytest.mark.parametrize(
    "state, complaint",
    [
        ({3: WEIGHT}, "'3' is no name"),
        ({"": WEIGHT}, "'' is no name"),
        ({"module." * 10**5: WEIGHT}, "is no name"),
        ({"stem.proj.weight": torch.empty(3, device="meta")}, "no dense tensor|cannot read|is not read"),
        ({"stem.proj.weight": WEIGHT.to_sparse()}, "can run code|no dense tensor"),
        ({"stem.proj.weight": torch.zeros(3, dtype=torch.complex64)}, "not finite numbers"),
        ({"a": WEIGHT, "b": WEIGHT / 0}, "not finite numbers .* in 1 of 2 tensors, b first"),
        ({"a": torch.tensor([torch.inf], dtype=torch.bfloat16)}, "not finite"),
        ({"a": torch.tensor([torch.nan]).to(torch.float8_e4m3fn)}, "not finite"),
    ],
)
def test_tensors_that_are_no_weights_are_named(tmp_path: Path, state: Any, complaint: str) -> None:
    refused(saved(state, tmp_path / "w.pt"), complaint)


def test_safetensors_with_nan_or_a_hostile_header_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file({"norm.weight": torch.tensor([torch.nan])}, path)
    refused(path, r"not finite numbers .* norm\.weight first")
    for text in ("{", "[" * 100_000, '{"a":' * 100 + "1" + "}" * 100, '{"num_classes": NaN}', '{"a": 1e999}', "\udcff"):
        try:
            safetensors.torch.save_file({"norm.weight": WEIGHT}, path, {"sequencer2d": text})
        except UnicodeEncodeError:
            continue
        refused(path, "cannot read")


@pytest.mark.parametrize("number", ["1" * 5000, "9" * 400])
def test_parameters_of_stages_that_cannot_be_are_refused(tmp_path: Path, number: str) -> None:
    path = saved({f"blocks.{number}.0.norm1.weight": WEIGHT}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError):
        load_model(path)
