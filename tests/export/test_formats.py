"""The formats' table, what a graph's nodes count as, and what an artifact says of itself."""

import json
import time
import zipfile
from pathlib import Path

import pytest
import timm
import torch

import sequencer2d
from sequencer2d.errors import CheckpointError, ConfigError, ExportError
from sequencer2d.export import export_model, exporting, formats, load_artifact, metadata, timing
from sequencer2d.export.exporting import as_ours
from sequencer2d.export.mixers import OnnxLayer
from sequencer2d.input_spec import IMAGENET_MEAN
from sequencer2d.models.sequencer2d import Sequencer2D
from sequencer2d.nn.rnn2d import RNN2D
from tests.export.conftest import NAMES, ONE_BLOCK, small


def test_each_format_has_its_suffix_precisions_and_packages() -> None:
    assert {name: (row.suffix, row.precisions, row.needs) for name, row in formats.FORMATS.items()} == {
        "torch": (".pt2", ("fp32", "bf16"), ()),
        "aoti": (".pt2", ("fp32", "bf16"), ()),
        "onnx": (".onnx", ("fp32", "int8"), ("onnx", "onnxscript", "onnxruntime")),
        "openvino": (".xml", ("fp32",), ("onnx", "onnxscript", "openvino")),
        "web": (".html", ("fp32", "int8"), ("onnx", "onnxscript", "onnxruntime")),
    }
    assert {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.float32} == formats.PRECISIONS
    with pytest.raises(ConfigError, match="did you mean onnx"):
        formats.find_format("onx")


@pytest.mark.parametrize("name", formats.RECURRENT)
def test_recurrences_are_counted_by_their_names_in_each_graph(name: str) -> None:
    assert formats.recurrent_nodes({name: 3, "MatMul": 5, "aten.lstm_like": 7}) == 3


def test_onnx_is_written_in_opset_18(artifacts: dict[str, Path]) -> None:
    import onnx

    assert [entry.version for entry in onnx.load(artifacts["onnx"]).opset_import if entry.domain == ""] == [18]


@pytest.mark.parametrize("opset", [20, formats.NEWEST_OPSET])
def test_onnx_is_written_in_the_opset_that_is_asked_for(tmp_path: Path, opset: int) -> None:
    """From opset 20 on GELU is a node of its own. Photographs give the same logits as the model."""
    import onnx

    if opset > onnx.defs.onnx_opset_version():
        pytest.skip(f"onnx {onnx.__version__} has no opset {opset}")
    exported = export_model(small(**ONE_BLOCK), tmp_path / "m.onnx", "onnx", opset=opset, sizes=[(16, 20)])
    proto = onnx.load(exported.path)
    assert [entry.version for entry in proto.opset_import if entry.domain == ""] == [opset]
    assert "Gelu" in {node.op_type for node in proto.graph.node}
    assert "images" in {difference.source for difference in exported.differences}
    assert load_artifact(exported.path).meta["artifact"]["opset"] == opset


def test_an_exporter_that_writes_another_opset_is_not_believed(tmp_path: Path) -> None:
    """PyTorch's exporter warns, and writes 18, where it is asked for an older one."""
    meta = metadata.describe(small(), "onnx", "fp32", 17)
    with pytest.raises(ExportError, match="wrote opset 18 in place of 17"):
        formats.write_onnx(small(**ONE_BLOCK), tmp_path / "m.onnx", meta)
    assert list(tmp_path.iterdir()) == []


def test_a_description_says_what_wrote_it_and_what_it_takes() -> None:
    said = metadata.describe(small(), "onnx", "int8")
    assert said["artifact"] == {
        "version": 1, "kind": "onnx", "precision": "int8", "sequencer2d": sequencer2d.__version__,
        "torch": str(torch.__version__), "minimum_size": 8,
    }  # fmt: skip
    assert metadata.minimum_size(small(pad="zeros")) == 5
    strings = metadata.to_strings(said)
    assert json.loads(strings["sequencer2d"]) == json.loads(json.dumps(said))
    assert json.loads(strings["class_names"]) == list(NAMES)
    assert set(strings) == {"sequencer2d", "class_names", "size", "mean", "std", "interpolation", "crop_pct"}


def test_a_model_in_bf16_is_exported_in_fp32_and_left_as_it_was(model: Sequencer2D) -> None:
    rounded = small().bfloat16().train()
    ours = as_ours(rounded)
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}
    assert not ours.training
    assert not any(parameter.requires_grad for parameter in ours.parameters())
    assert (rounded.training, rounded.head.fc.weight.dtype) == (True, torch.bfloat16)
    assert all(parameter.requires_grad for parameter in rounded.parameters())


def test_an_artifact_in_bf16_computes_what_the_model_in_bf16_does(tmp_path: Path) -> None:
    exported = export_model(small(), tmp_path / "model.pt2", "torch", precision="bf16", images=[])
    assert exported.precision == "bf16"
    artifact, model = load_artifact(exported.path, trust=True), small().bfloat16()
    images = torch.randn(2, 3, 20, 16)
    with torch.no_grad():
        expected = model(images.bfloat16()).float()
    torch.testing.assert_close(artifact(images), expected, rtol=0.02, atol=0.02)
    assert artifact.precision == "bf16"
    assert exported.size_mib == pytest.approx(exported.path.stat().st_size / 2**20)


def test_without_a_compiler_aoti_says_what_to_install(tmp_path: Path) -> None:
    """The real compiler of PyTorch, told to use a program that does not exist."""
    from torch._inductor import config

    with config.patch({"cpp.cxx": ("/no/such/compiler",)}), pytest.raises(ExportError, match=r"needs a C\+\+ compiler"):
        export_model(small(**ONE_BLOCK), tmp_path / "model.pt2", "aoti", images=[])
    assert list(tmp_path.iterdir()) == []


