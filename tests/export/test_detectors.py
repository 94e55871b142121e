"""Detectors as ONNX: the boxes of torchvision's own code, names, metadata, and what is refused."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sequencer2d import create_model
from sequencer2d.dense import faster_rcnn, fcos, retinanet
from sequencer2d.errors import ConfigError, ExportError
from sequencer2d.export import detectors, export_detector, load_artifact, verify
from sequencer2d.export.detectors import Boxes
from sequencer2d.export.loaded import DetectorArtifact
from sequencer2d.export.metadata import describe_dense
from sequencer2d.export.timing import time_artifact
from sequencer2d.models.description import LARGEST_IMAGE
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


@pytest.mark.parametrize("make", [retinanet, fcos])
def test_boxes_are_those_of_torchvisions_own_code(make: Any) -> None:
    """Of an image whose sides are no multiples of the strides, with thresholds that matter."""
    found = small(make, score_thresh=0.3, detections_per_img=20, topk_candidates=50)
    plain, images = Boxes(found, (50, 70)), torch.randn(1, 3, 50, 70)
    with torch.no_grad():
        expected = found(images)[0]
        boxes, scores, labels, every_box, every_score = plain(images)
    assert 0 < len(scores) <= 20
    torch.testing.assert_close(boxes, expected["boxes"], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(scores, expected["scores"], rtol=1e-4, atol=1e-5)
    assert torch.equal(labels, expected["labels"])
    assert len(every_box) == len(every_score) == sum(plain.lengths)
    assert (plain.in_chans, every_score.shape[1]) == (3, 3)


@pytest.mark.parametrize(
    ("size", "fits"),
    [((1, 1), True), ((LARGEST_IMAGE, 1), True), ((LARGEST_IMAGE + 1, 1), False), ((1, 0), False), ((1, 2, 3), False)],
)
def test_sizes_from_one_pixel_to_the_largest_image_are_taken(size: Any, fits: bool) -> None:
    if fits:
        assert detectors._checked(size, None) == size
    else:
        with pytest.raises(ConfigError, match="expected height and width in pixels"):
            detectors._checked(size, None)


def test_without_a_size_the_models_own_is_taken() -> None:
    body = SimpleNamespace(pretrained_cfg={"input_size": [3, 20, 30]})
    inner = SimpleNamespace(backbone=SimpleNamespace(body=body))
    assert detectors._checked(None, SimpleNamespace(model=inner)) == (20, 30)
    own = SimpleNamespace(model=inner, pretrained_cfg={"input_size": (3, 40, 50)})
    assert detectors._checked(None, own) == (40, 50)


def test_rows_of_boxes_are_sorted_by_score_label_and_place() -> None:
    boxes = torch.tensor([[4.0, 0, 0, 0], [3.0, 0, 0, 0], [2.0, 0, 0, 0], [1.0, 0, 0, 0]])
    rows = detectors._rows([boxes, torch.tensor([0.5, 0.25, 0.5, 0.5]), torch.tensor([1, 9, 2, 1])])
    assert rows[:, :3].tolist() == [[0.25, 9, 3], [0.5, 1, 1], [0.5, 1, 4], [0.5, 2, 2]]


@pytest.mark.parametrize("case", ["same", "nothing remains", "boxes are lost", "boxes are invented", "scores differ"])
def test_a_detectors_file_is_compared_in_what_remains_and_in_all(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    threshold = 0.99 if case in ("nothing remains", "boxes are invented") else 0.3
    plain = Boxes(small(fcos, score_thresh=threshold, detections_per_img=20), (32, 40))

    def run(names: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        with torch.no_grad():
            boxes, scores, labels, every_box, every_score = plain(torch.from_numpy(inputs["images"]))
        if case == "boxes are lost":
            boxes, scores, labels = boxes[:0], scores[:0], labels[:0]
        if case == "boxes are invented":
            boxes, scores, labels = torch.ones(1, 4), torch.ones(1), torch.ones(1, dtype=torch.int64)
        if case == "scores differ":
            every_score = every_score * 1.25
            boxes, scores, labels = plain.select(every_box, every_score)
        return [value.numpy() for value in (boxes, scores, labels, every_box, every_score)]

    monkeypatch.setattr(detectors, "session_of", lambda proto: SimpleNamespace(run=run))
    monkeypatch.setattr(verify, "read_images", lambda model, size, files: torch.rand(len(files), 3, *size))
    found = detectors._compare(None, plain, [Path("a"), Path("b")])
    assert [(each.source, each.size, each.batch) for each in found] == [
        ("random", (32, 40), 1), ("images", (32, 40), 1), ("images", (32, 40), 1),
    ]  # fmt: skip
    wanted = {"same": 0.0, "nothing remains": 0.0, "scores differ": 0.25}.get(case, float("inf"))
    assert [each.relative for each in found] == pytest.approx([wanted] * 3)
