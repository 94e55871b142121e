"""Pyramids and segmenters as ONNX: the same outputs at any size, names, metadata, and what is refused."""

import json
from pathlib import Path

import pytest
import torch

from sequencer2d import create_model
from sequencer2d.data.config import DataConfig
from sequencer2d.dense import Segmenter
from sequencer2d.errors import ConfigError, ExportError
from sequencer2d.evaluation.predict import predict
from sequencer2d.evaluation.subject import input_fields
from sequencer2d.export import export_dense, load_artifact, verify
from sequencer2d.tasks import SEGMENTATION
from tests.models.small import SIZES

onnxruntime = pytest.importorskip("onnxruntime")


def test_a_pyramids_maps_are_the_models_at_sizes_it_was_not_traced_with(tmp_path: Path) -> None:
    made = create_model("sequencer2d_n", features_only=True, pyramid=(4, 8, 16, 32), **SIZES).eval()
    exported = export_dense(made, tmp_path / "maps.onnx", sizes=((64, 96), (61, 50)))
    assert {row.size for row in exported.differences} == {(64, 96), (61, 50)}
    assert {row.source for row in exported.differences} == {"random", *(["images"] if verify.real_images() else [])}
    assert max(row.relative for row in exported.differences) <= 1e-4
    assert exported.recurrent_nodes > 0
    session = onnxruntime.InferenceSession(str(tmp_path / "maps.onnx"), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["map_4", "map_8", "map_16", "map_32"]
    said = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert said["strides"] == [4, 8, 16, 32]
    assert said["mean"] == pytest.approx([0.485, 0.456, 0.406])
    images = torch.randn(3, 3, 33, 100)
    found = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        for theirs, ours in zip(found, made(images), strict=True):
            torch.testing.assert_close(torch.from_numpy(theirs), ours, rtol=1e-4, atol=1e-4)


def test_a_file_that_differs_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "LIMITS", {"fp32": 0.0})
    made = create_model("sequencer2d_n", features_only=True, pyramid=(8,), **SIZES)
    with pytest.raises(ExportError, match=r"the ONNX model differs from the model by .* no file was left"):
        export_dense(made, tmp_path / "maps.onnx", images=[], sizes=((33, 40),))
    assert list(tmp_path.iterdir()) == []


def test_what_has_no_maps_and_other_suffixes_are_refused(tmp_path: Path) -> None:
    made = create_model("sequencer2d_n", features_only=True, pyramid=(8, 16), **SIZES)
    with pytest.raises(ConfigError, match=r"has the suffix \.onnx"):
        export_dense(Segmenter(made, 3), tmp_path / "maps.pt2")
    with pytest.raises(ConfigError, match="Linear is neither a feature pyramid nor a Segmenter"):
        export_dense(torch.nn.Linear(2, 2), tmp_path / "maps.onnx")


def test_a_segmenter_is_described_and_loaded_in_place_of_its_model(tmp_path: Path) -> None:
    made = create_model("sequencer2d_n", features_only=True, pyramid=(4, 8, 16, 32), **SIZES)
    model = Segmenter(made, 3).eval()
    export_dense(model, tmp_path / "roads.onnx", images=[], sizes=((33, 40),))
    artifact = load_artifact(tmp_path / "roads.onnx")
    assert (artifact.task, artifact.num_classes) == ("segmentation", 3)
    assert artifact.pretrained_cfg["crop_pct"] == 1
    images = torch.randn(2, 3, 50, 64)
    with torch.no_grad():
        torch.testing.assert_close(artifact(images), model(images), rtol=1e-4, atol=1e-4)
    (prediction,) = predict(
        artifact, torch.rand(3, 40, 60), DataConfig(**input_fields(artifact)), SEGMENTATION, class_names=tuple("abc")
    )
    assert prediction.found.labels.shape == (40, 60)
