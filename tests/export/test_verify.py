"""The comparison of an artifact with its model: on which inputs, in which measure, and within which limit."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sequencer2d.errors import ExportError, InputError
from sequencer2d.export import verify
from sequencer2d.export.verify import Difference
from sequencer2d.models.sequencer2d import Sequencer2D
from tests.export.conftest import small


class Recorder(torch.nn.Module):
    """An artifact that computes what the model does, times `factor`, and keeps its inputs."""

    def __init__(self, model: Sequencer2D, factor: float = 1.0) -> None:
        super().__init__()
        self.model, self.factor, self.inputs = model, factor, []

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.inputs.append(images)
        return self.model(images) * self.factor


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Red above, blue below, 40 pixels wide and 20 high."""
    pixels = np.zeros((20, 40, 3), dtype=np.uint8)
    pixels[:10, :, 0] = pixels[10:, :, 2] = 255
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_the_limits_are_those_of_the_documentation() -> None:
    assert verify.LIMITS == {"fp32": 1e-4, "int8": 0.5}
    assert (verify.BF16_BUDGET, verify.BATCHES) == (3, (1, 3))


def test_a_model_of_224_pixels_is_compared_at_three_sizes() -> None:
    assert verify.sizes_for(small(img_size=(224, 224))) == ((224, 224), (392, 392), (288, 320))


def test_the_difference_is_relative_to_the_largest_logit() -> None:
    expected = torch.tensor([[1.0, -4.0], [0.5, 2.0]])
    found = expected + torch.tensor([[0.0, 0.0], [0.02, -0.01]])
    assert verify.relative_difference(found, expected) == pytest.approx(0.02 / 4)
    assert verify.relative_difference(expected, expected) == 0
    assert verify.relative_difference(expected[:1], expected) == float("inf")
    assert verify.relative_difference(expected * float("nan"), expected) == float("inf")


def test_random_batches_and_images_are_compared_at_every_size(model: Sequencer2D, photo: Path) -> None:
    artifact = Recorder(model, 1.25)
    found = verify.compare(artifact, model, sizes=[(16, 16), (20, 24)], batches=(1, 2), images=[photo, photo, photo])
    assert [(each.source, each.size, each.batch) for each in found] == [
        (source, size, batch)
        for size in ((16, 16), (20, 24))
        for source, batch in (("random", 1), ("random", 2), ("images", 3))
    ]
    assert [each.relative for each in found] == pytest.approx([0.25] * 6)
    assert [tuple(images.shape) for images in artifact.inputs[:3]] == [(1, 3, 16, 16), (2, 3, 16, 16), (3, 3, 16, 16)]
    again = Recorder(model)
    verify.compare(again, model, sizes=[(16, 16)])
    torch.testing.assert_close(again.inputs[0], artifact.inputs[0])  # the same random images each time


def test_images_reach_the_artifact_as_the_models_evaluation_prepares_them(photo: Path) -> None:
    """Resized and cropped to the size, channels first, by the model's own mean and standard deviation."""
    model = small()
    model.pretrained_cfg = model.pretrained_cfg | {"mean": (0.5, 0.25, 0.0), "std": (0.5, 0.25, 2.0), "crop_pct": 1.0}
    artifact = Recorder(model)
    verify.compare(artifact, model, sizes=[(16, 16)], batches=(), images=[photo])
    (images,) = artifact.inputs
    red, blue = (1 - 0.5) / 0.5, 1 / 2.0
    torch.testing.assert_close(images[0, :, 1, 8], torch.tensor([red, -1.0, 0.0]), atol=0.02, rtol=0)
    torch.testing.assert_close(images[0, :, 14, 8], torch.tensor([-1.0, -1.0, blue]), atol=0.02, rtol=0)


def test_images_that_cannot_be_read_are_named(model: Sequencer2D, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"cannot compare on .*broken\.png"):
        verify.compare(Recorder(model), model, sizes=[(16, 16)], images=[tmp_path / "broken.png"])


def test_outputs_of_zero_cannot_be_compared(model: Sequencer2D) -> None:
    untrained = copy.deepcopy(model)
    untrained.reset_classifier(5)
    with pytest.raises(ExportError, match="all 0"):
        verify.compare(Recorder(untrained), untrained, sizes=[(16, 16)])


def test_bf16_may_differ_three_times_as_much_as_pytorch_in_bf16(model: Sequencer2D) -> None:
    rounded = copy.deepcopy(model).bfloat16()
    usual = verify.compare(lambda x: rounded(x.bfloat16()).float(), model, sizes=[(16, 16)])  # type: ignore[arg-type]
    worst = max(difference.relative for difference in usual)
    assert 1e-4 < worst < 0.1
    assert verify.limit_for(model, "bf16", [(16, 16)]) == pytest.approx(3 * worst)
    assert model.head.fc.weight.dtype == torch.float32
    assert verify.limit_for(model, "fp32", []) == 1e-4
    assert verify.limit_for(model, "int8", []) == 0.5


def test_the_worst_difference_decides_and_the_limit_itself_is_allowed() -> None:
    fine = [Difference("random", (16, 16), 1, 1e-5), Difference("images", (20, 24), 3, 1e-4)]
    verify.check(fine, 1e-4, "the file")
    with pytest.raises(ExportError, match=r"the file differs .* by 1\.0e-04 \(images, batch 3, 20×24 .* 9\.0e-05\)"):
        verify.check(fine, 9e-5, "the file")
    with pytest.raises(ExportError, match="by nan"):
        verify.check([Difference("random", (1, 1), 1, float("nan"))], 1.0, "the file")


def test_the_photographs_of_scikit_learn_are_used_where_it_is_installed() -> None:
    assert [path.name for path in verify.real_images()] == ["china.jpg", "flower.jpg"]
