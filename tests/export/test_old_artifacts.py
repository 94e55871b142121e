"""Exported files that 0.1.0 wrote, before its modules were rearranged, still load and answer as they did then."""

import json
from pathlib import Path

import pytest
import torch

from sequencer2d.export import load_artifact

FOLDER = Path(__file__).parent / "old_files"


@pytest.mark.parametrize(
    "name",
    [
        "model.onnx",
        "model.xml",
        pytest.param(
            "model.pt2",
            marks=pytest.mark.skipif(
                torch.__version__ < "2.14", reason="it was written by PyTorch 2.14, which older versions do not read"
            ),
        ),
    ],
)
def test_artifacts_answer_as_they_did(name: str) -> None:
    artifact = load_artifact(FOLDER / name, trust=True)
    images = torch.linspace(-2, 2, 2 * 3 * 16 * 20).reshape(2, 3, 16, 20).sin()
    expected = torch.tensor(json.loads((FOLDER / "logits.json").read_text()))
    torch.testing.assert_close(artifact(images), expected, rtol=1e-4, atol=1e-5)
    assert artifact.pretrained_cfg["label_names"] == ["cat", "dog", "fish"]
    assert artifact.pretrained_cfg["input_size"] == (3, 16, 16)
