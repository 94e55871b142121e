"""One spelling, American, in code, messages and documents."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
BRITISH = re.compile(
    "colour|behaviour|favour|neighbour|centre\\b|\\bgrey|labell(?:ed|ing)|artefact|"
    "(?:normal|initial|optim|random|regular|organ|recogn|serial|parallel|synchron|quant|summar)is(?:e|a|i)",
    re.IGNORECASE,
)  # fmt: skip
FOLDERS = ("sequencer2d", "tests", "benchmarks", "tools", "docs")
OLD_NAMES = ("`centre` is now", "organism", "optimism")


def test_spelling_is_american() -> None:
    files = [path for folder in FOLDERS for kind in ("*.py", "*.md") for path in (ROOT / folder).rglob(kind)]
    files = [*files, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files
        if "old_files" not in path.parts and path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if BRITISH.search(line) and not any(name in line for name in OLD_NAMES)
    ]
    assert found == []
