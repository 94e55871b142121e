"""The paper's Table 1 as measured, beside what the paper prints, and who is ahead of Sequencer in it."""

import itertools
from typing import Any

from benchmarks.columns import Column, Row, View, fixed, millions
from sequencer2d.benchmark import table1
from sequencer2d.benchmark.published import TABLE, Published, published

MODES = ("training", "inference")
PROTOCOLS = {"paper": "paper's protocol", "best": "each at its best"}
SEQUENCER = "Sequencer2D"
BATCH = 16


def rows_of(rows: list[Row]) -> list[Row]:
    """A row for each model: pairs of training and inference for both protocols, and the paper's own."""
    found = []
    for row in table1(rows):
        printed = published(row["model"], row["size"])
        pairs = {
            f"{protocol}_{what}": _pair(*(row[f"{protocol}_{mode}_{what}"] for mode in MODES))
            for protocol in PROTOCOLS
            for what in ("rate", "memory")
        }
        v100 = {"v100_rate": _pair(*printed.rates), "v100_memory": _pair(*printed.memory)} if printed else {}
        found.append({**row, **pairs, "v100_rate": "–", "v100_memory": "–", **v100})
    return found


def classes() -> list[list[Published]]:
    """The paper's rows by class: in its order, each class ends with a Sequencer."""
    found: list[list[Published]] = [[]]
    for row in TABLE:
        found[-1].append(row)
        if row.series == SEQUENCER:
            found.append([])
    return [group for group in found if group]


def ahead(rows: list[Row]) -> list[Row]:
    """For each Sequencer, protocol and mode: its rate, and the peers of its class with a higher one, fastest first."""
    measured = {
        (row["model"], row["size"]): row
        for row in table1(rows)
        if row["batch"] == BATCH and row["label"].startswith(_ours(row))
    }
    found = []
    for (protocol, title), mode, group in itertools.product(PROTOCOLS.items(), MODES, classes()):
        key = f"{protocol}_{mode}_rate"
        rates = {row.name: measured.get((row.model, row.size), {}).get(key) for row in group}
        name, own = list(rates.items())[-1]
        if own is None:
            continue
        faster = sorted((rate, peer) for peer, rate in rates.items() if rate is not None and rate > own)
        found.append(
            {
                "protocol": title,
                "mode": mode,
                "name": name,
                "rate": own,
                "ahead": ", ".join(f"{peer} {rate:,.0f}" for rate, peer in reversed(faster)) or "none",
                "peers": sum(rate is not None for rate in rates.values()) - 1,
                "missing": ", ".join(peer for peer, rate in rates.items() if rate is None) or "–",
            }
        )
    return found


def _ours(row: Row) -> str:
    """How the label of the row begins that stands for its model: timm's Sequencer does not stand for Sequencer."""
    return "sequencer2d" if "sequencer2d" in str(row["model"]) else ""


def _pair(training: Any, inference: Any) -> str:
    """Training/inference, as the paper writes them."""
    return "/".join("–" if value is None else f"{value:,.0f}" for value in (training, inference))


TABLE1_TABLES = {
    "efficiency-table1": View(
        "efficiency-table1",
        (
            Column("label", "model"),
            Column("family", "family"),
            Column("size", "res.", "{}²".format),
            Column("parameters", "parameters", millions),
            Column("gmacs", "GMACs", fixed(1)),
            Column("paper_rate", "paper's protocol, images/s"),
            Column("paper_memory", "peak MiB"),
            Column("best_rate", "at its best, images/s"),
            Column("best_memory", "peak MiB"),
            Column("v100_rate", "paper, V100, images/s"),
            Column("v100_memory", "peak MB"),
        ),
        rows_of,
    ),
    "efficiency-table1-ahead": View(
        "efficiency-table1",
        (
            Column("protocol", "protocol"),
            Column("mode", "mode"),
            Column("name", "model"),
            Column("rate", "images/s", fixed(0)),
            Column("ahead", "faster peers of its class, images/s"),
            Column("peers", "peers measured"),
            Column("missing", "not measured"),
        ),
        ahead,
    ),
}
