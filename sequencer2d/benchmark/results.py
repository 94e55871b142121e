"""Result files of the benchmark: rows added one by one, resumed, merged, and the best of each model found.

A row is a flat dictionary; `KEY` names the fields that identify it. `error` says why a row has no rate.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sequencer2d.benchmark.contenders import RECOMPUTE
from sequencer2d.benchmark.forms import FORMS
from sequencer2d.benchmark.provenance import now
from sequencer2d.errors import ConfigError
from sequencer2d.files import read_json, write_json

KEY = ("model", "implementation", "form", "mode", "dtype", "batch", "size", "sources")
WORKLOAD = ("mode", "dtype", "batch", "size")
SAME_DEVICE = ("kind", "name", "threads", "cuda", "cudnn")

# What every reader of a row may rely on.
_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("model", "library", "family", "implementation", "form", "mode", "dtype", "date"), str),
    **dict.fromkeys(("batch", "size"), int),
    **dict.fromkeys(("images_per_s", "peak_memory_mib"), (int, float, type(None))),
}

Row = dict[str, Any]
Key = tuple[Any, ...]

EMPTY: Row = dict.fromkeys(
    (
        "resolved",
        "images_per_s",
        "step_ms",
        "latency_ms",
        "spread_percent",
        "repeats",
        "peak_memory_mib",
        "prepare_s",
        "parameters",
        "gmacs",
        "gate",
        "error",
    )
)
"""What a row holds beside its identity, its commit and its date, before anything is measured."""

_OWN_PROTOCOL = frozenset(name for name, form in FORMS.items() if form.own_protocol)
_MEMORY_FOR_TIME = frozenset(name for name, form in FORMS.items() if form.pays_memory_with_time)


def row_key(row: Mapping[str, Any]) -> Key:
    """What makes two rows the same measurement. `sources` is "" where our code has no part in the speed."""
    return tuple(row.get(name) for name in KEY)


class ResultFile:
    """A JSON file that is written whole after every row.

    Args:
        path: the file; it is continued if it exists.
        header: `provenance(name)` and what else stands above the rows.
        fresh: drop the rows of an existing file.

    Raises:
        ConfigError: an existing file that is no result, or comes from another device or other versions.
    """

    def __init__(self, path: str | os.PathLike[str], header: Mapping[str, Any], *, fresh: bool = False) -> None:
        self.path = Path(path)
        self.header = dict(header)
        self.rows: dict[Key, Row] = {}
        self.ceilings: list[dict[str, Any]] = []
        if self.path.exists() and not fresh:
            before = read_result(self.path)
            _check_same_origin(before, self.header, self.path)
            self.rows = {row_key(row): row for row in before["rows"]}
            self.ceilings = before.get("ceilings", [])
            self.header["command"] = _joined(before.get("command"), self.header.get("command"))

    def get(self, key: Key) -> Row | None:
        return self.rows.get(key)

    def add(self, row: Row) -> None:
        """Add a row, in place of an older one for the same measurement, and write the file."""
        self.rows[row_key(row)] = row
        self.write()

    def add_ceilings(self, found: Mapping[str, Any]) -> None:
        self.ceilings.append({**found, "date": now()})
        self.write()

    def write(self) -> None:
        content = {**self.header, "date": now(), "ceilings": self.ceilings, "rows": list(self.rows.values())}
        write_json(self.path, content)


def read_result(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a result file. Raises ConfigError for one that is missing or something else."""
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such result file") from None
    except ValueError as error:
        raise ConfigError(f"{path} is no readable JSON ({error}); remove it or name another file") from None
    if not isinstance(content, dict) or not {"device", "versions", "rows"} <= content.keys():
        raise ConfigError(f"{path} is no result of `sequencer2d bench`: it lacks device, versions or rows")
    if not isinstance(content["rows"], list) or not all(_is_row(row) for row in content["rows"]):
        raise ConfigError(f"{path} is no result of `sequencer2d bench`: its rows lack fields or hold other types")
    return content


def _is_row(row: object) -> bool:
    return isinstance(row, dict) and all(isinstance(row.get(name), kind) for name, kind in _TYPES.items())


