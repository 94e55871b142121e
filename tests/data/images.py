"""Small folders of real image files for the tests of the data layer."""

from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
    """A smooth coloured picture of (width, height), different for every seed."""
    generator = np.random.default_rng(seed)
    small = Image.fromarray(generator.integers(0, 256, (3, 3, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def make_folder(root: Path, splits: dict[str, dict[str, int]]) -> Path:
    """root/<split>/<class>/<number>.png with as many images as `splits` says."""
    for split, classes in splits.items():
        for number, (name, count) in enumerate(classes.items()):
            folder = root / split / name
            folder.mkdir(parents=True)
            for image in range(count):
                picture(1000 * number + image).save(folder / f"{image:03d}.png")
    return root


def break_image(path: Path) -> None:
    """Cut an image file in half."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
