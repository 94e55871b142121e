"""Trying one change: its text goes into a copy of the checkout, and a forked process runs the tests that reach it.

The parent loads the large libraries once. A child then starts in a fraction of a second instead of five, and imports
the package from the copy.
"""

import importlib
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.mutations.checkout import ROOT, Copy
from tools.mutations.reach import Reach
from tools.mutations.sites import Site

NOTICED, SURVIVED, UNREACHED, EQUIVALENT = "noticed", "survived", "unreached", "equivalent"
FAILED, MISUSED = (1, 2, 3), 4
"""pytest's exit codes: failed tests, an interruption (such as an import that fails) and an internal error; and a wrong
call, which is a test that does not exist or a conftest.py that fails."""
PASSED = "passed.txt"
"""The file in the copy that names the tests that pass without any change."""
LIBRARIES = ("torch", "torchvision", "timm", "numpy", "PIL.Image", "pytest", "matplotlib.pyplot", "rich")


@dataclass(frozen=True)
class Trial:
    """A change and what became of it.

    Attributes:
        path: of the file, from the root.
        site: the change.
        outcome: NOTICED, SURVIVED, UNREACHED (no test runs the line) or EQUIVALENT (listed as without effect).
        tests: how many tests were chosen.
        seconds: how long they took.
    """

    path: str
    site: Site
    outcome: str
    tests: int = 0
    seconds: float = 0.0


def load_libraries() -> None:
    """Import what every test needs, apart from the package itself, so that children share it."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    for name in LIBRARIES:
        importlib.import_module(name)
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)


def choose_tests(reach: Reach, path: str, site: Site, budget: float) -> list[str]:
    """The tests to run for a change: those of the mirrored folder first, fast ones first, `budget` seconds in all."""
    mirrored = "tests/" + str(Path(path).relative_to("sequencer2d").parent)

    def order(test: str) -> tuple[bool, float]:
        return not test.startswith(mirrored), reach.seconds[test]

    chosen, total = [], 0.0
    for test in sorted(reach.tests(path, site.function, site.text), key=order):
        if total + reach.seconds[test] <= budget or not chosen:
            chosen.append(test)
            total += reach.seconds[test]
    return chosen


def drop_failing(copy: Copy, tests: list[str], reach: Reach) -> None:
    """Forget tests that fail, or are gone, without any change: what they say about a change would mean nothing."""
    there = [test for test in tests if _is_defined(copy.folder, test)]
    report = copy.folder / PASSED
    if there:
        run_tests(copy.folder, there, limit=60 + 5 * sum(reach.seconds[test] for test in there), stop_early=False)
    passed = set(report.read_text(encoding="utf-8").splitlines()) if report.exists() else set()
    for test in set(tests) - passed:
        print(f"mutations: left out, as it fails or is gone without any change: {test}", file=sys.stderr)
        del reach.seconds[test]
    reach.lines = {key: [test for test in names if test in reach.seconds] for key, names in reach.lines.items()}


def _is_defined(folder: Path, test: str) -> bool:
    """Whether a test's file still holds a function of its name."""
    file, _, name = test.partition("::")
    function = name.split("::")[-1].split("[")[0]
    return (folder / file).is_file() and f"def {function}(" in (folder / file).read_text(encoding="utf-8")


class _Passed:
    """Writes the tests that passed."""

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" and report.outcome == "passed":
            with Path(PASSED).open("a", encoding="utf-8") as file:
                file.write(report.nodeid + "\n")


def attempt(copy: Copy, path: str, site: Site, reach: Reach, budget: float) -> Trial:
    """Make one change in the copy, run its tests, and undo it."""
    tests = choose_tests(reach, path, site, budget)
    if not tests:
        return Trial(path, site, UNREACHED)
    source, limit = (copy.folder / path).read_bytes(), 60 + 5 * sum(reach.seconds[test] for test in tests)
    copy.write(path, site.apply(source))
    started = time.monotonic()
    try:
        code = run_tests(copy.folder, tests, limit)
    finally:
        copy.write(path, source)
    outcome = NOTICED if code in (*FAILED, MISUSED) else SURVIVED
    return Trial(path, site, outcome, len(tests), time.monotonic() - started)


def run_tests(folder: Path, tests: list[str], limit: float, *, stop_early: bool = True) -> int:
    """Run tests in a forked process, by default until one fails; pytest's exit code, or 2 after `limit` seconds."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os._exit(_run_in_child(folder, tests, stop_early))
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        finished, status = os.waitpid(child, os.WNOHANG)
        if finished:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 3
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 2


def _run_in_child(folder: Path, tests: list[str], stop_early: bool) -> int:
    """What the forked process does: pytest, silently, in the copy; returns its exit code."""
    os.setpgid(0, 0)
    os.chdir(folder)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.environ["PYTHONPATH"] = str(folder)
    sys.path[:] = [str(folder), *(entry for entry in sys.path if entry not in ("", str(ROOT)))]
    for name in [name for name in sys.modules if name.split(".")[0] in ("sequencer2d", "tests", "benchmarks", "tools")]:
        del sys.modules[name]
    import pytest

    try:
        # Plugins that the parent has loaded cannot be rewritten any more; warnings are errors.
        already_loaded = "ignore::pytest.PytestAssertRewriteWarning"
        options = ["-q", "-p", "no:cacheprovider", "-W", already_loaded, *(["-x"] if stop_early else [])]
        return int(pytest.main([*options, *tests], plugins=[] if stop_early else [_Passed()]))
    except BaseException:
        return 3
