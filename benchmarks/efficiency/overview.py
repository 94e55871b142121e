"""The tables of README's front page: the models with accuracy, size and speed, and four comparisons of speed."""

from benchmarks.columns import Column, Row, View, fixed, millions
from benchmarks.efficiency.ratios import COMPARISONS, RATIO_TABLES, ratios
from sequencer2d.benchmark import best_rows
from sequencer2d.benchmark.published import TABLE

DTYPE, SIZE = "bf16", 224
COLUMNS = {("inference", 256, SIZE): "inference", ("training", 128, SIZE): "training"}
SHOWN = (0, 5, 7, 10)
"""Of `COMPARISONS`: many images in inference and in training, one image, and large images where DeiT leads."""


def models(rows: list[Row]) -> list[Row]:
    """Every measured model whose accuracy the paper's Table 1 prints, each in its fastest form; smaller ones first."""
    published = {row.model: row for row in TABLE if row.size == SIZE}
    found: dict[str, Row] = {}
    for row in best_rows(rows):
        about = published.get(row["model"])
        timms_own = row["family"] == "Seq." and row["library"] == "timm"
        if about is None or timms_own or row["implementation"] == "recompute" or row["dtype"] != DTYPE:
            continue
        column = COLUMNS.get((row["mode"], row["batch"], row["size"]))
        if column is not None:
            sizes = {"parameters": row["parameters"], "gmacs": row["gmacs"]}
            entry = found.setdefault(row["model"], {"name": about.name, "top1": about.top1, **sizes})
            entry[column] = row["images_per_s"]
    return sorted(found.values(), key=lambda entry: float(entry["parameters"]))


def four(rows: list[Row]) -> list[Row]:
    """The comparisons of `SHOWN` that were measured."""
    return ratios(rows, [COMPARISONS[number] for number in SHOWN])


OVERVIEW_TABLES = {
    "front-models": View(
        "efficiency",
        (
            Column("name", "model"),
            Column("top1", "ImageNet-1K top-1, % (paper)", fixed(1)),
            Column("parameters", "parameters", millions),
            Column("gmacs", "GMACs", fixed(1)),
            Column("inference", "inference, images/s", fixed(0)),
            Column("training", "training, images/s", fixed(0)),
        ),
        models,
    ),
    "front-speed": View("efficiency", RATIO_TABLES["efficiency-ratios"].columns, four),
}
