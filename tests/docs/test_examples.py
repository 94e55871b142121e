"""The Python examples in the documentation run, one after the other, as they stand."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"(?P<skip><!-- (?:not run|needs): [^\n]*-->\n)?```python\n(?P<code>.*?)```", re.DOTALL)
NEEDS = re.compile(r"<!-- needs: (?P<package>\w+) -->\n```python\n(?P<code>.*?)```", re.DOTALL)
"""An example of another package, which stands on its own and runs where that package is installed."""
DOCUMENTS = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if path.name != "design.md"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_examples_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = [match for match in BLOCK.finditer(path.read_text(encoding="utf-8")) if not match["skip"]]
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block["code"], f"{path.name}: example", "exec"), names)


def examples_of_others() -> list[tuple[str, str, str]]:
    """(document, package, code) of each example that needs another package."""
    found = [(path.name, match) for path in DOCUMENTS for match in NEEDS.finditer(path.read_text(encoding="utf-8"))]
    return [(name, match["package"], match["code"]) for name, match in found]


@pytest.mark.parametrize(("name", "package", "code"), examples_of_others(), ids=lambda value: value[:40].split("\n")[0])
def test_examples_of_other_packages_run(name: str, package: str, code: str) -> None:
    pytest.importorskip(package)
    exec(compile(code, f"{name}: example", "exec"), {})


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text(encoding="utf-8"))
    missing = [link for link in links if not (path.parent / link).exists()]
    assert not missing
