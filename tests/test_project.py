"""The project's own files agree with each other: continuous integration, pre-commit, constraints, ranges."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ops.tritons import FAMILIES

ROOT = Path(__file__).parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
CONSTRAINTS = dict(
    re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
)


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def matrix() -> list[dict[str, str]]:
    rows: list[dict[str, str]] = load(".github/workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]["include"]
    return rows


def test_the_matrix_holds_the_oldest_python_and_torch_of_pyproject() -> None:
    python = re.search(r'requires-python = ">=([\d.]+)"', PROJECT)
    torch = re.search(r'"torch>=([\d.]+)"', PROJECT)
    torchvision = re.search(r'"torchvision>=([\d.]+)"', PROJECT)
    assert python is not None
    assert torch is not None
    assert torchvision is not None
    oldest = [python[1], f"{torch[1]}.0", f"{torchvision[1]}.0"]
    assert oldest in [[row["python"], row["torch"], row["torchvision"]] for row in matrix()]
    assert {row["python"] for row in matrix()} == {"3.10", "3.11", "3.12", "3.13"}


def test_the_newest_torch_of_the_matrix_is_that_of_the_constraints() -> None:
    pinned = {(CONSTRAINTS["torch"], CONSTRAINTS["torchvision"])}
    newest = {(row["torch"], row["torchvision"]) for row in matrix() if not row["torch"].startswith("2.7.")}
    assert newest == pinned


def test_each_triton_of_the_matrix_is_of_a_family_that_the_kernels_are_compiled_with() -> None:
    families = {version.rsplit(".", 1)[0] for version in FAMILIES}
    assert {row["triton"].rsplit(".", 1)[0] for row in matrix()} <= families


def test_continuous_integration_calls_commands_of_dev() -> None:
    commands = re.findall(r"\./dev (\w+)", (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    known = re.findall(r"^    ([\w-]+)\)$", (ROOT / "dev").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(commands) == {"check", "test"}
    assert set(commands) <= set(known)


def test_pre_commit_runs_what_dev_check_runs_and_allows_no_large_file() -> None:
    (local,) = load(".pre-commit-config.yaml")["repos"]
    entries = {hook["id"]: hook["entry"] for hook in local["hooks"]}
    tools = {entry.split()[0] for entry in entries.values() if entry.startswith(".venv/")}
    checks = (ROOT / "dev").read_text(encoding="utf-8")
    assert tools == {".venv/bin/ruff", ".venv/bin/mypy", ".venv/bin/lint-imports"}
    assert all(tool in checks for tool in tools)
    assert entries["check-added-large-files"].endswith("--maxkb=1000")


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.name
)
def test_issue_forms_ask_for_something_and_hold_no_field_twice(path: Path) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    fields = [field["id"] for field in form["body"]]
    assert {"name", "description", "body"} <= set(form)
    assert len(set(fields)) == len(fields)
    assert any(field.get("validations", {}).get("required") for field in form["body"])


def test_no_line_of_the_readme_is_left_unwrapped() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if len(line) > 140 and not line.startswith("|")]
