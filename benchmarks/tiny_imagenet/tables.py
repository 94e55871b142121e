"""Tables of `benchmarks/results/tiny-imagenet-*.json`: one line a model, mean and spread over its seeds."""

import statistics
from collections.abc import Iterable

from benchmarks.columns import Column, Row, View, fixed, measured, millions
from benchmarks.tiny_imagenet.runs import PLANS

PLANS_WITH_GAIN = ("fine_tune", "fine_tune_short")


def by_model(rows: list[Row]) -> list[Row]:
    """One row a model, in the file's order: mean accuracy with its standard deviation, and what all seeds took."""
    return [_merged(list(group)) for group in _groups(rows)]


def mean_and_spread(values: list[float]) -> str:
    """ "41.20 ± 0.35": the mean and the sample's standard deviation; the mean alone of a single value."""
    mean = f"{statistics.fmean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2f}"


def gpu_minutes(row: Row) -> float:
    """A run's share of its GPU's time, starts included."""
    return float(row["seconds"] / 60 / row.get("side_by_side", 1))


def resolution_rows(rows: list[Row]) -> list[Row]:
    """One row a run of the sweep over sizes: top-1 at the smallest, the native and the largest size."""
    found = []
    for row in rows:
        points = dict(zip(row["sizes"], row["top1_percent"], strict=True))
        name = f"{row['model']} ({row['plan']})"
        ends = {"smallest": min(points), "largest": max(points)}
        written = {key: f"{points[size]:.2f} ({size}²)" for key, size in (*ends.items(), ("at_native", row["native"]))}
        found.append({"model": name, "seed": row["seed"], **written})
    return found


def _groups(rows: list[Row]) -> Iterable[list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["model"], []).append(row)
    return groups.values()


def _merged(group: list[Row]) -> Row:
    # Beside others a run's rate says little of its model.
    alone = [row["images_per_second"] for row in group if row.get("side_by_side", 1) == 1]
    merged = {
        **group[0],
        "seeds": len(group),
        "top1": mean_and_spread([row["top1_percent"] for row in group]),
        "top5": mean_and_spread([row["top5_percent"] for row in group]),
        "gpu_minutes": statistics.fmean(map(gpu_minutes, group)),
        "rate": statistics.fmean(alone) if alone else None,
    }
    if all("gain_points" in row for row in group):
        merged["gain"] = mean_and_spread([row["gain_points"] for row in group])
    return merged


_COLUMNS = (
    Column("model", "model"),
    Column("paper", "the paper's table: row"),
    Column("parameters", "parameters", millions),
    Column("macs", "GMACs", lambda value: f"{value / 1e9:.2f}"),
    Column("image_size", "side, pixels"),
    Column("seeds", "seeds"),
    Column("top1", "top-1, %"),
    Column("gpu_minutes", "GPU minutes a run", fixed(1)),
    Column("expected_minutes", "expected", fixed(1)),
    Column("rate", "images/s", measured(fixed(0))),
)
_GAIN = (*_COLUMNS[:7], Column("gain", "gain, points"), *_COLUMNS[7:])


def shipped_rows(rows: list[Row]) -> list[Row]:
    """The one row of the model that ships, with the epochs and seconds of its two parts."""
    return [
        {
            **row,
            "both_epochs": f"{row['epochs']['plateau']:.1f} + {row['epochs']['decay']:.1f}",
            "both_seconds": f"{row['seconds']['plateau']:.0f} + {row['seconds']['decay']:.0f}",
            "both_rates": f"{row['images_per_second']['plateau']:,.0f}, {row['images_per_second']['decay']:,.0f}",
        }
        for row in rows
    ]


def stop_rows(rows: list[Row]) -> list[Row]:
    """One row a hard stop of the model that ships."""
    return [{**stop, "number": number + 1} for row in rows for number, stop in enumerate(row["stops"])]


def size_rows(rows: list[Row]) -> list[Row]:
    """One row a size of images at which the model that ships was evaluated."""
    return [
        {"side": side, "top1_percent": top1, "images": row["sizes_images"]}
        for row in rows
        for side, top1 in zip(row["sizes"], row["sizes_top1_percent"], strict=True)
    ]


TINY_IMAGENET_TABLES = {
    "tiny-imagenet-shipped": View(
        "tiny-imagenet-shipped",
        (
            Column("model", "model"),
            Column("parameters", "parameters", millions),
            Column("image_size", "side, pixels"),
            Column("top1_percent", "top-1, %", fixed(2)),
            Column("both_epochs", "epochs: plateau + decay"),
            Column("both_seconds", "seconds, starts included"),
            Column("both_rates", "images/s"),
        ),
        shipped_rows,
        "benchmarks.tiny_imagenet.shipping",
    ),
    "tiny-imagenet-sizes": View(
        "tiny-imagenet-shipped",
        (
            Column("side", "side, pixels"),
            Column("top1_percent", "top-1, %", fixed(2)),
            Column("images", "images"),
        ),
        size_rows,
        "benchmarks.tiny_imagenet.shipping",
    ),
    "tiny-imagenet-frozen": View(
        "tiny-imagenet-frozen",
        (
            Column("data", "data"),
            Column("weights", "weights of N-P4"),
            Column("classes", "classes"),
            Column("train_images", "training images"),
            Column("test_images", "test images"),
            Column("linear_percent", "linear classifier, %", fixed(1)),
            Column("knn_percent", "20 nearest neighbors, %", fixed(1)),
        ),
        list,
        "benchmarks.tiny_imagenet.frozen",
    ),
    "tiny-imagenet-stops": View(
        "tiny-imagenet-shipped",
        (
            Column("number", "hard stop"),
            Column("killed_after_step", "last step in the log when killed"),
            Column("goes_on_at_step", "goes on at step"),
            Column("lines_repeated", "log lines written twice"),
            Column("largest_difference_of_loss", "largest difference of their losses", lambda value: f"{value:.2g}"),
        ),
        stop_rows,
        "benchmarks.tiny_imagenet.shipping",
    ),
    **{
        f"tiny-imagenet-{plan}": View(
            f"tiny-imagenet-{plan}",
            _GAIN if plan in PLANS_WITH_GAIN else _COLUMNS,
            by_model,
            f"benchmarks.tiny_imagenet {plan}",
        )
        for plan in PLANS
    },
    "tiny-imagenet-resolution": View(
        "tiny-imagenet-resolution",
        (
            Column("model", "model (plan)"),
            Column("seed", "seed"),
            Column("smallest", "top-1 at half the size, %"),
            Column("at_native", "at the size of training, %"),
            Column("largest", "at double the size, %"),
        ),
        resolution_rows,
        "benchmarks.tiny_imagenet.resolution",
    ),
}
