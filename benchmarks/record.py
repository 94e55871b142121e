"""What every result file says of the run it comes from: see `benchmarks/results/README.md` for the fields."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sequencer2d.benchmark.provenance import provenance
from sequencer2d.files import write_json

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
FIGURES = ROOT / "docs" / "figures"


def command_line(script: str, arguments: Sequence[str] | None = None) -> str:
    """The command that ran a script. An absolute path is shortened to its last name: where it lay says nothing here.

    Args:
        script: its module, such as "benchmarks.cpu".
        arguments: its arguments; None for those of this process.
    """
    given = sys.argv[1:] if arguments is None else arguments
    return shlex.join(["python", "-m", script, *map(_without_folders, given)])


def _without_folders(argument: str) -> str:
    """An argument, or what stands behind its first "=", without the folders of an absolute path."""
    option, equals, value = argument.partition("=") if not argument.startswith("/") else ("", "", argument)
    return f"{option}{equals}{Path(value).name or value}" if value.startswith("/") else argument


def origin(name: str, script: str, command: str) -> dict[str, Any]:
    """The first fields of a result file: `name`, `script`, `date`, `device`, `versions`, `commit`, `command`.

    Args:
        name: the file's name without `.json`.
        script: the module that writes the file, such as "benchmarks.cpu".
        command: the command line that ran it.
    """
    return {"name": name, "script": script, **provenance(name), "command": command}


def write_result(result: dict[str, Any], path: Path | None = None) -> Path:
    """Write one result file, atomically: by default `benchmarks/results/<name>.json`."""
    target = path or RESULTS / f"{result['name']}.json"
    write_json(target, result)
    return target
