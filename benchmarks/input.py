"""Speed of the input: CPU time of each step for an image, and the loader's rate. Writes `results/input.json`.

    python -m benchmarks.input --workers 16 --seconds 2

One row a case: a recipe, changed fields, and the size of the JPEG files, which are parts of two photos and lie in
memory. Milliseconds of a core are CPU time, so other programs do not count; the loader's rate is by the clock.
"""

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.columns import Column, fixed
from benchmarks.record import command_line, origin, write_result
from sequencer2d import recipes
from sequencer2d.training.feeding import input_rows
from sequencer2d.training.fields import with_overrides

NAME, SCRIPT = "input", "benchmarks.input"


class Case(NamedTuple):
    """A recipe with changed fields, on photos of a size."""

    title: str
    recipe: str
    photo: tuple[int, int]
    fields: dict[str, str]


CASES = (
    Case("ImageNet's recipe", "imagenet_s", (500, 375), {}),
    Case("… resized by torch", "imagenet_s", (500, 375), {"data.resampler": "torch"}),
    Case("… and its policy on the device", "imagenet_s", (500, 375),
         {"data.resampler": "torch", "data.augment_on": "workers+device"}),
    Case("CIFAR-10's recipe", "cifar10", (32, 32), {}),
    Case("… with `auto_augment` instead", "cifar10", (32, 32),
         {"data.batch_policy": "", "data.auto_augment": "rand-m9-mstd0.5-inc1"}),
)  # fmt: skip
PARTS = {
    "decode": "decode_ms",
    "crop": "crop_ms",
    "flip": "flip_ms",
    "policy": "policy_ms",
    "worker": "worker_ms",
    "loader": "loader_ms",
    "normalize": "normalize_ms",
    "mixup": "mixup_ms",
    "erase": "erase_ms",
}
INPUT_COLUMNS = (
    Column("case", "case"),
    Column("photo", "JPEG, pixels"),
    *(Column(PARTS[part], part, fixed(3)) for part in ("decode", "crop", "flip", "policy")),
    Column("worker_ms", "worker in all", fixed(3)),
    Column("loader_ms", "all processes", fixed(3)),
    Column("images_per_core_second", "images/s of a core", fixed(0)),
    Column("workers", "processes"),
    Column("images_per_second", "images/s", fixed(0)),
)


def measure(
    case: Case, data_folder: str, batch: int, workers: int | None, seconds: float, device: torch.device
) -> dict[str, Any]:
    """The row of a case."""
    fields = {**case.fields, "data.source": "folder", "data.root": data_folder}
    config = with_overrides(recipes.get(case.recipe), fields)
    data = dataclasses.replace(config.data, batch_size=min(batch, config.data.batch_size), workers=workers)
    rows = {
        row["part"]: row
        for row in input_rows(dataclasses.replace(config, data=data), case.photo, device, seconds=seconds, model=False)
    }
    loader = rows["loader"]
    return {
        "case": case.title,
        "recipe": case.recipe,
        "fields": case.fields,
        "photo": "×".join(map(str, case.photo)),
        "batch": data.batch_size,
        **{_key(row): row["ms_per_image"] for part, row in rows.items() if part in PARTS},
        "images_per_core_second": round(1e3 / loader["ms_per_image"], 1),
        "workers": loader["workers"],
        "images_per_second": loader["images_per_s"],
    }


def _key(row: dict[str, Any]) -> str:
    """The column of a part; a policy that the device runs has one of its own."""
    on_device = row["part"] == "policy" and row["where"] != "core"
    return "device_policy_ms" if on_device else PARTS[row["part"]]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", default="", metavar="FOLDER", help="train/<class>/* to read instead (default: photos of scikit-learn)"
    )
    parser.add_argument("--batch", type=int, default=256, help="images of a batch (default: 256)")
    parser.add_argument("--workers", type=int, help="processes that read (default: one a core, at most 16)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each figure (default: 2)")
    parser.add_argument("--cases", type=int, nargs="+", help="numbers of the cases, from 0 (default: all)")
    parser.add_argument("--device", default="cpu", help="where batches are mixed and erased (default: cpu)")
    parser.add_argument("--output", type=Path, help=f"default: benchmarks/results/{NAME}.json")
    arguments = parser.parse_args(argv)
    device, started, rows = torch.device(arguments.device), time.monotonic(), []
    for number in arguments.cases or range(len(CASES)):
        case = CASES[number]
        if device.type == "cpu" and "data.augment_on" in case.fields:
            print(f"left out, as it needs --device cuda: {case.title}")
            continue
        rows.append(
            measure(
                case,
                arguments.data,
                arguments.batch,
                arguments.workers,
                arguments.seconds,
                torch.device(arguments.device),
            )
        )
        print(f"{time.monotonic() - started:5.1f} s  {rows[-1]}", flush=True)
        write_result({**origin(NAME, SCRIPT, command_line(SCRIPT, argv)), "rows": rows}, arguments.output)


if __name__ == "__main__":
    main()
