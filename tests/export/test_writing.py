"""The parts of an export, each by itself: options, graphs that are made by hand, and what is compared."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from sequencer2d import create_model
from sequencer2d.dense import Segmenter
from sequencer2d.errors import CheckpointError, ConfigError, ExportError
from sequencer2d.export import dense, exporting, formats, page, verify
from sequencer2d.export.exporting import as_ours, check_options
from sequencer2d.export.int8 import quantize_file
from sequencer2d.export.loop import Loop
from sequencer2d.export.metadata import describe
from sequencer2d.export.mixers import OneDNN, OnnxLayer
from sequencer2d.export.programs import native
from sequencer2d.export.verify import Difference
from sequencer2d.nn.rnn2d import RNN2D
from tests.export.conftest import ONE_BLOCK, small
from tests.models.small import SIZES

FINE = [Difference("random", (8, 8), 1, 1e-5)]


def graph_of(*operators: str, opset: int = 18) -> Any:
    """A chain of operators from `images` to `logits`, whose axes have a tracer's names."""
    names = ["images", *(f"x{number}" for number in range(len(operators) - 1)), "logits"]
    nodes = [helper.make_node(kind, [a], [b]) for kind, a, b in zip(operators, names, names[1:], strict=False)]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["s0", 3, "s1", "s2"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["s0", 3, "s1", "s2"])
    graph = helper.make_graph(nodes, "g", [images], [logits], value_info=[helper.make_empty_tensor_value_info("x0")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("other", 1)])


@pytest.mark.parametrize(("opset", "fits"), [(17, False), (18, True), (25, True), (26, False), (None, True)])
def test_opsets_from_the_oldest_to_the_newest_are_written(opset: int | None, fits: bool) -> None:
    if fits:
        assert check_options("m.onnx", "onnx", "fp32", opset) is formats.FORMATS["onnx"]
    else:
        with pytest.raises(ConfigError, match=f"no opset {opset} .* choose one from 18 to 25"):
            check_options("m.onnx", "onnx", "fp32", opset)
    if opset is not None:
        with pytest.raises(ConfigError, match="'torch' has no opset to choose"):
            check_options("m.pt2", "torch", "fp32", opset)


def test_a_file_in_another_opset_is_refused() -> None:
    formats._check_opset(graph_of("Relu", opset=20), 20)
    with pytest.raises(ExportError, match="wrote opset 18 in place of 20"):
        formats._check_opset(graph_of("Relu"), 20)


