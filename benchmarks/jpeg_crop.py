"""What decoding only the crop of a JPEG would save in training. Writes `results/jpeg-crop.json`.

    pip install simplejpeg pyvips pyvips-binary
    VIPS_CONCURRENCY=1 python -m benchmarks.jpeg_crop --seconds 2

One row a way to get the crop that training draws: CPU time of an image on one core, the part of a worker's time that it
saves, and how far its pixels are from those of Pillow's whole image. Photos of 500×375 pixels, ImageNet's crops.
Packages that are not installed have no row.
"""

import argparse
import importlib.util
import io
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.columns import Column, fixed
from benchmarks.record import command_line, origin, write_result
from sequencer2d import recipes
from sequencer2d.data.images import decode
from sequencer2d.data.loader import CLASS_NUMBERS
from sequencer2d.data.photos import PhotoSource
from sequencer2d.data.rates import worker_rows
from sequencer2d.data.reader import BatchReader
from sequencer2d.data.transforms import train_transform

NAME, SCRIPT = "jpeg-crop", "benchmarks.jpeg_crop"
SIZE = (500, 375)
Box = tuple[int, int, int, int]
"""left, top, right, bottom in pixels."""
Way = Callable[[bytes, Box], Image.Image]
"""(JPEG file, box) → the image in the box, RGB, as the next step of training takes it."""


def whole(content: bytes, box: Box) -> Image.Image:
    """What the package does."""
    return decode(content).crop(box)


def plain(content: bytes, box: Box) -> Image.Image:
    """Pillow alone, without the package's care for orientation and transparency."""
    return Image.open(io.BytesIO(content)).crop(box)


def torchvision_whole(content: bytes, box: Box) -> Image.Image:
    """torchvision, which decodes whole images."""
    from torchvision.io import decode_jpeg

    pixels = decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    return Image.fromarray(pixels[:, box[1] : box[3], box[0] : box[2]].permute(1, 2, 0).contiguous().numpy())


def simplejpeg_whole(content: bytes, box: Box) -> Image.Image:
    """simplejpeg, which decodes whole images."""
    pixels = importlib.import_module("simplejpeg").decode_jpeg(content)
    return Image.fromarray(np.ascontiguousarray(pixels[box[1] : box[3], box[0] : box[2]]))


def pyvips_crop(content: bytes, box: Box) -> Image.Image:
    """libvips, which reads rows as they are asked for, and none below the crop."""
    image = importlib.import_module("pyvips").Image.new_from_buffer(content, "", access="sequential")
    return Image.fromarray(image.crop(box[0], box[1], box[2] - box[0], box[3] - box[1]).numpy())


WAYS: dict[str, tuple[Way, str]] = {
    "this package": (whole, "PIL"),
    "Pillow, whole image": (plain, "PIL"),
    "torchvision, whole image": (torchvision_whole, "torchvision"),
    "simplejpeg, whole image": (simplejpeg_whole, "simplejpeg"),
    "pyvips, crop": (pyvips_crop, "pyvips"),
}
"""Title → the way, and the package that it needs."""
CROP_COLUMNS = (
    Column("way", "way"),
    Column("ms_per_image", "ms of an image", fixed(3)),
    Column("saved_of_worker", "saves of a worker's time, %", fixed(1)),
    Column("mean_difference", "mean difference, of 255", fixed(3)),
    Column("largest_difference", "largest difference", fixed(0)),
)


def measure(seconds: float) -> tuple[list[dict[str, Any]], float]:
    """The rows, and the milliseconds that a worker takes for an image in all."""
    torch.set_num_threads(1)
    config = recipes.get("imagenet_s").data
    source = PhotoSource(SIZE)
    reader = BatchReader(
        source, CLASS_NUMBERS.train_transform(config), collate=CLASS_NUMBERS.collate, seed=0, replace_broken=True,
        max_broken=0,
    )  # fmt: skip
    steps = {row["part"]: row for row in worker_rows(config, source, CLASS_NUMBERS, reader, seconds)}
    worker_ms = steps["worker"]["ms_per_image"]
    files, boxes = source.identities()[0], draw_boxes(len(source))
    expected = [np.array(whole(*pair), dtype=int) for pair in zip(files, boxes, strict=True)]
    timed = {title: way for title, (way, package) in WAYS.items() if importlib.util.find_spec(package)}
    rows = []
    for title, way in timed.items():
        found = [way(*pair) for pair in zip(files, boxes, strict=True)]
        differences = [np.abs(np.array(a, dtype=int) - b) for a, b in zip(found, expected, strict=True)]
        rows.append(
            {
                "way": title,
                "ms_per_image": round(core_ms(way, files, boxes, seconds), 4),
                "mean_difference": round(float(np.mean([part.mean() for part in differences])), 4),
                "largest_difference": int(max(part.max() for part in differences)),
            }
        )
        print(rows[-1], flush=True)
    for row in rows:
        row["saved_of_worker"] = round(100 * (rows[0]["ms_per_image"] - row["ms_per_image"]) / worker_ms, 1)
    return rows, worker_ms


def draw_boxes(count: int) -> list[Box]:
    """Crops as training draws them."""
    random.seed(0)
    step = train_transform(recipes.get("imagenet_s").data).steps[0]  # type: ignore[attr-defined]
    boxes = []
    for _ in range(count):
        top, left, height, width = step.get_params(Image.new("RGB", SIZE), step.scale, step.ratio)
        boxes.append((left, top, left + width, top + height))
    return boxes


def core_ms(way: Way, files: Any, boxes: list[Box], seconds: float) -> float:
    """Least CPU time of an image, in milliseconds, over rounds of all files that take `seconds` together."""
    rounds = []
    end = time.process_time() + seconds
    while time.process_time() < end or not rounds:
        start = time.process_time()
        for pair in zip(files, boxes, strict=True):
            way(*pair)
        rounds.append(time.process_time() - start)
    return 1e3 * min(rounds) / len(files)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each figure (default: 2)")
    parser.add_argument("--output", type=Path, help=f"default: benchmarks/results/{NAME}.json")
    arguments = parser.parse_args(argv)
    rows, worker_ms = measure(arguments.seconds)
    head = origin(NAME, SCRIPT, command_line(SCRIPT, argv))
    write_result({**head, "worker_ms": round(worker_ms, 4), "rows": rows}, arguments.output)


if __name__ == "__main__":
    main()
