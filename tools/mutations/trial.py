"""Trying one change: its text goes into a copy of the checkout, and a forked process runs the tests that reach it.

The parent loads the large libraries once. A child then starts in a fraction of a second instead of five, and imports
the package from the copy.
"""

import importlib
import importlib.util
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
REPORT = "tests.txt"
"""The file in the copy in which a child names the tests that it found, or the test that failed."""
RECORDED = "tests/test_recorded.py::test_defaults_and_tables_are_those_that_were_recorded[{}]"
FAST = 0.3
"""Seconds that a fast test takes at most."""
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
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    if not torch.cuda.is_available() and importlib.util.find_spec("triton"):
        # As in tests/conftest.py. The other libraries import Triton, too, and it decides then how its kernels run.
        os.environ["TRITON_INTERPRET"] = "1"
        importlib.import_module("triton")
        del os.environ["TRITON_INTERPRET"]
    for name in LIBRARIES:
        importlib.import_module(name)


def choose_tests(reach: Reach, path: str, site: Site, budget: float) -> list[str]:
    """The tests to run for a change, `budget` seconds in all, fast ones first.

    The folder's recorded defaults and tables come first, with the tests that reach the line and mirror its folder, then
    the fast ones that reach it from elsewhere, then all fast tests of that folder, then the slow ones that reach it.
    Tests that do not reach it are added because a function with a cache runs for the first test that calls it alone.
    """
    folder = Path(path).relative_to("sequencer2d").parts[:-1]
    mirrored = f"tests/{folder[0]}/" if folder else "tests/test_"
    reaching = set(reach.tests(path, site.function, site.text))
    fast = {test for test, seconds in reach.seconds.items() if test.startswith(mirrored) and seconds <= FAST}
    recorded = {test for test in reach.seconds if test == RECORDED.format(folder[0] if folder else "")}

    def order(test: str) -> tuple[int, float, str]:
        if test in recorded:
            rank = 0
        elif test in reaching:
            rank = 0 if test.startswith(mirrored) else 1 if reach.seconds[test] <= FAST else 3
        else:
            rank = 2
        return rank, reach.seconds[test], test

    chosen, total = [], 0.0
    for test in sorted(reaching | fast | recorded, key=order):
        if total + reach.seconds[test] <= budget or not chosen:
            chosen.append(test)
            total += reach.seconds[test]
    return chosen


def drop_missing(copy: Copy, reach: Reach) -> None:
    """Forget tests that are gone since they were measured: pytest refuses to run with a name that it does not know."""
    files = sorted({test.partition("::")[0] for test in reach.seconds})
    there = [file for file in files if (copy.folder / file).is_file()]
    _, found = run_tests(copy.folder, there, limit=300, collect=True)
    forget(reach, set(reach.seconds) - set(found), "is gone since the map was measured")


def forget(reach: Reach, tests: set[str], reason: str) -> None:
    """Take tests off the map."""
    for test in sorted(tests):
        print(f"mutations: left out: {test} {reason}", file=sys.stderr)
        del reach.seconds[test]
    if tests:
        reach.lines = {key: [test for test in names if test in reach.seconds] for key, names in reach.lines.items()}


def attempt(copy: Copy, path: str, site: Site, reach: Reach, budget: float) -> Trial:
    """Make one change in the copy, run its tests, and undo it.

    A test that also fails without the change says nothing about it. It is taken off the map and the change tried again.
    """
    source, started = (copy.folder / path).read_bytes(), time.monotonic()
    while tests := choose_tests(reach, path, site, budget):
        copy.write(path, site.apply(source))
        try:
            code, failed = run_tests(copy.folder, tests, 60 + 5 * sum(reach.seconds[test] for test in tests))
        finally:
            copy.write(path, source)
        unsound = {test for test in failed if run_tests(copy.folder, [test], 60 + 5 * reach.seconds[test])[0]}
        if not unsound:
            outcome = NOTICED if code in (*FAILED, MISUSED) else SURVIVED
            return Trial(path, site, outcome, len(tests), time.monotonic() - started)
        forget(reach, unsound, "fails without any change")
    return Trial(path, site, UNREACHED)


def run_tests(folder: Path, tests: list[str], limit: float, *, collect: bool = False) -> tuple[int, list[str]]:
    """Run tests in a forked process until one fails, or find them alone with `collect`.

    Returns:
        pytest's exit code, or 2 after `limit` seconds; and the test that failed, if one did, or the tests found.
    """
    report = folder / REPORT
    report.unlink(missing_ok=True)
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os._exit(_run_in_child(folder, tests, report, collect))
    code = _wait(child, time.monotonic() + limit)
    return code, report.read_text(encoding="utf-8").splitlines() if report.exists() else []


def _wait(child: int, deadline: float) -> int:
    """The exit code of a child, which is killed at the deadline with all that it started."""
    while time.monotonic() < deadline:
        finished, status = os.waitpid(child, os.WNOHANG)
        if finished:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 3
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 2


class _Reporter:
    """Writes the names of tests to a file, whose path is absolute: a test may change the current folder."""

    def __init__(self, path: Path, collect: bool) -> None:
        self.path, self.collect = path, collect

    def pytest_collection_finish(self, session: Any) -> None:
        if self.collect:
            self.path.write_text("\n".join(item.nodeid for item in session.items), encoding="utf-8")

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.outcome == "failed":
            self.path.write_text(report.nodeid, encoding="utf-8")


def _run_in_child(folder: Path, tests: list[str], report: Path, collect: bool) -> int:
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
        options = ["-q", "-x", "-p", "no:cacheprovider", "-W", already_loaded, *(["--collect-only"] if collect else [])]
        return int(pytest.main([*options, *tests], plugins=[_Reporter(report, collect)]))
    except BaseException:
        return 3
