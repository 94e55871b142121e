"""Artifacts as they are loaded: described, checked, and clear about what they cannot take."""

import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import onnx
import pytest
import torch

from sequencer2d.errors import CheckpointError, InputError, TrustError
from sequencer2d.export import is_artifact, load_artifact
from sequencer2d.export.timing import time_artifact
from sequencer2d.models.sequencer2d import Sequencer2D
from tests.export.conftest import NAMES

FORMATS = ("torch", "onnx", "openvino")


@pytest.mark.parametrize("format", FORMATS)
def test_an_artifact_describes_itself(model: Sequencer2D, artifacts: dict[str, Path], format: str) -> None:
    artifact = load_artifact(artifacts[format], trust=True)
    assert (artifact.kind, artifact.precision) == (format, "fp32")
    assert (artifact.num_classes, artifact.in_chans) == (len(NAMES), 3)
    assert artifact.pretrained_cfg["num_classes"] == len(NAMES)
    assert artifact.pretrained_cfg["label_names"] == list(NAMES)
    for key in ("input_size", "mean", "std", "interpolation", "crop_pct"):
        assert artifact.pretrained_cfg[key] == model.pretrained_cfg[key]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("shape", [(1, 3, 4, 16), (1, 1, 16, 16), (3, 16, 16)], ids=str)
def test_images_that_do_not_fit_are_named(artifacts: dict[str, Path], format: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="images"):
        load_artifact(artifacts[format], trust=True)(torch.randn(shape))


def test_another_version_is_refused_with_what_to_do(artifacts: dict[str, Path], tmp_path: Path) -> None:
    proto = onnx.load(artifacts["onnx"])
    entry = next(entry for entry in proto.metadata_props if entry.key == "sequencer2d")
    meta = json.loads(entry.value)
    meta["artifact"] |= {"version": 99, "sequencer2d": "9.9.0"}
    entry.value = json.dumps(meta)
    onnx.save(proto, tmp_path / "new.onnx")
    with pytest.raises(CheckpointError, match=r"version 99, written by sequencer2d 9.9.0.*export the model again"):
        load_artifact(tmp_path / "new.onnx")


def test_an_onnx_file_of_others_is_refused(artifacts: dict[str, Path], tmp_path: Path) -> None:
    proto = onnx.load(artifacts["onnx"])
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "other.onnx")
    with pytest.raises(CheckpointError, match="not written by `sequencer2d export`"):
        load_artifact(tmp_path / "other.onnx")


@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".pt2"])
def test_damaged_and_missing_files_are_said(artifacts: dict[str, Path], tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"broken{suffix}"
    with pytest.raises(CheckpointError, match="no artifact at"):
        load_artifact(path, trust=True)
    path.write_bytes(b"no such thing")
    with pytest.raises(CheckpointError, match="cannot read"):
        load_artifact(path, trust=True)


def test_a_truncated_program_is_said(artifacts: dict[str, Path], tmp_path: Path) -> None:
    content = artifacts["torch"].read_bytes()
    (tmp_path / "half.pt2").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="cannot read"):
        load_artifact(tmp_path / "half.pt2", trust=True)


def test_a_program_with_other_sample_inputs_is_said(artifacts: dict[str, Path], tmp_path: Path) -> None:
    path, other = tmp_path / "changed.pt2", io.BytesIO()
    torch.save({"x": torch.zeros(1)}, other)
    with zipfile.ZipFile(artifacts["torch"]) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:
        for info in source.infolist():
            is_changed = "/sample_inputs/" in info.filename
            target.writestr(info.filename, other.getvalue() if is_changed else source.read(info))
    with pytest.raises(CheckpointError, match="cannot read") as caught:
        load_artifact(path, trust=True)
    assert "\n" not in str(caught.value)


def test_names_of_artifacts() -> None:
    assert is_artifact("a/model.onnx")
    assert not is_artifact("runs/cifar10")
    assert not is_artifact("model.safetensors")


def test_timing_gives_a_row(artifacts: dict[str, Path]) -> None:
    row = time_artifact(load_artifact(artifacts["onnx"]), 2, (16, 20), measure_s=0.01)
    assert row["images_per_s"] > 0
    assert (row["batch"], row["size"], row["format"]) == (2, [16, 20], "onnx")


class Attack:
    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (print, ("code ran",))


def test_a_file_that_holds_code_is_not_even_opened_without_consent(
    artifacts: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive with a pickle where a package holds its library, and one of ours."""
    path = tmp_path / "attack.pt2"
    with zipfile.ZipFile(artifacts["torch"]) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
        target.writestr("torch/data/aotinductor/model/model.so", pickle.dumps(Attack()))
    opened = []
    monkeypatch.setattr(zipfile, "ZipFile", lambda *arguments: opened.append(arguments))
    for file in (path, artifacts["torch"]):
        with pytest.raises(TrustError, match=r"holds code, .* --trust"):
            load_artifact(file)
    assert not opened
    assert "code ran" not in capfd.readouterr().out


@pytest.mark.parametrize("format", ["torch", "onnx", "openvino"])
@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"num_classes": "five"}, "num_classes is 'five'; expected an integer"),
        ({"num_classes": 7}, "5 names for 7 classes"),
        ({"num_classes": 9, "class_names": None}, "gives outputs of shape .1, 5., and describes .1, 9."),
        ({"class_names": [1, 2, 3, 4, 5]}, "class_names is"),
        ({"class_names": [["x"]] * 5}, "class_names is a list"),
        ({"in_chans": 0}, "in_chans is 0"),
        ({"input": {"size": [10**9, 10**9]}}, r"input\.size"),
        ({"input": None}, "input is None"),
        ({"artifact": {"version": 1}}, r"lacks artifact\.kind"),
        ({"artifact": {"version": [1]}}, r"artifact\.version"),
    ],
)
def test_descriptions_are_checked_field_by_field(
    artifacts: dict[str, Path], tmp_path: Path, format: str, change: dict[str, Any], complaint: str
) -> None:
    path = describe_anew(artifacts[format], tmp_path, lambda meta: meta | change)
    with pytest.raises(CheckpointError, match=complaint):
        load_artifact(path, trust=True)(torch.randn(1, 3, 16, 16))


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "null", '{"artifact": NaN}', '{"a":' * 90 + "1" + "}" * 90])
def test_descriptions_that_are_no_json_are_refused(artifacts: dict[str, Path], tmp_path: Path, text: str) -> None:
    path = describe_anew(artifacts["onnx"], tmp_path, lambda meta: text)
    with pytest.raises(CheckpointError, match="description"):
        load_artifact(path)


def describe_anew(source: Path, folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A copy of an artifact with another description."""
    target = folder / source.name
    if source.suffix == ".onnx":
        proto = onnx.load(source)
        entry = next(entry for entry in proto.metadata_props if entry.key == "sequencer2d")
        entry.value = text_of(change(json.loads(entry.value)))
        onnx.save(proto, target)
    elif source.suffix == ".xml":
        shutil.copy(source.with_suffix(".bin"), target.with_suffix(".bin"))
        tree = ET.parse(source)
        element = tree.find("rt_info/sequencer2d/sequencer2d")
        assert element is not None
        element.set("value", text_of(change(json.loads(element.attrib["value"]))))
        tree.write(target)
    else:
        with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
            for item in old.infolist():
                content = old.read(item)
                if item.filename.endswith("extra/sequencer2d"):
                    content = text_of(change(json.loads(content))).encode()
                new.writestr(item.filename, content)
    return target


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
