"""Artefacts as they are loaded: described, checked, and clear about what they cannot take."""

import json
from pathlib import Path

import onnx
import pytest
import torch

from sequencer2d.errors import CheckpointError, InputError
from sequencer2d.export import is_artifact, load_artifact
from sequencer2d.export.timing import time_artifact
from sequencer2d.models.sequencer2d import Sequencer2D
from tests.export.conftest import NAMES

FORMATS = ("torch", "onnx", "openvino")


@pytest.mark.parametrize("format", FORMATS)
def test_an_artefact_describes_itself(model: Sequencer2D, artefacts: dict[str, Path], format: str) -> None:
    artifact = load_artifact(artefacts[format])
    assert (artifact.kind, artifact.precision) == (format, "fp32")
    assert (artifact.num_classes, artifact.in_chans) == (len(NAMES), 3)
    assert artifact.pretrained_cfg["label_names"] == list(NAMES)
    for key in ("input_size", "mean", "std", "interpolation", "crop_pct"):
        assert artifact.pretrained_cfg[key] == model.pretrained_cfg[key]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("shape", [(1, 3, 4, 16), (1, 1, 16, 16), (3, 16, 16)], ids=str)
def test_images_that_do_not_fit_are_named(artefacts: dict[str, Path], format: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="images"):
        load_artifact(artefacts[format])(torch.randn(shape))


def test_another_version_is_refused_with_what_to_do(artefacts: dict[str, Path], tmp_path: Path) -> None:
    proto = onnx.load(artefacts["onnx"])
    entry = next(entry for entry in proto.metadata_props if entry.key == "sequencer2d")
    meta = json.loads(entry.value)
    meta["artifact"] |= {"version": 99, "sequencer2d": "9.9.0"}
    entry.value = json.dumps(meta)
    onnx.save(proto, tmp_path / "new.onnx")
    with pytest.raises(CheckpointError, match=r"version 99, written by sequencer2d 9.9.0.*export the model again"):
        load_artifact(tmp_path / "new.onnx")


def test_an_onnx_file_of_others_is_refused(artefacts: dict[str, Path], tmp_path: Path) -> None:
    proto = onnx.load(artefacts["onnx"])
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "other.onnx")
    with pytest.raises(CheckpointError, match="not written by `sequencer2d export`"):
        load_artifact(tmp_path / "other.onnx")


@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".pt2"])
def test_damaged_and_missing_files_are_said(artefacts: dict[str, Path], tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"broken{suffix}"
    with pytest.raises(CheckpointError, match="no artefact at"):
        load_artifact(path)
    path.write_bytes(b"no such thing")
    with pytest.raises(CheckpointError, match="cannot read"):
        load_artifact(path)


def test_a_truncated_program_is_said(artefacts: dict[str, Path], tmp_path: Path) -> None:
    content = artefacts["torch"].read_bytes()
    (tmp_path / "half.pt2").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="cannot read"):
        load_artifact(tmp_path / "half.pt2")


def test_names_of_artefacts() -> None:
    assert is_artifact("a/model.onnx")
    assert not is_artifact("runs/cifar10")
    assert not is_artifact("model.safetensors")


def test_timing_gives_a_row(artefacts: dict[str, Path]) -> None:
    row = time_artifact(load_artifact(artefacts["onnx"]), 2, (16, 20), measure_s=0.01)
    assert row["images_per_s"] > 0
    assert (row["batch"], row["size"], row["format"]) == (2, [16, 20], "onnx")