def merge(results: Iterable[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """Put results of one kind of device into one: of equal measurements the latest, commits listed where they differ.

    Raises:
        ConfigError: no results, or results of different devices or versions.
    """
    results = list(results)
    if not results:
        raise ConfigError("nothing to merge: name at least one result file")
    first = results[0]
    for other in results[1:]:
        _check_same_origin(other, first, other.get("name", "a result"))
    rows: dict[Key, Row] = {}
    for row in sorted((row for result in results for row in result["rows"]), key=lambda row: row["date"]):
        rows[row_key(row)] = row
    return {
        **first,
        "name": name,
        "date": max(result["date"] for result in results),
        "commit": ", ".join(sorted({result["commit"] for result in results})),
        "command": _joined(*(result["command"] for result in results)),
        "ceilings": _unique(found for result in results for found in result.get("ceilings", [])),
        "rows": list(rows.values()),
    }


def _joined(*commands: str | None) -> str:
    """All commands behind a file's rows, each once."""
    return "; ".join(dict.fromkeys(command for joined in commands if joined for command in joined.split("; ")))


def _unique(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({tuple(entry.items()): entry for entry in entries}.values())


def label(row: Mapping[str, Any]) -> str:
    """How a row's model is named in tables: ours with the implementation, timm's Sequencer as timm's."""
    if row["library"] == "sequencer2d":
        again = ", gates recomputed" if row["implementation"] == RECOMPUTE else ""
        return f"{row['model']} ({row.get('resolved') or row['implementation']}{again})"
    short = row["model"].split("_patch")[0].removesuffix("_224")
    if row["family"] != "Seq.":
        return short
    return f"timm {short}" + (" (fused)" if row["implementation"] != "timm" else "")


def best_rows(rows: Iterable[Row]) -> list[Row]:
    """For every model and workload the form with the highest rate; rows without a rate are left out.

    Of rows for different sources of ours the latest counts. Each gets `lowest_memory_mib`, the least peak of its forms,
    `lean` aside where there are others: a memory that is paid for with computation has to be shown beside its own rate.
    The form `paper`, another protocol, is compared by itself.
    """
    groups: dict[Key, list[Row]] = {}
    for row in latest(rows):
        if row.get("images_per_s"):
            groups.setdefault((row["model"], row["implementation"], *_workload(row)), []).append(row)
    found = []
    for group in groups.values():
        usual = [row for row in group if row["form"] not in _MEMORY_FOR_TIME] or group
        peaks = [row["peak_memory_mib"] for row in usual if row.get("peak_memory_mib") is not None]
        winner = max(group, key=lambda row: row["images_per_s"])
        found.append({**winner, "lowest_memory_mib": min(peaks, default=None)})
    return found


def latest(rows: Iterable[Row]) -> list[Row]:
    """Of rows that differ only in the sources of our code, the latest."""
    found: dict[Key, Row] = {}
    for row in sorted(rows, key=lambda row: row["date"]):
        found[tuple(row.get(name) for name in KEY if name != "sources")] = row
    return list(found.values())


def with_ratio(best: Iterable[Row], peer: str) -> list[Row]:
    """`best_rows` with `ratio`: the rate over that of the peer's best on the same workload; None without one."""
    best = list(best)
    reference = {
        _workload(row): row["images_per_s"] for row in best if row["library"] != "sequencer2d" and _is(row, peer)
    }
    return [
        {**row, "ratio": row["images_per_s"] / reference[_workload(row)] if _workload(row) in reference else None}
        for row in best
    ]


def _is(row: Mapping[str, Any], peer: str) -> bool:
    return peer in (row["model"], label(row))


def _workload(row: Mapping[str, Any]) -> Key:
    """What rows must share to be compared: the workload, and whether it ran by the paper's protocol."""
    return (*(row[name] for name in WORKLOAD), row["form"] in _OWN_PROTOCOL)


def _check_same_origin(found: Mapping[str, Any], expected: Mapping[str, Any], where: object) -> None:
    for part, keys in (("device", SAME_DEVICE), ("versions", ("torch", "timm", "triton"))):
        for key in keys:
            have, want = found[part].get(key), expected[part].get(key)
            if have != want:
                raise ConfigError(
                    f"{where} was measured with {part} {key} {have}, this is {want}: rates of both in one file would "
                    "not compare. Name another --output, or start the file anew with --force"
                )
