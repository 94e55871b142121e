"""Pixels as models are evaluated on them, and what a model makes of them."""

import contextlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sequencer2d.data.config import DataConfig
from sequencer2d.data.folders import FolderSource
from sequencer2d.errors import InputError
from sequencer2d.evaluation.mistakes import judge, mistakes
from sequencer2d.evaluation.modes import eval_mode, vendor_rnn_backward
from sequencer2d.evaluation.outcomes import logits_of, outcomes_of
from sequencer2d.evaluation.pixels import (
    check_photo,
    check_size,
    choose,
    normalized,
    read_augmented,
    read_batches,
    read_images,
    to_unit,
    truths_of,
)
from sequencer2d.evaluation.subject import Subject
from tests.evaluation.subjects import COLORS, PLAIN, MeanColor, colors_subject


def test_a_sample_is_ascending_and_the_seeds_own() -> None:
    chosen = choose(100, 20, seed=1)
    assert len(set(chosen.tolist())) == 20
    assert (np.diff(chosen) > 0).all()
    assert chosen.tolist() == choose(100, 20, seed=1).tolist() != choose(100, 20, seed=2).tolist()
    for limit in (None, 3, 4):
        assert choose(3, limit).tolist() == [0, 1, 2]


def test_batches_come_in_order_with_their_places(colors: FolderSource) -> None:
    """Classes are blue, green and red, two images each."""
    found = list(read_batches(colors, DataConfig(image_size=4), batch_size=2, indices=[5, 0, 3]))
    assert [batch.indices.tolist() for batch in found] == [[5, 0], [3]]
    assert [batch.targets.tolist() for batch in found] == [[2, 0], [1]]
    assert found[0].pixels.shape == (2, 4, 4, 3)
    assert found[0].pixels[:, 0, 0].tolist() == [list(COLORS["red"]), list(COLORS["blue"])]
    assert [len(batch.targets) for batch in read_batches(colors, DataConfig(image_size=4), batch_size=4)] == [4, 2]


def test_pixels_are_scaled_by_255_and_normalized() -> None:
    pixels = np.array([0, 51, 255], np.uint8).reshape(1, 1, 1, 3)
    images = to_unit(pixels)
    assert (images.shape, images.dtype, images.is_contiguous()) == ((1, 3, 1, 1), torch.float32, True)
    assert images.flatten().tolist() == pytest.approx([0, 0.2, 1])
    assert torch.equal(to_unit(torch.from_numpy(pixels)), images)
    subject = Subject("x", MeanColor(), DataConfig(mean=(0, 0.1, 0.5), std=(1, 0.5, 0.25)), ("a",))
    assert normalized(pixels, subject).flatten().tolist() == pytest.approx([0, 0.2, 2])


