"""`torch.onnx.export` takes models with recurrences of this package, given `onnx_translations`."""

import io

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.export import Dim

import sequencer2d
from sequencer2d.export import onnx_translations
from sequencer2d.export.programs import hushed, quiet
from sequencer2d.nn.rnn2d import RNN2D

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def run_as_onnx(model: nn.Module, traced: Tensor, images: Tensor) -> Tensor:
    """By ONNX Runtime, exported with one size and run with another."""
    free = [axis for axis in range(images.dim()) if traced.shape[axis] != images.shape[axis]]
    shapes = (dict.fromkeys(free, Dim.DYNAMIC),)
    with quiet(), hushed("torch.onnx", "onnxscript", "onnx_ir"):
        exported = torch.onnx.export(
            model, (traced,), dynamo=True, opset_version=18, verbose=False,
            custom_translation_table=onnx_translations(), dynamic_shapes=shapes,
        )  # fmt: skip
    file = io.BytesIO()
    exported.save(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    kinds = {node.op_type for node in exported.model_proto.graph.node}
    assert kinds & {"LSTM", "GRU", "RNN"}, kinds
    (result,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    return torch.from_numpy(result)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("directions", [{}, {"axes": "vertical"}, {"bidirectional": False}], ids=str)
def test_a_mixer(cell, directions):
    torch.manual_seed(0)
    mixer = RNN2D(8, 6, cell=cell, **directions).eval()
    images = torch.randn(3, 5, 7, 8)
    with torch.no_grad():
        expected = mixer(images)
    torch.testing.assert_close(run_as_onnx(mixer, torch.randn(2, 4, 6, 8), images), expected, rtol=1e-4, atol=1e-5)


def test_a_model_of_timms_after_fuse():
    torch.manual_seed(0)
    model = timm.create_model("sequencer2d_s", num_classes=7, layers=(1, 1, 1, 1)).eval()
    nn.init.normal_(model.head.fc.weight, std=0.1)
    images = torch.randn(2, 3, 70, 98)
    with torch.no_grad():
        expected = model(images)
        sequencer2d.fuse(model)
    torch.testing.assert_close(run_as_onnx(model, torch.randn(2, 3, 84, 56), images), expected, rtol=1e-3, atol=1e-4)


class Tagger(nn.Module):
    """A recurrent layer of torch's with its last states as results."""

    def __init__(self, kind: type[nn.RNNBase], **options: bool) -> None:
        super().__init__()
        self.rnn = kind(6, 5, 2, **options)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        out, last = self.rnn(x)
        states = last if isinstance(last, tuple) else (last,)
        # One result, of which each part matters.
        return torch.cat([out.flatten(0, 1).sum(0), *(state.flatten() for state in states)])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "options", [{}, {"batch_first": True, "bidirectional": True}, {"bias": False, "bidirectional": True}], ids=str
)
def test_a_layer_of_torchs_after_fuse(kind, options):
    torch.manual_seed(0)
    model, x = Tagger(kind, **options).eval(), torch.randn(4, 7, 6)
    with torch.no_grad():
        expected = model(x)
        sequencer2d.fuse(model)
    torch.testing.assert_close(run_as_onnx(model, torch.randn(3, 5, 6), x), expected, rtol=1e-4, atol=1e-5)
