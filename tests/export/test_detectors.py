"""Detectors as ONNX: the boxes of torchvision's own code, names, metadata, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from sequencer2d import create_model
from sequencer2d.dense import faster_rcnn, fcos, retinanet
from sequencer2d.errors import ConfigError, ExportError
from sequencer2d.export import export_detector, load_artifact, verify
from sequencer2d.export.detectors import Boxes
from sequencer2d.export.loaded import DetectorArtifact
from sequencer2d.export.metadata import describe_dense
from sequencer2d.export.timing import time_artifact
from tests.models.small import SIZES

onnxruntime = pytest.importorskip("onnxruntime")


def small(make, strides=(8, 16, 32), **options):
    """A detector whose head finds something: torchvision's start with scores of 1 %."""
    torch.manual_seed(0)
    detector = make(create_model("sequencer2d_n", features_only=True, pyramid=strides, **SIZES), 3, **options).eval()
    for parameter in detector.model.head.parameters() if hasattr(detector.model, "head") else ():
        nn.init.normal_(parameter, std=0.03)
    return detector


@pytest.mark.parametrize("make", [retinanet, fcos])
def test_the_file_finds_the_boxes_that_the_model_finds(make, tmp_path: Path) -> None:
    detector = small(make, score_thresh=0.3, detections_per_img=60, topk_candidates=150)
    exported = export_detector(detector, tmp_path / "boxes.onnx", size=(90, 120))
    assert {row.source for row in exported.differences} == {"random", *(["images"] if verify.real_images() else [])}
    assert max(row.relative for row in exported.differences) <= 1e-4
    assert exported.recurrent_nodes > 0
    session = onnxruntime.InferenceSession(str(tmp_path / "boxes.onnx"), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [1, 3, 90, 120]
    assert [(output.name, output.shape) for output in session.get_outputs()] == [
        ("boxes", ["objects", 4]), ("scores", ["objects"]), ("labels", ["objects"]),
    ]  # fmt: skip
    images = torch.randn(1, 3, 90, 120)
    with torch.no_grad():
        expected = detector(images)[0]
    boxes, scores, labels = map(torch.from_numpy, session.run(None, {"images": images.numpy()}))
    assert 0 < len(scores) <= 60
    assert scores.min() > 0.3
    torch.testing.assert_close(boxes, expected["boxes"], rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(scores, expected["scores"], rtol=1e-4, atol=1e-4)
    assert torch.equal(labels, expected["labels"])
    said = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert said["mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert said["size"] == [90, 120]
    assert said["class_names"] is None
    assert said["sequencer2d"]["task"] == "detection"
    artifact = load_artifact(tmp_path / "boxes.onnx")
    assert (artifact.task, artifact.num_classes) == ("detection", 3)
    found = artifact(torch.cat([images, images.flip(0)]))
    assert len(found) == 2
    for one in found:
        assert torch.equal(one["boxes"], boxes)
        assert (one["size"].tolist(), bool(one["finite"])) == ([90, 120], True)
    smaller_than_the_file_and_larger(artifact, images)


def smaller_than_the_file_and_larger(artifact: nn.Module, images: torch.Tensor) -> None:
    """An image in the upper left stays as it is; one that is twice as large is reduced, with boxes in that size."""
    cut = artifact(images[..., :60, :80])[0]
    padded = artifact(nn.functional.pad(images[..., :60, :80], (0, 40, 0, 30)))[0]
    assert torch.equal(cut["scores"], padded["scores"])
    assert cut["boxes"].amax(0)[2:].tolist() <= [80, 60]
    large = artifact(images.repeat_interleave(2, -1).repeat_interleave(2, -2))[0]
    assert large["size"].tolist() == [90, 120]
    turned = artifact(torch.randn(1, 3, 120, 90))[0]
    assert turned["size"].tolist() == [90, 68]


def test_the_speed_of_a_file_is_measured_at_its_own_size_alone(tmp_path: Path) -> None:
    stated = create_model("sequencer2d_n", **SIZES).pretrained_cfg
    meta = describe_dense("detection", stated, 3, (64, 96))
    empty = [torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64)]
    artifact = DetectorArtifact(tmp_path / "boxes.onnx", meta, lambda images: empty)
    assert time_artifact(artifact, 2, (64, 96), measure_s=0.01)["size"] == [64, 96]
    with pytest.raises(ConfigError, match=r"boxes\.onnx takes images of 64×96 pixels alone: leave the size out"):
        time_artifact(artifact, 1, (128, 128))


def test_where_no_score_is_high_enough_nothing_is_found() -> None:
    found = Boxes(small(fcos, score_thresh=0.99), (64, 64))(torch.randn(1, 3, 64, 64))
    assert [tuple(x.shape) for x in found[:3]] == [(0, 4), (0,), (0,)]


def test_two_stages_other_models_and_sizes_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"FasterRCNN is not exported: .*train model\.decoder=retinanet or fcos"):
        export_detector(small(faster_rcnn, (4, 8, 16, 32)), tmp_path / "boxes.onnx")
    with pytest.raises(ConfigError, match=r"Linear is no detector of sequencer2d\.dense"):
        export_detector(nn.Linear(2, 2), tmp_path / "boxes.onnx")
    detector = small(fcos)
    for size in ((0, 64), (64,), (64.0, 64)):
        with pytest.raises(ConfigError, match="expected height and width in pixels"):
            export_detector(detector, tmp_path / "boxes.onnx", size=size)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
