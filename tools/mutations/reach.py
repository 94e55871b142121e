"""Which tests reach which line: measured once under coverage, kept in `.mutations/map.json`.

A line is known by its function and its text, so that the map stays useful while lines move. A line that was edited
since is looked up by its function, and one at the level of a module by its file, or by its folder if that has no
functions.
"""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.mutations.checkout import ROOT, Copy

MAP = ROOT / ".mutations" / "map.json"
LEFT_OUT = ("tests/tools", "tests/docs", "tests/benchmarks", "tests/cli/test_wheel.py", "tests/training/test_kills.py")
"""Tests of the repository's own files, and those that run the package in other processes alone."""


@dataclass
class Reach:
    """What the tests reach.

    Attributes:
        seconds: how long each test took, by its node id; tests that failed are left out.
        lines: for each line, as `line_key` names it, the tests that ran it.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, list[str]] = field(default_factory=dict)

    def tests(self, path: str, function: str, text: str) -> list[str]:
        """The tests that run a line; without a match those that run its function, or else anything in its file.

        No test runs a line of a file without functions, such as a table of names: any test of its folder may read it.
        """
        exact = self.lines.get(line_key(path, function, text), []) if function else []
        if exact:
            return exact
        found, beside = set[str](), set[str]()
        folder = path.rpartition("/")[0] + "/"
        for key, tests in self.lines.items():
            where, inside, _ = key.split("\n")
            if where == path and (not function or inside == function):
                found.update(tests)
            elif where.startswith(folder):
                beside.update(tests)
        return sorted(found if function else found or beside)

    def replace(self, other: "Reach") -> None:
        """Take the measurements of the other's test files in place of these."""
        files = {test.split("::")[0] for test in other.seconds}
        stale = {test for test in self.seconds if test.split("::")[0] in files}
        self.seconds = {test: value for test, value in self.seconds.items() if test not in stale} | other.seconds
        for key in {*self.lines, *other.lines}:
            kept = [test for test in self.lines.get(key, []) if test not in stale]
            self.lines[key] = sorted({*kept, *other.lines.get(key, [])})


def line_key(path: str, function: str, text: str) -> str:
    """The name of a line: file, qualified function and the line's stripped text."""
    return f"{path}\n{function}\n{text}"


def load() -> Reach:
    """The map as it was last measured."""
    if not MAP.exists():
        raise SystemExit("mutations: no map yet: python -m tools.mutations map")
    data = json.loads(MAP.read_text(encoding="utf-8"))
    names = data["tests"]
    return Reach(
        {names[int(number)]: value for number, value in data["seconds"].items()},
        {key: [names[number] for number in numbers] for key, numbers in data["lines"].items()},
    )


def save(reach: Reach) -> None:
    """Write the map."""
    names = sorted(reach.seconds)
    number = {name: index for index, name in enumerate(names)}
    lines = {key: [number[test] for test in tests if test in number] for key, tests in reach.lines.items()}
    data = {"tests": names, "seconds": {number[name]: value for name, value in reach.seconds.items()}, "lines": lines}
    MAP.parent.mkdir(exist_ok=True)
    MAP.write_text(json.dumps(data), encoding="utf-8")


def measure(paths: Iterable[str]) -> None:
    """Run the tests of some paths, by default all, a folder at a time, and add what they reach to the map."""
    reach = load() if MAP.exists() else Reach()
    folders: dict[str, list[str]] = {}
    for file in test_files(paths):
        folders.setdefault(str(Path(file).parent), []).append(file)
    for folder, files in folders.items():
        part = _measure(files)
        reach.replace(part)
        save(reach)
        print(f"{folder}: {len(part.seconds)} tests, {sum(part.seconds.values()):.0f} s", flush=True)


def test_files(paths: Iterable[str]) -> list[str]:
    """The files of tests under some paths, relative to the root."""
    found = []
    for path in paths or ["tests"]:
        whole = ROOT / path
        found += [whole] if whole.is_file() else sorted(whole.rglob("test_*.py"))
    names = [str(path.relative_to(ROOT)) for path in found]
    return [name for name in names if not name.startswith(LEFT_OUT)]


def unmeasured(reach: Reach) -> list[str]:
    """The files of tests that the map does not hold: what they notice would count as a survivor."""
    held = {test.partition("::")[0] for test in reach.seconds}
    return [file for file in test_files([]) if file not in held]


def _measure(files: list[str]) -> Reach:
    """Run some files of tests in a copy of the checkout and a process of its own."""
    copy = Copy()
    try:
        answer = copy.folder / "reached.json"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(copy.folder), "COVERAGE_CORE": "ctrace"}
        command = [sys.executable, "-m", "tools.mutations.reach", str(answer), *files]
        subprocess.run(command, cwd=copy.folder, env=environment, stdout=subprocess.DEVNULL, check=False)
        data: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8")) if answer.exists() else {}
    finally:
        copy.remove()
    return Reach(data.get("seconds", {}), data.get("lines", {}))


class _Plugin:
    """Gives each test a coverage context of its own, and notes how long those that pass take."""

    def __init__(self, coverage: Any) -> None:
        self.coverage = coverage
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.coverage.switch_context(nodeid)

    def pytest_runtest_logfinish(self) -> None:
        self.coverage.switch_context("")

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.outcome != "passed":  # a skipped test reaches nothing
            self.failed.add(report.nodeid)
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration


def _run_here(files: list[str], answer: Path) -> None:
    """Run files of tests in this process under coverage and write what each reaches."""
    import coverage
    import pytest

    package = ROOT / "sequencer2d"
    recorder = coverage.Coverage(data_file=None, source=[str(package)], config_file=False)
    plugin = _Plugin(recorder)
    recorder.start()
    try:
        pytest.main(["-q", "-p", "no:cacheprovider", *files], plugins=[plugin])
    finally:
        recorder.stop()
    data, lines = recorder.get_data(), {}
    for name in data.measured_files():
        names = line_names(Path(name).read_text(encoding="utf-8"))
        path = str(Path(name).relative_to(ROOT))
        for number, tests in data.contexts_by_lineno(name).items():
            reached = sorted(set(tests) - {""} - plugin.failed)
            if reached and number in names:
                key = line_key(path, *names[number])
                lines[key] = sorted({*lines.get(key, []), *reached})
    seconds = {test: value for test, value in plugin.seconds.items() if test not in plugin.failed}
    answer.write_text(json.dumps({"seconds": seconds, "lines": lines}), encoding="utf-8")


def line_names(source: str) -> dict[int, tuple[str, str]]:
    """The function and the stripped text of each line that is inside a function."""
    texts, names = source.splitlines(), {}

    def enter(node: ast.AST, outer: list[str], inside: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = inside or not isinstance(child, ast.ClassDef)
                path = [*outer, child.name]
                if inner:
                    for number in range(child.lineno, (child.end_lineno or child.lineno) + 1):
                        names[number] = (".".join(path), texts[number - 1].strip())
                enter(child, path, inner)
            else:
                enter(child, outer, inside)

    enter(ast.parse(source), [], False)
    return names


if __name__ == "__main__":
    _run_here(sys.argv[2:], Path(sys.argv[1]))
