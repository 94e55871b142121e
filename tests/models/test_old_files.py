"""Files that earlier versions wrote still load, and the models in them answer as they did then.

`old_files/` was written by 0.1.0, which padded every image and did not say so, and by a development version of 0.2.0
before its modules were rearranged; `logits.json` holds what those versions returned for `images()`.
"""

import json
from pathlib import Path

import pytest
import torch

from sequencer2d.input_spec import InputSpec
from sequencer2d.models import Sequencer2D, create_model, load_model, load_weights

FOLDER = Path(__file__).parent / "old_files"
LOGITS = json.loads((FOLDER / "logits.json").read_text())


def images():
    """Of a size that no stride fits, so that cropping and padding differ."""
    return torch.linspace(-2, 2, 2 * 3 * 31 * 30).reshape(2, 3, 31, 30).sin()


def assert_as_before(model, file):
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(images()), torch.tensor(LOGITS[file]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("file", LOGITS)
def test_models_answer_as_they_did(file):
    assert_as_before(load_model(FOLDER / file), file)


@pytest.mark.parametrize("file", [file for file in LOGITS if file.startswith("0.1.0")])
def test_models_of_the_first_version_pad(file):
    model = load_model(FOLDER / file)
    assert model.config.pad == "zeros"
    with pytest.raises(AssertionError):
        assert_as_before(load_model(FOLDER / file, pad="crop"), file)


@pytest.mark.parametrize("file", [file for file in LOGITS if "vanilla" not in file])
def test_their_input_and_their_classes_are_known(file):
    spec = InputSpec.from_timm(load_model(FOLDER / file).pretrained_cfg)
    assert spec == InputSpec(size=(28, 28), crop_pct=0.9, class_names=("cat", "dog", "fish"))


def test_folders_as_the_hub_holds_them():
    assert_as_before(Sequencer2D.from_pretrained(FOLDER / "0.1.0-folder"), "0.1.0-folder")


def test_their_weights_go_into_a_model_that_exists():
    sizes = {"depths": (1, 1), "dims": (8, 16), "hidden_dims": (2, 4), "patch_sizes": (7, 2)}
    model = create_model("sequencer2d_n", num_classes=3, img_size=28, pad="zeros", **sizes)
    load_weights(model, FOLDER / "0.1.0.pt")
    assert_as_before(model, "0.1.0.pt")