def test_the_free_axes_have_names() -> None:
    proto = graph_of("Relu", "Abs")
    formats._name_axes(proto)
    shapes = [
        [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (proto.graph.input[0], proto.graph.output[0])
    ]
    assert shapes == [["batch", 3, "height", "width"], ["batch", 3, "s1", "s2"]]
    assert not proto.graph.value_info


def test_nodes_are_counted_by_their_kind() -> None:
    assert formats._counts(iter(["a", "b", "a", "a"])) == {"a": 3, "b": 1}
    program = torch.export.export(nn.Sequential(nn.ReLU(), nn.ReLU()), (torch.zeros(2),))
    assert formats._node_counts(program) == {"aten.relu.default": 2}


def test_a_package_of_aotinductor_holds_its_description(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the compiler, which takes a minute."""
    given: list[Any] = []
    program = torch.export.export(nn.ReLU(), (torch.zeros(2),))
    monkeypatch.setattr(formats, "_traced", lambda model, recurrence, meta: given.append(recurrence) or program)
    monkeypatch.setattr(
        torch._inductor, "aoti_compile_and_package", lambda *args, **options: given.append((args, options))
    )
    model = small(**ONE_BLOCK)
    meta = describe(model, "aoti", "fp32")
    assert formats.write_aoti(model, tmp_path / "m.pt2", meta) == {"aten.relu.default": 1}
    recurrence, ((compiled,), options) = given
    assert (recurrence, compiled, options["package_path"]) == ("aoti", program, str(tmp_path / "m.pt2"))
    said = options["inductor_configs"]["aot_inductor.metadata"]
    assert json.loads(said["sequencer2d"])["artifact"]["kind"] == "aoti"


def test_other_errors_of_the_compiler_are_left_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("other")

    monkeypatch.setattr(formats, "_traced", lambda *_: None)
    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", fail)
    model = small(**ONE_BLOCK)
    with pytest.raises(RuntimeError, match="other"):
        formats.write_aoti(model, tmp_path / "m.pt2", describe(model, "aoti", "fp32"))


def test_only_bf16_makes_a_copy_in_its_precision() -> None:
    model = small(**ONE_BLOCK)
    assert exporting._in_precision(model, "fp32") is exporting._in_precision(model, "int8") is model
    rounded = exporting._in_precision(model, "bf16")
    assert {parameter.dtype for parameter in rounded.parameters()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_model_of_timms_without_classes_and_in_gray_becomes_ours() -> None:
    theirs = timm.create_model("sequencer2d_s", num_classes=0, in_chans=1)
    ours = as_ours(theirs)
    assert (ours.num_classes, ours.in_chans, ours.training) == (0, 1, False)
    assert describe(ours, "onnx", "fp32")["model"] == "sequencer2d_s"
    assert len(ours.pretrained_cfg["mean"]) == 1  # theirs are of three channels


@pytest.mark.parametrize(
    ("cell", "options", "slots", "direction"),
    [("lstm", {}, (0, 1), "bidirectional"), ("gru", {}, (1,), "reverse"), ("rnn", {}, (0,), "forward"),
     ("lstm", {"bidirectional": False}, (1,), "forward")],
)  # fmt: skip
def test_a_layer_of_onnx_knows_its_direction_and_its_gates(
    cell: str, options: dict[str, Any], slots: tuple[int, ...], direction: str
) -> None:
    mixer = RNN2D(3, 2, cell, **options)
    layer = OnnxLayer(mixer, slots)
    assert (layer.direction, layer.cell, layer.hidden) == (direction, cell, 2)
    order = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)}[cell]  # ONNX: i o f c, and z r h
    for name in ("weight_ih", "weight_hh"):
        rows = mixer.stack(name)[list(slots)]
        expected = torch.cat([rows[:, 2 * gate : 2 * gate + 2] for gate in order], 1)
        torch.testing.assert_close(getattr(layer, name), expected, rtol=0, atol=0)
    biases = [mixer.stack(name)[list(slots)] for name in ("bias_ih", "bias_hh")]
    expected = torch.cat([bias[:, 2 * gate : 2 * gate + 2] for bias in biases for gate in order], 1)
    torch.testing.assert_close(layer.bias, expected, rtol=0, atol=0)


@pytest.mark.parametrize(("cell", "kind"), [("lstm", OneDNN), ("gru", Loop), ("rnn", Loop)])
def test_cpp_runs_what_libtorch_has_and_a_loop_for_other_cells(cell: str, kind: type) -> None:
    recurrences: Any = native(RNN2D(3, 2, cell))
    assert [type(part) for part in recurrences.recurrences] == [kind, kind]


@pytest.mark.parametrize("recurrences", [False, True])
def test_int8_rounds_weights_by_channel_and_keeps_the_description(recurrences: bool, tmp_path: Path) -> None:
    """Two output channels whose largest weights are 127 and 1.27: the scales 1 and 0.01."""
    weight = np.array([[127, 1.27], [64, 0.64]], dtype=np.float32)
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 2])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["images", "w"], ["logits"], "product")], "g", [images], [logits],
        [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    proto.metadata_props.add(key="sequencer2d", value="said")
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    quantize_file(path, recurrences=recurrences)
    found = onnx.load(path)
    assert [(entry.key, entry.value) for entry in found.metadata_props] == [("sequencer2d", "said")]
    values = {value.name: numpy_helper.to_array(value) for value in found.graph.initializer}
    scales = next(value for name, value in values.items() if name.endswith("_scale"))
    np.testing.assert_allclose(scales, [1, 0.01], rtol=1e-5)
    assert {str(value.dtype) for value in values.values()} >= {"int8"}


def test_a_page_says_what_it_holds_and_gives_the_model_back(tmp_path: Path) -> None:
    model, content = small(**ONE_BLOCK), bytes(3 * 2**19)
    meta = describe(model, "web", "int8")
    page.write_page(model, content, tmp_path / "m.html", meta, page.Runtime("1.2.3", b"script", b"code"))
    text = (tmp_path / "m.html").read_text(encoding="utf-8")
    assert "5 classes, int8, 1.5 MiB" in text
    assert "sequencer2d_n: what is in the photo?" in text
    described = text.partition('<script id="description" type="application/json">')[2].partition("</script>")[0]
    assert json.loads(described) == json.loads(json.dumps({**meta["input"], "classes": page.class_names_of(model)}))
    assert page.read_model(tmp_path / "m.html") == content
    again = tmp_path / "again.html"
    page.write_page(model, content, again, meta, page.Runtime("1.2.3", b"script", b"code"))
    assert again.read_bytes() == (tmp_path / "m.html").read_bytes()


def test_a_model_that_is_too_large_for_a_page_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.html").write_text(f'<script id="model" type="text/plain">{page._packed(bytes(100))}</script>')
    monkeypatch.setattr(page, "LARGEST_MODEL", 100)
    assert page.read_model(tmp_path / "m.html") == bytes(100)
    monkeypatch.setattr(page, "LARGEST_MODEL", 99)
    with pytest.raises(CheckpointError, match="cut off or larger than 0 GiB"):
        page.read_model(tmp_path / "m.html")


def test_a_pyramids_and_a_segmenters_outputs_have_names_and_strides() -> None:
    pyramid = create_model("sequencer2d_n", features_only=True, pyramid=(4, 8), in_chans=1, **SIZES).train()
    maps = dense._on_cpu(pyramid)
    assert (maps.names, maps.strides, maps.in_chans) == (("map_4", "map_8"), [4, 8], 1)
    assert maps.multiple == pyramid.multiple
    assert maps.pretrained_cfg == pyramid.pretrained_cfg
    assert not any(part.training for part in maps.model.modules())
    assert not any(parameter.requires_grad for parameter in maps.parameters())
    assert pyramid.training
    segmenter = Segmenter(pyramid, 3)
    whole = dense._on_cpu(segmenter)
    assert (whole.names, whole.strides, whole.multiple) == (("logits",), [1], segmenter.divisor)
    (logits,) = whole(torch.zeros(1, 1, 64, 64))
    assert logits.shape == (1, 3, 64, 64)
    said = dense._described(whole, torch.zeros(1, 1, 64, 64))
    assert json.loads(said["strides"]) == [1]
    assert json.loads(said["sequencer2d"])["num_classes"] == 3
    assert json.loads(said["size"]) == list(segmenter.backbone.pretrained_cfg["input_size"][-2:])
    said = dense._described(maps, torch.zeros(1, 1, 64, 64))
    assert {name: json.loads(value) for name, value in said.items()} == {
        "mean": list(pyramid.pretrained_cfg["mean"]), "std": list(pyramid.pretrained_cfg["std"]), "strides": [4, 8],
    }  # fmt: skip


class Plain(nn.Module):
    """Two outputs of an image."""

    names, in_chans = ("a", "b"), 3

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return images, images.mean((2, 3))


@pytest.mark.parametrize(("in_chans", "sources"), [(3, ["random", "images"] * 2), (1, ["random"] * 2)])
def test_each_output_is_compared_and_the_worst_counts(
    in_chans: int, sources: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second output is a quarter too large."""

    def run(names: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        assert names == ["a", "b"]
        images = inputs["images"]
        return [images, 1.25 * images.mean((2, 3))]

    plain: Any = Plain()
    plain.in_chans = in_chans
    monkeypatch.setattr(dense, "session_of", lambda proto: SimpleNamespace(run=run))
    monkeypatch.setattr(verify, "read_images", lambda model, size, files: torch.rand(len(files), 3, *size))
    found = dense._compare(None, plain, [(8, 9), (10, 7)], [Path("x")])
    assert [each.source for each in found] == sources
    assert [each.batch for each in found] == [{"random": 2, "images": 1}[source] for source in sources]
    assert [each.size for each in found] == sorted([(8, 9), (10, 7)] * (len(sources) // 2))
    assert [each.relative for each in found] == pytest.approx([0.25] * len(sources), rel=1e-5)


def test_what_was_compared_is_written_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense.time, "perf_counter", lambda: 12.5)
    proto = graph_of("Relu", "LSTM", "GRU")
    found = dense.write_proto(proto, tmp_path / "m.onnx", FINE, 10.0)
    assert dataclasses.asdict(found) | {"differences": 1} == {
        "path": tmp_path / "m.onnx", "format": "onnx", "precision": "fp32", "differences": 1, "limit": 1e-4,
        "recurrent_nodes": 2, "nodes": 3, "seconds": 2.5, "size_mib": (tmp_path / "m.onnx").stat().st_size / 2**20,
    }  # fmt: skip
    with pytest.raises(ExportError, match="the ONNX model differs"):
        dense.write_proto(proto, tmp_path / "n.onnx", [Difference("random", (8, 8), 1, 2e-4)], 10.0)
    with pytest.raises(ExportError, match="cannot write to"):
        dense.write_proto(proto, tmp_path / "m.onnx" / "n.onnx", FINE, 10.0)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_the_file_of_a_dense_model_is_onnx() -> None:
    assert dense.check_target("a/m.onnx") == Path("a/m.onnx")
    with pytest.raises(ConfigError, match=r"has the suffix \.onnx; given 'm\.pt2'"):
        dense.check_target("m.pt2")
