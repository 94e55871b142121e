"""torch.jit.trace and the older exporter to ONNX, which goes through it: right at every size, or one clear line."""

import io
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import sequencer2d
from sequencer2d.errors import ImplementationError, InputError
from sequencer2d.models import register_timm
from sequencer2d.models.features import Sequencer2DFeatures
from tests.models.small import SIZES, randomize, small_model

pytestmark = [
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:Exporting a model to ONNX with a batch_size:UserWarning"),
    pytest.mark.filterwarnings("ignore:Constant folding:UserWarning"),
]

# Of images, by total stride 14: one fits, the others lack or exceed a few pixels, and the smallest is one token.
CALLS = ((2, 28, 28), (1, 30, 45), (3, 57, 29), (1, 14, 14))


def registered(**options: Any) -> nn.Module:
    register_timm()
    return randomize(timm.create_model("s2d_sequencer2d_n", **(SIZES | options)))


def models(pad: str) -> dict[str, nn.Module]:
    """What can be traced, by name; all have random weights and biases."""
    return {
        "sequencer": small_model(pad=pad),
        "positions": small_model(pad=pad, position_embedding=True, img_size=28),
        "vanilla": small_model(pad=pad, axes="flatten", fusion="concat"),
        "vanilla with positions": small_model(pad=pad, axes="flatten", position_embedding=True, img_size=28),
        "GRU, one way": small_model(pad=pad, cell="gru", bidirectional=False),
        "features": Sequencer2DFeatures(small_model(pad=pad)),
        "registered": registered(pad=pad),
        "registered features": registered(pad=pad, features_only=True),
    }


KINDS = list(models("crop"))
# Recorded at a size that fits, where nothing is padded or resampled, and for two kinds at one that does not.
RECORDED = [(kind, (28, 28)) for kind in KINDS] + [(kind, (30, 45)) for kind in ("sequencer", "positions")]
TO_ONNX = [("zeros", kind) for kind in KINDS] + [("crop", "sequencer"), ("crop", "positions")]


def outputs(model: Any, images: Tensor) -> list[Tensor]:
    found = model(images)
    return [found] if isinstance(found, Tensor) else list(found)


@pytest.mark.parametrize("pad", ["crop", "zeros"])
@pytest.mark.parametrize("kind, recorded", RECORDED, ids=str)
def test_a_traced_model_is_right_at_every_size(pad: str, kind: str, recorded: tuple[int, int]) -> None:
    model = models(pad)[kind].eval()
    traced = torch.jit.trace(model, torch.randn(2, 3, *recorded), check_trace=False)
    stored = io.BytesIO()
    torch.jit.save(traced, stored)
    loaded = torch.jit.load(io.BytesIO(stored.getvalue()))
    for batch, *size in CALLS:
        images = torch.randn(batch, 3, *size)
        torch.testing.assert_close(outputs(loaded, images), outputs(model, images))


@pytest.mark.parametrize("pad, kind", TO_ONNX)
def test_the_older_exporter_to_onnx_is_right_at_every_size(tmp_path: Path, pad: str, kind: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    model = models(pad)[kind].eval()
    free = {0: "batch", 2: "height", 3: "width"}
    torch.onnx.export(
        model, (torch.randn(2, 3, 28, 28),), str(tmp_path / "model.onnx"), dynamo=False,
        input_names=["images"], dynamic_axes={"images": free}, opset_version=17,
    )  # fmt: skip
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for batch, *size in CALLS:
        images = torch.randn(batch, 3, *size)
        found = [torch.from_numpy(array) for array in session.run(None, {"images": images.numpy()})]
        torch.testing.assert_close(found, outputs(model, images), rtol=1e-4, atol=2e-5)


def test_an_optimized_model_is_traced_and_refused_by_the_older_exporter_to_onnx(tmp_path: Path) -> None:
    model = small_model(pad="zeros")
    fast = sequencer2d.optimize(model, compile=False)
    traced = torch.jit.trace(fast, torch.randn(2, 3, 28, 28), check_trace=False)
    for batch, *size in CALLS:
        images = torch.randn(batch, 3, *size)
        torch.testing.assert_close(traced(images), model(images), rtol=1e-4, atol=1e-5)
    with pytest.raises(ImplementationError, match="older exporter to ONNX"):
        torch.onnx.export(fast, (torch.randn(2, 3, 28, 28),), str(tmp_path / "no.onnx"), dynamo=False)


def test_the_reference_is_not_traced() -> None:
    model = small_model(implementation="reference")
    with pytest.raises(ImplementationError, match="'aten' on a CPU and 'cudnn' on CUDA can be traced"):
        torch.jit.trace(model, torch.randn(2, 3, 28, 28), check_trace=False)


@pytest.mark.parametrize("wrapped", [False, True])
def test_scripting_is_refused_in_one_line(wrapped: bool) -> None:
    model: nn.Module = small_model()
    with pytest.raises(InputError, match=r"torch\.jit\.script cannot compile the recurrence"):
        torch.jit.script(nn.Sequential(model, nn.ReLU()) if wrapped else model)
