"""Loaded artifacts as modules, and what is read of a file without its runtime."""

import logging
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sequencer2d.errors import CheckpointError, InputError, UserError
from sequencer2d.export import artifacts, is_artifact, metadata
from sequencer2d.export.loaded import Artifact, DetectorArtifact, SegmenterArtifact
from sequencer2d.export.naming import check_artifact
from sequencer2d.export.programs import hushed, quiet
from sequencer2d.models.sequencer2d import Sequencer2D
from tests.export.conftest import NAMES, small


class Recorder:
    """A runtime that keeps its inputs and gives the same outputs each time."""

    def __init__(self, *outputs: Tensor) -> None:
        self.outputs, self.inputs = outputs, list[Tensor]()

    def __call__(self, images: Tensor) -> list[Tensor]:
        self.inputs.append(images)
        return list(self.outputs)


@pytest.fixture(scope="module")
def meta() -> dict[str, Any]:
    return metadata.describe(small(), "onnx", "fp32")


def test_a_runtime_is_given_images_as_it_needs_them(meta: dict[str, Any]) -> None:
    run = Recorder(torch.zeros(2, 5), torch.ones(2, 5))
    images = torch.randn(2, 8, 9, 3, dtype=torch.float64, requires_grad=True).permute(0, 3, 1, 2)
    logits = Artifact(Path("m.onnx"), meta, run)(images)
    assert logits is run.outputs[0]
    (given,) = run.inputs
    assert (given.dtype, given.is_contiguous(), given.requires_grad) == (torch.float32, True, False)
    torch.testing.assert_close(given.double(), images.detach(), rtol=1e-6, atol=1e-6)


def test_an_artifact_knows_itself(meta: dict[str, Any]) -> None:
    artifact = Artifact(Path("a/m.onnx"), meta, Recorder())
    assert (artifact.task, artifact.kind, artifact.precision) == ("classification", "onnx", "fp32")
    assert repr(artifact) == "Artifact(m.onnx, onnx, fp32)"
    assert Artifact(Path("m.onnx"), {**meta, "task": "depth"}, Recorder()).task == "depth"


@pytest.mark.parametrize(
    ("shape", "fits"),
    [((1, 3, 8, 8), True), ((1, 3, 7, 8), False), ((1, 3, 8, 7), False), ((1, 4, 8, 8), False), ((3, 3, 8), False)],
)
def test_the_smallest_images_make_two_tokens(meta: dict[str, Any], shape: tuple[int, ...], fits: bool) -> None:
    artifact = Artifact(Path("m.onnx"), meta, Recorder(torch.zeros(1, 5)))
    if fits:
        artifact(torch.zeros(shape))
    else:
        with pytest.raises(InputError, match="images"):
            artifact(torch.zeros(shape))


def test_a_segmenter_gives_its_only_output(meta: dict[str, Any]) -> None:
    run = Recorder(torch.zeros(1, 5, 8, 8))
    assert SegmenterArtifact(Path("m.onnx"), meta, run)(torch.zeros(1, 3, 8, 8)) is run.outputs[0]
    with pytest.raises(InputError, match="too small"):
        SegmenterArtifact(Path("m.onnx"), meta, run)(torch.zeros(1, 3, 8, 7))


def detector(size: tuple[int, int], *outputs: Tensor) -> tuple[DetectorArtifact, Recorder]:
    stated = small().pretrained_cfg
    run = Recorder(*outputs)
    return DetectorArtifact(Path("m.onnx"), metadata.describe_dense("detection", stated, 5, size), run), run


@pytest.mark.parametrize(
    ("given", "reduced"),
    [
        ((20, 30), (20, 30)),  # as large as the file's
        ((10, 12), (10, 12)),  # never enlarged
        ((40, 60), (20, 30)),
        ((20, 60), (10, 30)),
        ((80, 30), (20, 8)),  # 7.5 is rounded to the even number
        ((1, 600), (1, 30)),  # 0.05 rows are one
    ],
)
def test_an_image_fits_into_the_file_with_its_proportions(given: tuple[int, int], reduced: tuple[int, int]) -> None:
    boxes = torch.tensor([[1.0, 1.0, 99.0, 99.0], [0.0, 0.0, 2.0, 1.0]])
    artifact, run = detector((20, 30), boxes, torch.tensor([0.5, 0.25]), torch.tensor([3, 4]))
    assert artifact.only_size == (20, 30)
    (found,) = artifact(torch.ones(1, 3, *given))
    (image,) = run.inputs
    height, width = max(1, reduced[0]), reduced[1]
    assert image.shape == (1, 3, 20, 30)
    torch.testing.assert_close(image[..., :height, :width], torch.ones(1, 3, height, width))
    assert image.sum() == pytest.approx(3 * height * width)  # zeros on the right and below
    assert found["size"].tolist() == [height, width]
    assert found["boxes"][0].tolist() == [1, 1, width, height]
    assert found["boxes"][1].tolist() == [0, 0, 2, 1]
    assert (found["scores"].tolist(), found["labels"].tolist(), bool(found["finite"])) == ([0.5, 0.25], [3, 4], True)


