"""Mutation sampling: changes are drawn by the seed, made in a copy alone, and noticed when a test fails."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.mutations import reach, trial
from tools.mutations.__main__ import FOLDERS, draw, load_equivalents, summary
from tools.mutations.sites import KINDS, files, find_sites
from tools.mutations.trial import EQUIVALENT, NOTICED, SURVIVED, UNREACHED, Trial

ROOT = Path(__file__).parents[2]
SOURCE = '''"""A text with 3 numbers."""

LIMIT = 7
__all__ = ["share"]


class Options:
    """Options."""

    size: int = 4
    name: str = "small"


def share(part, whole, percent=True):
    """Part of the whole; 100 for all."""
    if whole <= 0 or part > whole:
        raise ValueError(f"{part} of {whole + 1} is none of 2")
    ratio = float(part) / whole
    print("say nothing", 5)
    zip(part, whole, strict=True)
    return {"value": 100 * ratio, "known": not percent}
'''

TESTS = """
import importlib.util

import torch

from sequencer2d.nn.a import f, g


def test_f(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert f(2) == 6
    g()
    if not torch.cuda.is_available() and importlib.util.find_spec("triton"):  # kernels run in the interpreter
        import triton.language
        from triton.runtime.interpreter import InterpretedFunction

        assert isinstance(triton.language.cdiv, InterpretedFunction)


def test_fails(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert f(2) == 7 * g()
"""


def changes(tmp_path: Path, source: str) -> dict[str, set[str]]:
    (tmp_path / "a.py").write_text(source, encoding="utf-8")
    found: dict[str, set[str]] = {}
    for site in find_sites(tmp_path / "a.py"):
        found.setdefault(site.kind, set()).add(site.change)
    return found


def test_what_does_nothing_without_a_gpu_is_left_alone(tmp_path: Path) -> None:
    left_alone = ["x.cpu()", "x.to(device, non_blocking=True)", "x.to(y.device)"]
    assert changes(
        tmp_path, "\n".join([*left_alone, "x.to(dtype)", "x.to(device, dtype)", "x.to(device, copy=True)"])
    ) == {
        "conversion": {"x.to(dtype) → (x)", "x.to(device, dtype) → (x)", "x.to(device, copy=True) → (x)"},
        "boolean": {"True → False"},
    }


def test_each_kind_of_change_is_found_and_nothing_else_is(tmp_path: Path) -> None:
    assert changes(tmp_path, SOURCE) == {
        "number": {"7 → 8", "0 → 1", "100 → 101"},
        "default": {"4 → 5", "\"small\" → 'smallx'", "True → False"},
        "comparison": {"<= → >", "> → <="},
        "boundary": {"<= → <", "> → >="},
        "boolean": {"or → and", "not percent → (percent)"},
        "conversion": {"float(part) → (part)"},
        "arithmetic": {"/ → *", "* → /"},
        "factor": {"100 * ratio → (ratio)"},
        "key": {"\"value\" → 'valuex'", "\"known\" → 'knownx'"},
    }
    assert set(changes(tmp_path, SOURCE)) == set(KINDS)


def test_a_change_is_one_point_and_python_still_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("# é\n" + SOURCE, encoding="utf-8")
    for site in find_sites(path):
        changed = site.apply(path.read_bytes())
        compile(changed, "a.py", "exec")
        assert len(changed) - path.stat().st_size == len(site.after.encode()) - len(site.before.encode())
        assert site.text in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if folder])
def test_python_reads_every_change_of_a_folders_longest_file(folder: str) -> None:
    """What the finder takes for an operator or an operand is one."""
    path = max(files(ROOT, folder), key=lambda file: file.stat().st_size)
    sites = find_sites(path)
    assert len(sites) > 10
    for site in sites:
        compile(site.apply(path.read_bytes()), path.name, "exec")


def test_a_line_is_known_by_its_function_and_text() -> None:
    names = reach.line_names(SOURCE)
    line = SOURCE.splitlines().index("    ratio = float(part) / whole") + 1
    assert names[line] == ("share", "ratio = float(part) / whole")
    assert 3 not in names  # at the level of the module


def test_tests_are_found_by_line_then_by_function_then_by_file() -> None:
    here = "sequencer2d/a.py"
    lines = {reach.line_key(here, "f", "x = 1"): ["one"], reach.line_key(here, "g", "y = 1"): ["two"]}
    found = reach.Reach({"one": 1.0, "two": 2.0}, lines)
    assert found.tests(here, "f", "x = 1") == ["one"]
    assert found.tests(here, "g", "y = 3 * 1") == ["two"]
    assert found.tests(here, "", "LIMIT = 7") == ["one", "two"]
    assert found.tests(here, "h", "z = 1") == []
    assert found.tests("sequencer2d/names.py", "", '"f": "a",') == ["one", "two"]  # a file without functions
    assert found.tests("sequencer2d/nn/names.py", "", '"f": "a",') == []


def test_new_measurements_replace_those_of_the_same_file_of_tests() -> None:
    key = reach.line_key("sequencer2d/a.py", "f", "x = 1")
    old = reach.Reach(
        {"tests/test_a.py::a": 1.0, "tests/test_b.py::b": 1.0}, {key: ["tests/test_a.py::a", "tests/test_b.py::b"]}
    )
    old.replace(reach.Reach({"tests/test_a.py::new": 2.0}, {key: ["tests/test_a.py::new"]}))
    assert old.seconds == {"tests/test_b.py::b": 1.0, "tests/test_a.py::new": 2.0}
    assert old.lines[key] == ["tests/test_a.py::new", "tests/test_b.py::b"]


def test_the_mirrored_folder_and_fast_tests_come_first_within_the_budget(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def f():\n    return 1\n", encoding="utf-8")
    (site,) = find_sites(tmp_path / "a.py")
    seconds = {"tests/nn/test_a.py::slow": 9.0, "tests/nn/test_a.py::fast": 1.0, "tests/cli/test_b.py::fast": 0.5}
    found = reach.Reach(seconds, {reach.line_key("sequencer2d/nn/a.py", "f", "return 1"): list(seconds)})
    choose = trial.choose_tests
    assert choose(found, "sequencer2d/nn/a.py", site, 20) == [*sorted(list(seconds)[:2]), "tests/cli/test_b.py::fast"]
    assert choose(found, "sequencer2d/nn/a.py", site, 2) == ["tests/nn/test_a.py::fast", "tests/cli/test_b.py::fast"]


def test_files_that_the_map_lacks_are_named() -> None:
    files = reach.test_files([])
    found = reach.Reach({f"{file}::test_x": 1.0 for file in files})
    assert reach.unmeasured(found) == []
    del found.seconds["tests/test_seeds.py::test_x"]
    assert reach.unmeasured(found) == ["tests/test_seeds.py"]


def test_fast_tests_of_the_folder_run_for_lines_that_others_reach(tmp_path: Path) -> None:
    """A function with a cache runs for the first test that calls it, and a later test may be the one that notices."""
    (tmp_path / "a.py").write_text("def f():\n    return 1\n", encoding="utf-8")
    (site,) = find_sites(tmp_path / "a.py")
    seconds = {
        "tests/nn/test_a.py::first": 1.0, "tests/nn/test_b.py::fast": 0.1, "tests/nn/test_b.py::slow": 0.5,
        "tests/cli/test_b.py::fast": 0.1, "tests/test_top.py::fast": 0.1,
    }  # fmt: skip
    key = reach.line_key("sequencer2d/nn/a.py", "f", "return 1")
    found = reach.Reach(seconds, {key: ["tests/nn/test_a.py::first"]})
    names = list(seconds)
    assert trial.choose_tests(found, "sequencer2d/nn/a.py", site, 20) == names[:2]
    assert trial.choose_tests(found, "sequencer2d/nn/deep/a.py", site, 20) == names[1:2]
    assert trial.choose_tests(found, "sequencer2d/a.py", site, 20) == names[4:]


def test_the_seed_alone_decides_what_is_drawn() -> None:
    first = draw(["export", "nn"], 5, 1)
    assert [folder for folder, _, _ in first] == ["export"] * 5 + ["nn"] * 5
    assert draw(["nn"], 5, 1) == first[5:]
    assert draw(["nn"], 5, 2) != first[5:]


def test_kernels_are_left_out() -> None:
    assert not [name for _, name, _ in draw(["ops"], 10_000, 0) if "@triton.jit" in Path(name).read_text("utf-8")]


def test_listed_equivalents_still_exist_and_give_a_reason() -> None:
    for entry in load_equivalents():
        sites = {(site.text, site.change) for site in find_sites(ROOT / entry["file"])}
        assert (entry["line"], entry["change"]) in sites, entry
        assert len(entry["reason"]) > 20


def test_the_share_leaves_equivalent_changes_out(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def f():\n    return 1\n", encoding="utf-8")
    (site,) = find_sites(tmp_path / "a.py")
    outcomes = [("nn", NOTICED), ("nn", NOTICED), ("nn", EQUIVALENT), ("cli", SURVIVED), ("cli", UNREACHED)]
    text = summary([(folder, Trial("a.py", site, outcome)) for folder, outcome in outcomes])
    assert [line.split() for line in text.splitlines()] == [
        ["nn", "2", "of", "2", "100", "%"],
        ["cli", "0", "of", "2", "0", "%"],
        ["all", "2", "of", "4", "50", "%"],
    ]


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A checkout with one function, a test that checks one of its two numbers, and the map of that test.

    Of two more tests on the map one fails without any change, and one is gone.
    """
    root = tmp_path / "toy"
    tests = [f"tests/nn/test_a.py::test_{name}" for name in ("f", "fails", "gone")]
    texts = {
        "pyproject.toml": '[tool.pytest.ini_options]\npythonpath = ["."]\n',
        "sequencer2d/__init__.py": "",
        "sequencer2d/nn/__init__.py": "",
        "sequencer2d/nn/a.py": "def f(x):\n    return 3 * x\n\n\ndef g():\n    return 5\n",
        "tests/nn/test_a.py": TESTS,
    }
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    keys = [reach.line_key("sequencer2d/nn/a.py", *names) for names in (("f", "return 3 * x"), ("g", "return 5"))]
    data = {"tests": tests, "seconds": dict.fromkeys("012", 0.1), "lines": {key: [0, 1, 2] for key in keys}}
    (root / ".mutations").mkdir()
    (root / ".mutations" / "map.json").write_text(json.dumps(data), encoding="utf-8")
    return root


def test_a_run_notices_what_the_tests_check_and_leaves_the_checkout_alone(toy: Path, tmp_path: Path) -> None:
    before = (toy / "sequencer2d" / "nn" / "a.py").read_bytes()
    command = [sys.executable, "-m", "tools.mutations", "run", "--folder", "nn", "--count", "9"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    result = subprocess.run(
        [*command, "--output", tmp_path / "out.json"], cwd=toy, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    rows = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["rows"]
    assert {row["text"]: row["outcome"] for row in rows} == {"return 3 * x": NOTICED, "return 5": SURVIVED}
    assert "nn              1 of    2  50 %" in result.stdout
    assert "test_fails fails without any change" in result.stderr
    assert "test_gone is gone" in result.stderr
    assert (toy / "sequencer2d" / "nn" / "a.py").read_bytes() == before
    assert not list(tmp_path.glob("sequencer2d-mutations-*"))
