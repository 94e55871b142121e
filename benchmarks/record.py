"""What every result file says of the run it comes from: see `benchmarks/results/README.md` for the fields."""

from pathlib import Path
from typing import Any

from sequencer2d.benchmark.provenance import provenance
from sequencer2d.files import write_json

RESULTS = Path(__file__).parent / "results"

__all__ = ["RESULTS", "provenance", "write_result"]


def write_result(result: dict[str, Any], path: Path | None = None) -> Path:
    """Write one result file, atomically: by default `benchmarks/results/<name>.json`."""
    target = path or RESULTS / f"{result['name']}.json"
    write_json(target, result)
    return target
