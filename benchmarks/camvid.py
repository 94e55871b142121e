"""Semantic FPN on CamVid: Sequencer2D-S and four peers, from scratch under one recipe; `results/camvid.json`.

    python -m benchmarks.camvid --data /data/camvid --epochs 80 --seconds 300
    python -m benchmarks.camvid --data /data/camvid --models sequencer2d_s timm:resnet50 --seeds 1     adds two rows

The models train side by side as processes on one device, by the recipe `camvid` at 480 × 360 pixels, and are then
measured on the split test; a picture beside the result shows what each finds in some of its images. Speeds are those of
training side by side, on a device that all share: `benchmarks.dense.speed` measures a model alone. A run that the time
limit stops is measured with its best weights, and the row says after how many epochs; the same command goes on with a
run of before in the same folder.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.columns import Column, fixed
from benchmarks.side_by_side import COST_COLUMNS, SIZE_COLUMNS, Comparison, Row, Run, run
from sequencer2d.data.labels import IGNORED
from sequencer2d.data.mask_folders import MaskFolder
from sequencer2d.data.mask_sets import MASK_SETS
from sequencer2d.tasks.segmentation import color_of

SWIN = "timm:swin_tiny_patch4_window7_224"
SHOWN = 4
"""Images of the split test in the picture."""
_TILE = (240, 180)
_LINE = 18
_VOID = (0, 0, 0)


def draw(data: Path, output: Path, rows: Mapping[Run, Row], result: Path) -> None:
    """A picture beside the result file: photo, labels, and what each run finds, with a legend."""
    rules = MASK_SETS["camvid"]
    source = MaskFolder(data, "test", rules.class_names, rules.rules)
    chosen = [round(i * (len(source) - 1) / max(1, SHOWN - 1)) for i in range(min(SHOWN, len(source)))]
    columns: list[tuple[str, list[Image.Image]]] = [
        ("photo", [source[i][0] for i in chosen]),
        ("labels", [_colored(source[i][1]) for i in chosen]),
    ]
    photos = [source.describe(i) for i in chosen]
    for one, row in rows.items():
        folder = output / f"{one.folder}-labels"
        command = [sys.executable, "-m", "sequencer2d", "segment", "predict", str(output / one.folder), *photos]
        if not subprocess.run([*command, "--labels", str(folder)], stdout=subprocess.PIPE, check=False).returncode:
            found = [_colored(Image.open(folder / f"{Path(photo).stem}.png")) for photo in photos]
            columns.append((f"{row['model'].split('_patch')[0]}  {row['mean_iou']:.1f} %", found))
    picture = _sheet(columns, source.class_names)
    picture.save(result.with_suffix(".jpg"), quality=88)
    print(f"drawn in {result.with_suffix('.jpg')}")


def _colored(labels: Image.Image) -> Image.Image:
    """The labels of an image in the colors of the classes; what is ignored is black."""
    colors = np.array([color_of(k) if k != IGNORED else _VOID for k in range(256)], np.uint8)
    return Image.fromarray(colors[np.asarray(labels)])


def _sheet(columns: Sequence[tuple[str, Sequence[Image.Image]]], class_names: Sequence[str]) -> Image.Image:
    width, height = _TILE
    rows = len(columns[0][1])
    picture = Image.new("RGB", (len(columns) * width, rows * height + 2 * _LINE), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    for x, (title, images) in enumerate(columns):
        # Colors of classes must not mix: they would look like those of others.
        resampling = Image.Resampling.NEAREST if x else Image.Resampling.BICUBIC
        pen.text((x * width + 4, 2), title, fill="black", font=font)
        for y, image in enumerate(images):
            picture.paste(image.resize(_TILE, resampling), (x * width, _LINE + y * height))
    left = 4
    for number, name in enumerate(class_names):
        top = _LINE + rows * height
        pen.rectangle((left, top + 4, left + 10, top + 14), fill=color_of(number))
        pen.text((left + 14, top + 2), name, fill="black", font=font)
        left += 24 + round(pen.textlength(name, font=font))
    return picture


CAMVID = Comparison(
    name="camvid",
    script="benchmarks.camvid",
    about=__doc__ or "",
    verb="segment",
    models=("sequencer2d_s", "timm:resnet50", "timm:poolformer_s24", "timm:convnext_tiny", SWIN),
    epochs=80,
    seconds=300,
    numbers=("mean_iou", "pixel_accuracy"),
    fields=((SWIN, "model.overrides.strict_img_size=false"),),
    finish=draw,
)
CAMVID_COLUMNS = (
    Column("model", "backbone"),
    Column("seed", "seed"),
    *SIZE_COLUMNS,
    Column("mean_iou", "mIoU, %", fixed(1)),
    Column("pixel_accuracy", "pixel accuracy, %", fixed(1)),
    *COST_COLUMNS,
)

if __name__ == "__main__":
    sys.exit(run(CAMVID))
