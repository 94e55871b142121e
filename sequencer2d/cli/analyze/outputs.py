"""Whose outputs lie in a folder, so that no command overwrites another model's.

`models.json` in the folder of `--output` says for each name of files from which models they were made. A page of
`report` says so itself.
"""

from __future__ import annotations

import argparse
import html
import json
import re
from collections.abc import Sequence
from pathlib import Path

from sequencer2d.errors import ConfigError
from sequencer2d.models.specs import identity

OWNERS = "models.json"
META = "sequencer2d-models"
_META = re.compile(rf'<meta name="{META}" content="([^"]*)">')


def owners(specs: Sequence[str]) -> list[str]:
    """What tells the models of a command line, or files of results in place of them, from others, in their order."""
    return [str(Path(spec).resolve()) if spec.endswith(".json") else identity(spec) for spec in specs]


def check_files(arguments: argparse.Namespace, specs: Sequence[str]) -> None:
    """Raise `ConfigError` if FOLDER/NAME.* are of other models, or of nobody knows which."""
    folder, name = Path(arguments.output), arguments.name
    there = _owned(folder).get(name)
    unknown = there is None and any((folder / f"{name}.{suffix}").exists() for suffix in ("png", "svg", "pdf", "npz"))
    if unknown or there not in (None, owners(specs)):
        whose = "is not known" if there is None else f"is {', '.join(there)}"
        raise ConfigError(
            f"{folder / name}.* would be overwritten, whose model {whose}: name the new files with --name, or give "
            "another folder with --output"
        )


def claim_files(arguments: argparse.Namespace, specs: Sequence[str]) -> None:
    """Note that FOLDER/NAME* are of these models."""
    from sequencer2d.files import write_json

    folder = Path(arguments.output)
    folder.mkdir(parents=True, exist_ok=True)
    owned = _owned(folder)
    if owned.get(arguments.name) != owners(specs):
        write_json(folder / OWNERS, {**owned, arguments.name: owners(specs)})


def check_page(path: Path, specs: Sequence[str]) -> None:
    """Raise `ConfigError` if a report is there that is of other models, or another file."""
    if not path.is_file():
        return
    found = _META.search(path.read_text(encoding="utf-8", errors="replace")[:4096])
    if found is None or html.unescape(found[1]) != "; ".join(owners(specs)):
        whose = html.unescape(found[1]) if found else "something else"
        raise ConfigError(f"{path} would be overwritten, which is about {whose}: give another file with --output")


def _owned(folder: Path) -> dict[str, list[str]]:
    try:
        stored = json.loads((folder / OWNERS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}
