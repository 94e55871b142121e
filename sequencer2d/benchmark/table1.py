"""The paper's Table 1 from the benchmark's rows: its protocol beside each model at its best, and accuracies."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sequencer2d.benchmark.forms import PAPER
from sequencer2d.benchmark.results import Row, best_rows, label
from sequencer2d.errors import ConfigError
from sequencer2d.files import read_json


class Accuracy(NamedTuple):
    """Top-1 (%) of a model at an input size (pixels), as `sequencer2d eval --json` wrote it.

    `parameters` is None in files of versions that did not write it.
    """

    model: str
    size: int
    top1: float
    parameters: int | None = None


def read_accuracies(paths: Iterable[str | os.PathLike[str]]) -> list[Accuracy]:
    """The accuracies in files that `sequencer2d eval MODEL --json` wrote.

    Raises:
        ConfigError: a file that is missing or holds something else.
    """
    return [_read_accuracy(path) for path in paths]


def table1(rows: Iterable[Row], accuracies: Sequence[Accuracy] = ()) -> list[Row]:
    """One row per model, size and batch (the paper's is 16), in order of size, then of parameters.

    Args:
        rows: of the benchmark.
        accuracies: for the column `top1`.

    Returns:
        `label`, `model`, `family`, `size` (pixels), `batch` (images), `parameters`, `gmacs`, `top1` (%, None where
        nobody measured it), and for each protocol ("paper", "best") and mode ("training", "inference")
        `<protocol>_<mode>_rate` (images/s) and `<protocol>_<mode>_memory` (peak, MiB); None where there is no
        measurement.
    """
    found = {(accuracy.model, accuracy.size): accuracy.top1 for accuracy in accuracies}
    merged: dict[tuple[Any, ...], Row] = {}
    for row in best_rows(rows):
        name = tuple(row[key] for key in ("model", "library", "implementation", "size", "batch"))
        if name not in merged:
            about = {key: row[key] for key in ("model", "family", "size", "batch", "parameters", "gmacs")}
            merged[name] = {**_empty(), **about, "label": label(row), "top1": found.get((row["model"], row["size"]))}
        _add(merged[name], "paper" if row["form"] == PAPER else "best", row)
    return sorted(merged.values(), key=lambda row: (row["batch"], row["size"], row["parameters"], row["label"]))


def _add(entry: Row, protocol: str, row: Mapping[str, Any]) -> None:
    """Enter a rate and a memory, unless another dtype's rate that stands there is higher."""
    rate = f"{protocol}_{row['mode']}_rate"
    if entry[rate] is None or entry[rate] < row["images_per_s"]:
        entry[rate] = row["images_per_s"]
        entry[f"{protocol}_{row['mode']}_memory"] = row["lowest_memory_mib"]


def _empty() -> Row:
    return {
        f"{protocol}_{mode}_{what}": None
        for protocol in ("paper", "best")
        for mode in ("training", "inference")
        for what in ("rate", "memory")
    }


_WANTED = "give what `sequencer2d eval MODEL --json` wrote"


def _read_accuracy(path: str | os.PathLike[str]) -> Accuracy:
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except ValueError:
        raise ConfigError(f"{path} is no readable JSON; {_WANTED}") from None
    match content:
        case {"model": str(model), "image_size": [int(height), int(width)], "top1": float() | int() as top1}:
            parameters = content.get("parameters")
            if parameters is None or isinstance(parameters, int):
                return Accuracy(model, max(height, width), float(top1), parameters)
    raise ConfigError(
        f"{path} does not hold a model, a size of images, a top-1 accuracy and a count of parameters; {_WANTED}"
    )
