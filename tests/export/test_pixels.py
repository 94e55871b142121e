"""The page's JavaScript makes of pixels what Python makes of them, byte by byte. Runs in Node.js where that is."""

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import torch
from PIL import Image

from sequencer2d.data.config import DataConfig
from sequencer2d.data.eval_transforms import eval_transform
from sequencer2d.data.normalization import normalize
from sequencer2d.export import page

NODE = shutil.which("node")
PIXELS_JS = Path(page.__file__).parent / "web" / "pixels.js"
ROWS_FIRST = int(PIL.__version__.split(".")[0]) >= 13
"""Whether this Pillow resizes the rows first in crops that lose far more rows than columns, as the page does."""

FILTERS = [{"eval_interpolation": name} for name in ("nearest", "bilinear", "bicubic", "lanczos")]
CROPS = [{"eval_crop": crop, "crop_pct": share} for crop in ("center", "squash", "border") for share in (0.875, 1.0)]
SIZES = [(50, 40), (40, 50), (33, 33), (28, 28), (7, 90), (5, 3), (61, 1)]
TALL = [(200, 41), (301, 100)]

pytestmark = pytest.mark.skipif(NODE is None, reason="needs Node.js")


def config(**fields: Any) -> DataConfig:
    return DataConfig(**({"image_size": 28, "mean": (0.1, 0.5, 0.7), "std": (0.2, 0.3, 0.4)} | fields))


def input_of(data: DataConfig) -> dict[str, Any]:
    entries: dict[str, Any] = data.input_spec.to_description()["input"]
    return entries


def in_node(cases: list[tuple[np.ndarray, DataConfig]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """(pixels uint8 (H, W, 3), values float32 (3, H, W)) that pixels.js makes of images."""
    told = []
    for image, data in cases:
        opaque = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
        text = base64.b64encode(opaque.tobytes()).decode()
        told.append({"height": len(image), "width": image.shape[1], "data": text, "input": input_of(data)})
    command = [NODE, Path(__file__).with_name("prepare.js"), PIXELS_JS]
    done = subprocess.run(command, input=json.dumps(told), capture_output=True, text=True, check=True)
    return [
        (
            np.frombuffer(base64.b64decode(answer["pixels"]), np.uint8).reshape(*data.size, 3),
            np.frombuffer(base64.b64decode(answer["values"]), np.float32).reshape(3, *data.size),
        )
        for answer, (_, data) in zip(json.loads(done.stdout), cases, strict=True)
    ]


def check(cases: list[tuple[np.ndarray, DataConfig]]) -> None:
    for (image, data), (pixels, values) in zip(cases, in_node(cases), strict=True):
        expected = eval_transform(data)(Image.fromarray(image))
        np.testing.assert_array_equal(pixels, expected, err_msg=f"{image.shape} {data.input_spec}")
        tensor = torch.from_numpy(np.array(expected)).permute(2, 0, 1)[None]
        normalized = normalize(tensor, data.mean, data.std, device=torch.device("cpu"))[0]
        np.testing.assert_allclose(values, normalized.numpy(), rtol=0, atol=2e-6)


def noise(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


def test_every_filter_and_crop_gives_pillows_pixels() -> None:
    fields = [one | other for one in FILTERS for other in CROPS]
    check([(noise(size), config(**each)) for each in fields for size in SIZES])


def test_sizes_that_are_no_squares_and_strips_too_thin_for_the_size() -> None:
    sizes = [*SIZES, (300, 1), (1, 300)]
    check([(noise(size), config(image_size=(20, 36), eval_crop=crop)) for crop in ("center", "squash", "border")
           for size in SIZES])  # fmt: skip
    check([(noise(size), config(eval_crop="border")) for size in sizes])


@pytest.mark.skipif(not ROWS_FIRST, reason="Pillow before 13 resizes tall images in another order")
def test_tall_images_are_resized_in_pillows_order() -> None:
    check([(noise(size), config(eval_crop=crop)) for crop in ("center", "squash", "border") for size in TALL])


def test_photographs_at_full_size() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    photos = datasets.load_sample_images().images
    check([(photo, config(image_size=size)) for photo in photos for size in (64, 224)])
