"""Every example of the documentation stands on its own: Python runs as it stands, command lines are understood."""

import dataclasses
import functools
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import timm

from sequencer2d.cli.main import parse
from sequencer2d.models.variants import VARIANTS

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(?:<!-- (?P<mark>not run|needs): (?P<why>[^\n]*) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)```", re.DOTALL
)
"""A fenced block. `needs: PACKAGE` before it runs it where that package is installed, `not run: REASON` never."""
COMMAND = re.compile(r"^(?:\$ )?(?:torchrun .*-m )?sequencer2d (?!\.)(.*)$", re.MULTILINE)


class Example(NamedTuple):
    """A block of Python in a document."""

    name: str
    code: str
    mark: str | None
    why: str | None


def blocks(path: Path) -> list[re.Match[str]]:
    return list(BLOCK.finditer(path.read_text(encoding="utf-8")))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


EXAMPLES = [
    Example(f"{name_of(path)}-{number}", block["text"], block["mark"], block["why"])
    for path in DOCUMENTS
    for number, block in enumerate(block for block in blocks(path) if block["kind"] == "python")
]
COMMANDS = [
    (name_of(path), match[1])
    for path in DOCUMENTS
    for block in blocks(path)
    if block["kind"] in ("", "bash", "sh", "console")
    for match in COMMAND.finditer(block["text"])
]


def test_there_are_examples() -> None:
    assert len(EXAMPLES) > 20
    assert len(COMMANDS) > 60


@pytest.mark.parametrize("example", [each for each in EXAMPLES if each.mark != "not run"], ids=lambda each: each.name)
def test_an_example_runs_alone(example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if example.mark == "needs":
        pytest.importorskip(str(example.why))
    if "export" in example.code:
        make_shallow(monkeypatch)
    exec(compile(example.code, example.name, "exec"), {})


def make_shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let models have one block a stage: exporters take their time for each block, and no example says how many."""
    for name, row in VARIANTS.items():
        monkeypatch.setitem(VARIANTS, name, dataclasses.replace(row, depths=(1,) * len(row.depths)))
    theirs = functools.partial(timm.models.model_entrypoint("sequencer2d_s"), layers=(1, 1, 1, 1))
    monkeypatch.setitem(timm.models._registry._model_entrypoints, "sequencer2d_s", theirs)


def test_no_example_uses_a_name_that_it_does_not_define(tmp_path: Path) -> None:
    """Those that are not run here are held to it as well."""
    for number, example in enumerate(EXAMPLES):
        (tmp_path / f"{number}_{re.sub(r'[^a-z0-9]', '_', example.name.lower())}.py").write_text(example.code)
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select", "F821", tmp_path]
    done = subprocess.run(ruff, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("document", "command"), COMMANDS, ids=lambda value: value[:60])
def test_a_command_line_is_understood(
    document: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A remark stands behind two blanks or a #. Nothing is run; folders that it names are made."""
    monkeypatch.chdir(tmp_path)
    words = [re.sub("^/", f"{tmp_path}/", word) for word in shlex.split(re.split(r" {2,}| # | [>|] ", command)[0])]
    for folder in (word for word in words if word.startswith(("photos", "runs/", "/"))):
        Path(folder).mkdir(parents=True, exist_ok=True)
    parse(words)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text(encoding="utf-8"))
    missing = [link for link in links if not (path.parent / link).exists()]
    assert not missing
