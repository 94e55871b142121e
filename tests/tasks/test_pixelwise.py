"""Windows, scales and mirrored images: what is averaged, and in which size labels are compared."""

import pytest
import torch
import torch.nn.functional as F

from sequencer2d.tasks.overlap import OverlapMeter
from sequencer2d.tasks.pixelwise import Inference

IMAGES = torch.randn(2, 3, 40, 70)
WEIGHT = torch.randn(4, 3, 1, 1)


def pixel_by_pixel(images: torch.Tensor) -> torch.Tensor:
    return F.conv2d(images, WEIGHT)


@pytest.mark.parametrize("window", [16, 32, 40, 64, 70, 100])
def test_windows_cover_every_pixel_and_return_what_the_whole_image_does(window: int) -> None:
    seen = []

    def forward(images: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(images.shape[-2:]))
        return pixel_by_pixel(images)

    torch.testing.assert_close(Inference(window=window)(forward, IMAGES, None), pixel_by_pixel(IMAGES))
    assert set(seen) == {(min(40, window), min(70, window))}
    assert len(seen) == {16: 4 * 6, 32: 2 * 3, 40: 3, 64: 2, 70: 1, 100: 1}[window]


def test_logits_of_overlapping_windows_are_averaged() -> None:
    found = Inference(window=32)(lambda images: images[:, :1] * 0 + images[0, 0, 0, 0], IMAGES[:, :, :32, :45], None)
    left, right = IMAGES[0, 0, 0, 0], IMAGES[0, 0, 0, 13]
    torch.testing.assert_close(found[0, 0, 5, [0, 20, 44]], torch.stack([left, (left + right) / 2, right]))


def test_scales_and_mirrored_images_average_probabilities() -> None:
    def forward(images: torch.Tensor) -> torch.Tensor:  # not symmetric, and not pixel by pixel
        return F.conv2d(F.pad(images, (2, 0, 0, 0)), WEIGHT.expand(4, 3, 1, 3) / 3)

    found = Inference(scales=(0.5, 1.0), flip=True)(forward, IMAGES, None)
    parts = []
    for x in (F.interpolate(IMAGES, (20, 35), mode="bilinear"), IMAGES):
        for logits in (forward(x), forward(x.flip(-1)).flip(-1)):
            parts.append(F.interpolate(logits, (40, 70), mode="bilinear").softmax(1))
    torch.testing.assert_close(found, torch.stack(parts).mean(0))


def test_images_of_different_sizes_are_measured_in_the_size_of_their_labels() -> None:
    targets = [
        {"labels": torch.randint(4, (80, 140)), "size": torch.tensor([40, 70])},
        {"labels": torch.randint(4, (11, 13)), "size": torch.tensor([33, 39])},
    ]
    targets[0]["labels"][0] = 255
    outputs = Inference()(pixel_by_pixel, IMAGES, targets)
    assert [tuple(one.shape) for one in outputs] == [(4, 40, 70), (4, 33, 39)]
    meter = OverlapMeter(("a", "b", "c", "d"))
    meter.add(outputs, targets)
    right = scored = 0
    for number, (height, width) in enumerate(((40, 70), (33, 39))):
        labels = targets[number]["labels"]
        logits = pixel_by_pixel(IMAGES[number : number + 1, :, :height, :width])
        found = F.interpolate(logits, tuple(labels.shape), mode="bilinear").argmax(1)[0]
        right += int(((found == labels) & (labels != 255)).sum())
        scored += int((labels != 255).sum())
    result = meter.result([meter.state()], broken=0)
    assert (result.count, result.pixel_accuracy) == (2, pytest.approx(100 * right / scored))


def test_each_scale_is_a_pass_over_images_of_that_size_of_at_least_a_pixel() -> None:
    seen: list[tuple[int, ...]] = []

    def forward(images: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(images.shape[-2:]))
        return images[:, :2]

    assert Inference(scales=(0.1, 1.0, 1.5))(forward, torch.rand(1, 3, 30, 4), None).shape == (1, 2, 30, 4)
    assert seen == [(3, 1), (30, 4), (45, 6)]


def test_logits_in_16_bits_are_averaged_in_float32() -> None:
    """Windows of 4 pixels begin at 0 and 1 of 5. The mean of 1 and the next bfloat16 is no bfloat16."""

    def forward(images: torch.Tensor) -> torch.Tensor:
        return images[:, :1].bfloat16() * 0 + (1 if images[0, 0, 0, 0] == 0 else 1.0078125)

    images = torch.arange(5.0).expand(1, 3, 5, 5)
    found = Inference(window=4)(forward, images, None)
    assert found.dtype == torch.float32
    assert found[0, 0, 2].tolist() == [1, *[1.00390625] * 3, 1.0078125]
    mirrored = Inference(flip=True)(lambda images: images[:, :2].bfloat16(), IMAGES, None)
    parts = IMAGES[:, :2].bfloat16().float().softmax(1)
    torch.testing.assert_close(mirrored, parts)
