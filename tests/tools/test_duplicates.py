"""Passages that stand twice are found, whatever their names, and short lines that are alike by chance are not."""

import json
from pathlib import Path

import pytest

from tools import duplicates

PASSAGE = """\
def {name}({x}, scale):
    \"\"\"{doc}\"\"\"
    first = {x} * scale + offset(scale, {x})
    second = {x} - scale + offset({x}, scale)
    # {doc}

    third = combine(first, second, {x}, scale, "{doc}")
    if third > limit or first > limit or second > limit:
        third = limit - combine(first, second, third, scale)
    return combine(third, first, second, {number})
"""
FIRST = PASSAGE.format(name="f", x="x", doc="one", number=1)
SAME = "import math\n\nVALUE = 1\n\n\n" + FIRST
RENAMED = PASSAGE.format(name="g", x="y", doc="two", number=2)
FIELDS = "class A:\n" + "".join(f"    {name}: int\n" for name in "abcdefgh")
OTHERS = "class B:\n" + "".join(f"    {name}: str\n" for name in "ijklmnop")


def test_the_same_lines_are_found_and_comments_imports_and_docstrings_pass() -> None:
    (pair,) = duplicates.find_pairs({"a.py": FIRST, "b.py": SAME})
    assert (pair.first, pair.first_line, pair.second, pair.second_line) == ("a.py", 1, "b.py", 6)
    assert (pair.lines, pair.same, pair.runs) == (7, True, 1)
    assert str(pair) == "a.py:1 ~ b.py:6: 7 lines, the same"


def test_lines_of_the_same_shape_are_found_if_they_are_long() -> None:
    (pair,) = duplicates.find_pairs({"a.py": FIRST, "b.py": RENAMED})
    assert (pair.lines, pair.same) == (7, False)
    assert duplicates.find_pairs({"a.py": FIELDS, "b.py": OTHERS}) == []


def test_a_passage_may_stand_twice_in_one_file() -> None:
    (pair,) = duplicates.find_pairs({"a.py": FIRST + "\n\n" + FIRST})
    assert (pair.first_line, pair.second_line) == (1, 13)


def test_rows_of_a_table_have_one_shape_by_right() -> None:
    rows = [f'    Row("{name}", {number}, ({number}, {number}), "{name}"),' for number, name in enumerate("abcdefgh")]
    table = "\n".join(["TABLE = (", *rows, ")"])
    assert duplicates.find_pairs({"a.py": table}) == []
    (pair,) = duplicates.find_pairs({"a.py": table, "b.py": table})
    assert pair.same


def test_five_lines_are_no_passage() -> None:
    shorter = "\n".join([*FIRST.splitlines()[:7], "    return third"])
    assert duplicates.find_pairs({"a.py": shorter, "b.py": shorter}) == []


def test_a_check_wants_a_reason_for_each_pair_and_a_pair_for_each_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(duplicates, "ROOT", tmp_path)
    monkeypatch.setattr(duplicates, "REASONS", tmp_path / "reasons.json")
    for name in ("a.py", "b.py"):
        (tmp_path / "code" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "code" / name).write_text(FIRST, encoding="utf-8")
    reason = {"first": "code/a.py", "second": "code/b.py", "reason": "a test"}

    def check(*reasons: dict[str, str]) -> int:
        (tmp_path / "reasons.json").write_text(json.dumps(reasons), encoding="utf-8")
        return duplicates.main(["code", "--check"])

    assert check(reason) == 0
    assert "(a test)\n1 pairs" in capsys.readouterr().out
    assert check() == 1
    assert "code/a.py ~ code/b.py has no reason" in capsys.readouterr().out
    assert check(reason, {**reason, "second": "code/c.py"}) == 1
    assert "code/a.py ~ code/c.py has a reason, but is gone" in capsys.readouterr().out
    assert duplicates.main(["code"]) == 0
    assert duplicates.main(["code", "--most", "1"]) == 0
    assert duplicates.main(["code", "--most", "0"]) == 1