def test_augmented_images_belong_to_their_seed_and_place(tmp_path: Path) -> None:
    """A slope from left to right: flips turn it, and a part of it is steeper than the whole."""
    slope = np.repeat(np.linspace(0, 255, 64).round().astype(np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)
    for number in range(8):
        Image.fromarray(slope).save(tmp_path / f"{number}.png")
    state = torch.get_rng_state()
    first = read_augmented([tmp_path], DataConfig(image_size=16), seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.shape == (8, 16, 16, 3)
    assert np.array_equal(first, read_augmented([tmp_path], DataConfig(image_size=16), seed=3))
    assert not np.array_equal(first, read_augmented([tmp_path], DataConfig(image_size=16), seed=4))
    assert not np.array_equal(first[0], first[1])
    rises = first[:, :, -1].mean((1, 2)) - first[:, :, 0].mean((1, 2))
    assert {bool(rise > 0) for rise in rises} == {True, False}
    assert len(read_augmented([tmp_path], DataConfig(image_size=16), limit=2)) == 2


def test_images_that_are_too_small_are_refused_and_those_just_large_enough_are_not(tmp_path: Path) -> None:
    data = DataConfig(image_size=(16, 32))
    check_size(data, 16, "corrupting")
    with pytest.raises(InputError, match=r"at least 17×17 pixels, these are 16×32"):
        check_size(data, 17, "corrupting")
    check_photo(Image.new("RGB", (3, 9)), data, "x")
    with pytest.raises(InputError, match=r"x is too small: it has 9×2 pixels"):
        check_photo(Image.new("RGB", (2, 9)), data, "x")
    Image.new("RGB", (2, 9)).save(tmp_path / "small.png")
    with pytest.raises(InputError, match=r"small\.png is too small"):
        read_images([tmp_path], data)


def test_the_folder_of_a_file_names_its_class() -> None:
    files = [Path("a/green/x.png"), Path("red/y.png"), Path("z.png")]
    assert truths_of(colors_subject(), files).tolist() == [1, 0, -1]
    nameless = Subject("x", MeanColor(), DataConfig(), ("red", "green", "blue"), names_known=False)
    assert truths_of(nameless, files).tolist() == [-1, -1, -1]


def test_outcomes_of_logits_worked_out_by_hand() -> None:
    """Six classes with probabilities proportional to 1, 2, …, 32: class 0 is the sixth, class 1 the fifth."""
    logits = torch.arange(6.0).mul(math.log(2)).repeat(3, 1)
    found = outcomes_of(logits, [0, 1, 5])
    assert found.predictions.tolist() == [5, 5, 5]
    assert found.in_top5.tolist() == [False, True, True]
    assert found.confidences == pytest.approx([32 / 63] * 3)
    assert found.losses == pytest.approx([math.log(63), math.log(63 / 2), math.log(63 / 32)])
    assert (found.targets.tolist(), found.losses.dtype) == ([0, 1, 5], np.float64)
    assert outcomes_of(torch.tensor([[1.0, 3.0, 2.0]]), np.array([0])).in_top5.tolist() == [True]


class Half(MeanColor):
    """Answers in bfloat16 in evaluation mode, and falsely in training mode."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(-x if self.training else x).bfloat16()


def test_logits_are_float32_of_the_model_in_evaluation_mode() -> None:
    subject = Subject("half", Half().train(), DataConfig(**PLAIN), ("red", "green", "blue"))
    pixels = np.zeros((5, 4, 4, 3), np.uint8)
    pixels[range(5), ..., [0, 1, 2, 1, 0]] = 255
    logits = logits_of(subject, pixels, batch_size=2)
    assert (logits.dtype, logits.shape, logits.requires_grad) == (torch.float32, (5, 3), False)
    assert logits.argmax(1).tolist() == [0, 1, 2, 1, 0]


def test_mistakes_come_with_the_most_confident_first(tmp_path: Path) -> None:
    """A red image that is called green, a reddish one that is called blue, a right one, and a broken one."""
    for name, color in {
        "green/0": (255, 0, 0),
        "blue/0": (150, 90, 90),
        "red/0": (255, 0, 0),
        "red/1": (0, 0, 0),
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), color).save(tmp_path / f"{name}.png")
    (tmp_path / "red" / "1.png").write_bytes(b"no image")
    judged = list(judge(colors_subject(8), FolderSource(tmp_path, "")))
    assert [(one.truth, one.right) for one in judged] == [("blue", False), ("green", False), ("red", True)]
    assert len(judged[0].prediction.found.guesses) == 3
    wrong = mistakes(judged)
    assert [one.truth for one in wrong] == ["green", "blue"]
    confidence = math.e / (math.e + 2)
    assert wrong[0].confidence == pytest.approx(confidence)
    row = {"path": str(tmp_path / "green" / "0.png"), "truth": "green", "predicted": "red", "probability": 0.5761}
    assert json.loads(json.dumps(wrong[0].to_dict())) == row


def test_a_measurement_leaves_each_part_of_a_model_in_its_mode() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()))
    model[0].eval()
    modes = [module.training for module in model.modules()]
    with contextlib.suppress(ZeroDivisionError), eval_mode(model):
        assert not any(module.training for module in model.modules())
        raise ZeroDivisionError
    assert [module.training for module in model.modules()] == modes == [True, False, True, True]


@pytest.mark.parametrize("layer", [nn.LSTM, nn.Linear])
@pytest.mark.parametrize("gradients", [True, False])
def test_cudnn_is_left_out_where_it_would_refuse_to_run_backward(layer: type[nn.Module], gradients: bool) -> None:
    before = torch.backends.cudnn.enabled
    with torch.set_grad_enabled(gradients), vendor_rnn_backward(nn.Sequential(layer(2, 2))):
        assert torch.backends.cudnn.enabled is (before and not (gradients and layer is nn.LSTM))
    assert torch.backends.cudnn.enabled is before
