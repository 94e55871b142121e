"""RetinaNet on BCCD with Sequencer2D-S and two peers, from scratch under one recipe: writes `results/bccd.json`.

    python -m benchmarks.bccd --data /data/bccd --epochs 60 --seconds 330

The models train side by side as processes on one device, by the recipe `bccd`, and are then measured on the split test.
Speeds are those of training side by side, on a device that all share. A run that the time limit stops is measured with
its best weights, and the row says after how many epochs; the same command goes on with a run of before in the same
folder.
"""

import sys

from benchmarks.columns import Column, fixed
from benchmarks.side_by_side import COST_COLUMNS, SIZE_COLUMNS, Comparison, run

BCCD = Comparison(
    name="bccd",
    script="benchmarks.bccd",
    about=__doc__ or "",
    verb="detect",
    models=("sequencer2d_s", "timm:resnet50", "timm:convnext_tiny"),
    epochs=60,
    seconds=330,
    numbers=("ap", "ap50", "ap75"),
)
BCCD_COLUMNS = (
    Column("model", "backbone"),
    *SIZE_COLUMNS,
    Column("ap", "AP, %", fixed(1)),
    Column("ap50", "AP50, %", fixed(1)),
    Column("ap75", "AP75, %", fixed(1)),
    *COST_COLUMNS,
)

if __name__ == "__main__":
    sys.exit(run(BCCD))
