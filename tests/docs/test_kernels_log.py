"""docs/kernels-log.md has one numbered entry an idea, newest first, and names only files that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TRIALS = ROOT / "benchmarks" / "results" / "trials"
LOG = (ROOT / "docs" / "kernels-log.md").read_text(encoding="utf-8")


def test_entries_are_dated_and_the_newest_comes_first() -> None:
    dates = re.findall(r"^## (\d{4}-\d\d-\d\d)$", LOG, re.MULTILINE)
    assert dates
    assert dates == sorted(dates, reverse=True)
    numbers = [int(number) for number in re.findall(r"^\*\*(\d+)\. ", LOG, re.MULTILINE)]
    assert numbers == list(range(len(numbers), 0, -1))


def test_every_file_that_it_names_is_there() -> None:
    names = set(re.findall(r"`([\w-]+\.json)`", LOG))
    assert len(names) > 5
    assert not {name for name in names if not any((folder / name).is_file() for folder in (TRIALS, TRIALS.parent))}


def test_every_trial_is_told_somewhere() -> None:
    documents = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))
    assert not [path.name for path in TRIALS.glob("*.json") if path.name not in documents]
