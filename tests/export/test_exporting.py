"""Exported models: like their originals at any size and batch, in few nodes, and never left behind when they differ."""

import json
from pathlib import Path

import pytest
import timm
import torch

from sequencer2d.errors import ConfigError, ExportError, InputError
from sequencer2d.export import export_model, exporting, load_artifact
from sequencer2d.export.formats import FORMATS
from sequencer2d.export.mixers import OneDNN, with_constant_weights
from sequencer2d.export.programs import native, trace
from sequencer2d.models.sequencer2d import Sequencer2D
from tests.export.conftest import NAMES, ONE_BLOCK, small

VARIANTS = (
    "sequencer2d_s_gru",
    "sequencer2d_s_rnn",
    "sequencer2d_s_add",
    "sequencer2d_s_unidirectional",
    "vsequencer_pe_s",
)
SIZES = ((2, 16, 16), (1, 21, 40), (3, 8, 11))
PADDED = ((2, 16, 16), (1, 21, 40), (3, 5, 9))
"""Batch, height and width. The stride is 4 and the smallest images make two tokens, or with padding two begun ones."""


@pytest.mark.parametrize("format", ["torch", "onnx", "openvino"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_artifacts_compute_what_the_model_does(
    model: Sequencer2D, artifacts: dict[str, Path], format: str, size: tuple[int, int, int]
) -> None:
    batch, height, width = size
    images = torch.randn(batch, 3, height, width)
    with torch.no_grad():
        expected = model(images)
    torch.testing.assert_close(load_artifact(artifacts[format], trust=True)(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "variant", ["sequencer2d_s_gru", "sequencer2d_s_rnn", "sequencer2d_s_unidirectional", "vsequencer_pe_s"]
)
def test_every_cell_and_axis_becomes_nodes_of_onnx(
    variant: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    exported = export_model(small(variant, **ONE_BLOCK), tmp_path / "model.onnx", "onnx", images=[])
    assert max(row.relative for row in exported.differences) <= 1e-4
    assert {row.size for row in exported.differences} == {(16, 16), (28, 28), (20, 22)}
    assert 1 <= exported.recurrent_nodes <= 2
    assert capfd.readouterr() == ("", ""), "exporters keep their passes to themselves"


@pytest.mark.parametrize("format", ["torch", "onnx"])
def test_artifacts_pad_if_the_model_does(format: str, tmp_path: Path) -> None:
    model, path = small(pad="zeros", **ONE_BLOCK), tmp_path / f"model{FORMATS[format].suffix}"
    export_model(model, path, format, images=[])
    artifact = load_artifact(path, trust=True)
    for size in PADDED:
        images = torch.randn(size[0], 3, *size[1:])
        with torch.no_grad():
            torch.testing.assert_close(artifact(images), model(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pad, minimum", [("crop", 8), ("zeros", 5)])
def test_an_artifact_says_which_images_are_too_small(pad: str, minimum: int, tmp_path: Path) -> None:
    export_model(small(pad=pad, **ONE_BLOCK), tmp_path / "model.pt2", "torch", images=[])
    with pytest.raises(InputError, match=f"{minimum}×{minimum}"):
        load_artifact(tmp_path / "model.pt2", trust=True)(torch.randn(1, 3, minimum - 1, 16))


@pytest.mark.parametrize("variant, pad", [*((variant, "crop") for variant in VARIANTS), ("sequencer2d_s_add", "zeros")])
def test_programs_for_cpp_are_like_the_model_and_not_unrolled(variant: str, pad: str) -> None:
    model = small(variant, pad=pad, **ONE_BLOCK)
    program = trace(model, "aoti", in_chans=3, size=(12, 16))
    graph = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    recurrent = [name for name in graph if "mkldnn_rnn_layer" in name or "while_loop" in name]
    assert 1 <= len(recurrent) <= 4
    assert not any("sequencer2d" in name for name in graph), "a C++ program does not have this package's operators"
    for batch, height, width in SIZES if pad == "crop" else PADDED:
        images = torch.randn(batch, 3, height, width)
        torch.testing.assert_close(program.module()(images), model(images), rtol=1e-4, atol=1e-4)


def test_onednns_function_is_told_the_cell_and_nothing_but_inference() -> None:
    """Of PyTorch's LSTM: no packed sequences, mode 2, one layer, biases; its own loops over directions stay off."""
    program = trace(small(), "aoti", in_chans=3, size=(12, 16))
    calls = [node.args for node in program.graph.nodes if "mkldnn_rnn_layer" in str(node.target)]
    assert [arguments[7] for arguments in calls] == [False, True] * 4
    assert [list(arguments[8:]) for arguments in calls] == [[[], 2, 4, 1, True, False, False, False]] * 8


def test_onednn_takes_sequences_that_lie_in_memory_out_of_order() -> None:
    model = small()
    constant = with_constant_weights(model, native)
    assert any(isinstance(module, OneDNN) for module in constant.modules())
    images = torch.randn(1, 3, 16, 24)
    with torch.no_grad():
        torch.testing.assert_close(constant(images), model(images), rtol=1e-4, atol=1e-4)


def test_a_model_of_timms_is_exported_with_its_weights(tmp_path: Path) -> None:
    theirs = timm.create_model("sequencer2d_s", num_classes=3).eval()
    torch.nn.init.normal_(theirs.head.fc.weight)
    ours = exporting.as_ours(theirs)
    images = torch.randn(1, 3, 56, 42)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-3, atol=1e-4)
    assert ours.pretrained_cfg["input_size"] == theirs.pretrained_cfg["input_size"]


def test_a_model_that_is_no_sequencer_is_refused() -> None:
    with pytest.raises(ExportError, match="no Sequencer"):
        exporting.as_ours(torch.nn.Linear(2, 2))


def test_an_artifact_that_differs_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder" / "model.pt2"
    path.parent.mkdir()
    path.write_text("the one before")
    loaded = exporting.load_artifact
    monkeypatch.setattr(exporting, "load_artifact", lambda draft, trust: _Wrong(loaded(draft, trust=trust)))
    with pytest.raises(ExportError, match="differs from the model by"):
        export_model(small(**ONE_BLOCK), path, "torch")
    assert [file.name for file in path.parent.iterdir()] == ["model.pt2"]
    assert path.read_text() == "the one before"


class _Wrong(torch.nn.Module):
    def __init__(self, artifact: torch.nn.Module) -> None:
        super().__init__()
        self.artifact = artifact

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.artifact(images) * (1.001 if images.shape[2] == 20 else 1)


def test_a_model_whose_outputs_are_zero_cannot_be_checked(tmp_path: Path) -> None:
    untrained = small(**ONE_BLOCK)
    untrained.reset_classifier(len(NAMES))
    with pytest.raises(ExportError, match="all 0"):
        export_model(untrained, tmp_path / "model.pt2", "torch")
    assert list(tmp_path.iterdir()) == []


def test_bf16_stays_within_the_error_of_plain_bf16(tmp_path: Path) -> None:
    exported = export_model(small(**ONE_BLOCK), tmp_path / "model.pt2", "torch", precision="bf16")
    worst = max(row.relative for row in exported.differences)
    assert 1e-4 < worst <= exported.limit
    assert load_artifact(exported.path, trust=True)(torch.randn(1, 3, 16, 16)).dtype == torch.float32


def test_int8_quantizes_products_and_leaves_recurrences(tmp_path: Path) -> None:
    import onnx

    exported = export_model(small(**ONE_BLOCK), tmp_path / "model.onnx", "onnx", precision="int8")
    assert max(row.relative for row in exported.differences) <= exported.limit
    proto = onnx.load(exported.path)
    kinds = [node.op_type for node in proto.graph.node]
    assert "MatMulInteger" in kinds
    assert kinds.count("LSTM") == 2
    assert load_artifact(exported.path, trust=True).precision == "int8"


def test_onnx_says_what_it_is_to_other_programs(artifacts: dict[str, Path]) -> None:
    import onnx

    proto = onnx.load(artifacts["onnx"])
    said = {entry.key: json.loads(entry.value) for entry in proto.metadata_props}
    assert said["class_names"] == list(NAMES)
    assert said["size"] == [16, 16]
    assert len(said["mean"]) == len(said["std"]) == 3
    shape = [dim.dim_param or dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim]
    assert shape == ["batch", 3, "height", "width"]
    assert (proto.graph.input[0].name, proto.graph.output[0].name) == ("images", "logits")


@pytest.mark.parametrize(
    "format, precision, name, match",
    [
        ("onx", "fp32", "model.onnx", "did you mean onnx"),
        ("onnx", "fp64", "model.onnx", "no precision 'fp64'"),
        ("openvino", "int8", "model.xml", "written in fp32, not in int8"),
        ("onnx", "fp32", "model.pt2", "has the suffix .onnx"),
    ],
)
def test_options_that_do_not_exist_are_refused_at_once(
    model: Sequencer2D, tmp_path: Path, format: str, precision: str, name: str, match: str
) -> None:
    with pytest.raises(ConfigError, match=match):
        export_model(model, tmp_path / name, format, precision=precision)


def test_a_path_that_cannot_be_written_is_said(model: Sequencer2D, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot write to"):
        export_model(model, tmp_path / "file" / "model.pt2", "torch")
