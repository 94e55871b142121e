"""Images as people hold them become the same pixels, and what is no image is refused by name."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sequencer2d.data.given import each_image, is_single, open_given
from sequencer2d.data.images import BrokenImageError
from sequencer2d.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
CHANNELS_FIRST = torch.from_numpy(PIXELS).permute(2, 0, 1)


def test_every_form_of_an_image_gives_the_same_pixels(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "x.png")
    forms = [
        tmp_path / "x.png",
        str(tmp_path / "x.png"),
        Image.fromarray(PIXELS),
        PIXELS,
        PIXELS / 255.0,
        (PIXELS / 255.0).astype(np.float32),
        CHANNELS_FIRST,
        CHANNELS_FIRST.float() / 255,
        np.concatenate([PIXELS, np.full((5, 7, 1), 255, np.uint8)], axis=2),
    ]
    for form in forms:
        assert np.array_equal(np.asarray(open_given(form)), PIXELS), type(form)


def test_gray_images_and_transparency() -> None:
    gray = PIXELS[..., 0]
    expected = np.repeat(gray[..., None], 3, axis=2)
    for form in (gray, gray[..., None], torch.from_numpy(gray), torch.from_numpy(gray)[None]):
        assert np.array_equal(np.asarray(open_given(form)), expected)
    clear = np.zeros((2, 2, 4), np.uint8)
    assert (np.asarray(open_given(clear)) == 255).all(), "what is transparent shows the background"


def test_an_image_that_was_given_is_not_changed() -> None:
    image = Image.fromarray(PIXELS)
    image.getexif()[0x0112] = 6
    assert open_given(image).size == (5, 7), "turned as its note says"
    assert (image.size, image.getexif()[0x0112]) == ((7, 5), 6)


@pytest.mark.parametrize(
    "wrong, says",
    [
        (3, "got int"),
        (PIXELS.astype(np.int64), r"expected uint8 .* of int64"),
        (PIXELS.astype(np.float32), r"from 0 to 1, got ndarray \(5, 7, 3\) of float32 with values from 0 to 2"),
        (torch.full((3, 4, 4), float("nan")), "from 0 to 1"),
        (torch.from_numpy(PIXELS), r"shape \(H, W\) or \(1, 3 or 4, H, W\), got Tensor \(5, 7, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), "expected an image of shape"),
        (np.zeros(4, np.uint8), "expected an image of shape"),
    ],
)
def test_what_is_no_image_is_refused(wrong: object, says: str) -> None:
    with pytest.raises(InputError, match=says):
        open_given(wrong)  # type: ignore[arg-type]


def test_a_broken_file_is_no_mistake_of_the_caller(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no image")
    with pytest.raises(BrokenImageError):
        open_given(tmp_path / "x.png")


def test_one_and_many() -> None:
    assert [path for path, _ in each_image(["a.png", Path("b.png"), PIXELS])] == ["a.png", "b.png", "image 2"]
    assert [path for path, _ in each_image(np.stack([PIXELS, PIXELS]))] == ["image 0", "image 1"]
    assert [is_single(x) for x in ("a.png", PIXELS, CHANNELS_FIRST, CHANNELS_FIRST[None], [PIXELS])] == [
        *[True] * 3,
        *[False] * 2,
    ]