@pytest.mark.parametrize("place", ["boxes", "scores"])
def test_what_is_not_finite_is_told(place: str) -> None:
    boxes, scores = torch.ones(1, 4), torch.ones(1)
    (boxes if place == "boxes" else scores).fill_(float("nan"))
    artifact, _ = detector((20, 30), boxes, scores, torch.tensor([1]))
    assert not artifact(torch.zeros(1, 3, 20, 30))[0]["finite"]


@pytest.mark.parametrize("name", ["m.pt2", "m.onnx", "m.xml", "m.html"])
def test_the_files_of_all_formats_are_artifacts(name: str, tmp_path: Path) -> None:
    assert is_artifact(name)
    with pytest.raises(CheckpointError, match="no artifact at"):
        check_artifact(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(CheckpointError, match="no artifact at"):
        check_artifact(tmp_path / name)
    (tmp_path / "other").touch()
    check_artifact(tmp_path / "other")


def test_a_description_in_an_archive_is_found_by_its_end_unless_it_is_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/other", "no")
        archive.writestr("m/extra/sequencer2d", "12345")
    assert artifacts._entry(path, "extra/sequencer2d") == b"12345"
    assert artifacts._entry(path, "_metadata.json") is None
    assert artifacts._aoti_metadata(path) is None
    assert not artifacts._holds_compiled_code(path)
    monkeypatch.setattr(artifacts, "JSON_LIMIT", 5)
    assert artifacts._entry(path, "extra/sequencer2d") == b"12345"
    monkeypatch.setattr(artifacts, "JSON_LIMIT", 4)
    with pytest.raises(CheckpointError, match="too long for a description"):
        artifacts._entry(path, "extra/sequencer2d")


@pytest.mark.parametrize(("content", "found"), [('{"sequencer2d": "x"}', "x"), ('{"a": 1}', None), ("[1]", None)])
def test_a_packages_description_is_read_without_running_it(content: str, found: str | None, tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/aotinductor/m_metadata.json", content)
    assert artifacts._holds_compiled_code(path)
    assert artifacts._aoti_metadata(path) == found


def test_a_package_that_is_missing_is_named_with_the_command() -> None:
    artifacts.need("torch")
    with pytest.raises(UserError, match=r"needs the package not_there_at_all: .*install"):
        artifacts.need("not_there_at_all")


def test_exporters_are_quiet_in_the_block_alone() -> None:
    names = ("sequencer2d.test.a", "sequencer2d.test.b")
    logging.getLogger(names[1]).setLevel(logging.DEBUG)
    with hushed(*names):
        assert [logging.getLogger(name).level for name in names] == [logging.ERROR] * 2
    assert [logging.getLogger(name).level for name in names] == [logging.NOTSET, logging.DEBUG]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with quiet():
            for category in (FutureWarning, DeprecationWarning, UserWarning):
                warnings.warn("in it", category, stacklevel=1)
        warnings.warn("after it", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in seen] == ["after it"]


def test_a_dense_models_description_keeps_whole_images_and_names_that_fit(model: Sequencer2D) -> None:
    stated = model.pretrained_cfg | {"crop_pct": 0.5, "crop_mode": "center"}
    said = metadata.describe_dense("segmentation", stated, 5, [20, 30])
    assert (said["task"], said["num_classes"], said["class_names"]) == ("segmentation", 5, list(NAMES))
    assert (said["input"]["size"], said["input"]["crop_pct"]) == ([20, 30], 1.0)
    assert said["input"]["crop_mode"] == "squash"
    assert {name: said["artifact"][name] for name in ("kind", "precision", "minimum_size")} == {
        "kind": "onnx", "precision": "fp32", "minimum_size": 1,
    }  # fmt: skip
    assert "opset" not in said["artifact"]
    assert metadata.describe_dense("segmentation", stated, 6, [20, 30])["class_names"] is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"class_names": ["a"]}, "has 1 names for 5 classes"),
        ({"in_chans": 4}, "no mean and std for each of 4 channels"),
        ({}, "calls itself 'onnx' but is 'openvino'"),
    ],
)
def test_a_description_that_contradicts_itself_is_refused(
    meta: dict[str, Any], change: dict[str, Any], says: str
) -> None:
    text = metadata.to_strings(meta)["sequencer2d"]
    assert metadata.from_string(text, "m.onnx", "onnx")["artifact"] == meta["artifact"]
    with pytest.raises(CheckpointError, match=says):
        metadata.from_string(metadata.to_strings({**meta, **change})["sequencer2d"], "m.onnx", "openvino")


def test_the_version_of_a_description_is_compared(meta: dict[str, Any]) -> None:
    other = {**meta, "artifact": {**meta["artifact"], "version": 2}}
    with pytest.raises(CheckpointError, match=r"artifact of version 2, .* reads version 1"):
        metadata.from_string(metadata.to_strings(other)["sequencer2d"], "m.onnx", "onnx")