def test_of_several_files_the_named_one_appears_last_and_sizes_are_in_mib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "draft").mkdir()
    (tmp_path / "draft" / "a.xml").write_bytes(bytes(2**20))
    (tmp_path / "draft" / "z.bin").write_bytes(bytes(2**19))
    moved = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, target: (moved.append(self.name), replace(self, target))[1])
    assert exporting._publish(tmp_path / "draft", tmp_path / "a.xml") == 1.5
    assert moved == ["z.bin", "a.xml"]
    assert {path.name for path in tmp_path.iterdir()} == {"draft", "a.xml", "z.bin"}


def test_a_draft_is_written_beside_the_target_in_a_hidden_folder(tmp_path: Path) -> None:
    with exporting._folder_beside(tmp_path / "new" / "m.pt2") as folder:
        assert Path(folder).parent == tmp_path / "new"
        assert Path(folder).name.startswith(".m.pt2.")
    (tmp_path / "taken").mkdir()
    with pytest.raises(ExportError, match="is a folder"):
        exporting._folder_beside(tmp_path / "taken")


def test_images_per_second_are_those_of_the_batch(artifacts: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from sequencer2d.benchmark.timing import Timing

    artifact = load_artifact(artifacts["torch"], trust=True)
    told = dict.fromkeys(Timing.__dataclass_fields__, 0.0) | {
        "step_ms": 50.0,
        "latency_ms": 40.0,
        "spread_percent": 2.5,
        "repeats": 1,
    }
    monkeypatch.setattr(timing, "measure", lambda step, device, measure_s: (step(), Timing(**told))[1])
    row = timing.time_artifact(artifact, 4, (16, 20))
    assert (row["images_per_s"], row["latency_ms"], row["spread_percent"]) == (80, 40, 2.5)
    assert (row["precision"], row["path"]) == ("fp32", str(artifact.path))


def test_an_export_says_what_it_wrote_and_how_long_that_took(tmp_path: Path) -> None:
    """By default real photographs are compared too; they have three channels, and a model of one sees random images."""
    started = time.perf_counter()
    exported = export_model(small(), tmp_path / "model.pt2", "torch", sizes=[(16, 16)])
    passed = time.perf_counter() - started
    assert 0.9 * passed < exported.seconds <= passed
    assert (exported.path, exported.format, exported.precision) == (tmp_path / "model.pt2", "torch", "fp32")
    assert (exported.limit, exported.recurrent_nodes) == (1e-4, 2)
    assert exported.nodes > 10 * exported.recurrent_nodes
    found = [(each.source, each.batch) for each in exported.differences]
    assert found == [("random", 1), ("random", 3), ("images", 2)]
    gray = export_model(small(in_chans=1), tmp_path / "gray.pt2", "torch", sizes=[(16, 16)])
    assert [(each.source, each.batch) for each in gray.differences] == [("random", 1), ("random", 3)]
    assert load_artifact(gray.path, trust=True)(torch.zeros(2, 1, 16, 16)).shape == (2, len(NAMES))


def test_a_package_in_bf16_is_given_bf16_and_gives_fp32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model in bf16 stands for its compiled code, whose making takes a minute."""
    meta, path, model = metadata.describe(small(), "aoti", "bf16"), tmp_path / "model.pt2", small().bfloat16()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data/aotinductor/model/x_metadata.json", json.dumps(metadata.to_strings(meta)))
    monkeypatch.setattr(torch._inductor, "aoti_load_package", {str(path): model}.__getitem__)
    artifact, images = load_artifact(path, trust=True), torch.randn(2, 3, 16, 20)
    found = artifact(images.double())
    assert (artifact.kind, artifact.precision, found.dtype) == ("aoti", "bf16", torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(found, model(images.bfloat16()).float(), rtol=0, atol=0)


@pytest.mark.parametrize("axes, directions", [("both", 2), ("vertical", 2), ("both", 1)])
def test_a_layer_of_onnx_has_the_shape_of_its_directions_side_by_side(axes: str, directions: int) -> None:
    """(T, N, C) to (T, N, S·D). Torch knows the shape alone."""
    mixer = RNN2D(8, 6, axes=axes, bidirectional=directions == 2)
    layer = OnnxLayer(mixer, range(directions)).to("meta")
    assert layer(torch.empty(5, 7, 8, device="meta")).shape == (5, 7, directions * 6)


@pytest.mark.parametrize("text", [None, "", b"", 5, ["{}"]])
def test_a_file_without_a_description_does_not_describe_itself(text: object) -> None:
    with pytest.raises(CheckpointError, match=r"model\.onnx does not describe itself"):
        metadata.from_string(text, "model.onnx", "onnx")


def test_a_model_of_timms_keeps_what_its_configuration_says_of_images() -> None:
    theirs = timm.create_model("sequencer2d_s", num_classes=2)
    stated = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "interpolation": "bilinear", "crop_pct": 0.5}
    theirs.pretrained_cfg = {**stated, "input_size": (3, 64, 96), "crop_mode": None, "label_names": ["a", "b"]}
    ours = as_ours(theirs)
    assert {name: ours.pretrained_cfg[name] for name in stated} == stated
    assert ours.pretrained_cfg["input_size"] == (3, 64, 96)
    assert ours.pretrained_cfg["crop_mode"] == "center"
    assert ours.pretrained_cfg["label_names"] == ["a", "b"]
    assert (ours.config.num_classes, ours.config.in_chans, ours.training) == (2, 3, False)
    assert not any(parameter.requires_grad for parameter in ours.parameters())
    theirs.pretrained_cfg["mean"] = (0.5,)  # of another number of channels
    assert as_ours(theirs).pretrained_cfg["mean"] == IMAGENET_MEAN
