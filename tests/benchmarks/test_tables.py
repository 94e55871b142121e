"""Tables in the documentation come from result files, and a stale one is noticed."""

from pathlib import Path

import pytest

from benchmarks import tables

RESULT = {
    "name": "cifar10",
    "date": "2030-01-02T03:04:05+00:00",
    "device": {"kind": "cuda", "name": "A GPU", "count": 1},
    "versions": {"torch": "2.99"},
    "commit": "0123456789abcdef",
    "rows": [{"recipe": "cifar10", "model": "sequencer2d_n", "parameters": 4_200_000, "top1_percent": 92.345}],
}
DOCUMENT = "before\n<!-- table: cifar10 -->\nold\n<!-- end: cifar10 -->\nafter\n"


def test_a_result_becomes_a_table_with_its_source() -> None:
    text = tables.render(DOCUMENT, {"cifar10": RESULT})
    assert "old" not in text
    assert text.startswith("before\n<!-- table: cifar10 -->\n| recipe |")
    assert "| cifar10 | sequencer2d_n | 4.2 M | – | 92.34 | – | – |" in text
    assert "1 × A GPU, PyTorch 2.99, 2030-01-02, commit `0123456789`; `benchmarks/results/cifar10.json`.\n" in text
    assert text.endswith("<!-- end: cifar10 -->\nafter\n")


@pytest.mark.parametrize(
    "commit, shown",
    [
        ("0123456789abcdef+changes", "commit `0123456789+changes`"),
        ("454158e+changes, 5807e9d", "commits `454158e+changes`, `5807e9d`"),
    ],
)
def test_every_commit_is_shown(commit: str, shown: str) -> None:
    assert f", {shown}; " in tables.render(DOCUMENT, {"cifar10": {**RESULT, "commit": commit}})


def test_the_note_of_a_result_is_shown() -> None:
    text = tables.render(DOCUMENT, {"cifar10": {**RESULT, "note": "Put together by hand."}})
    assert "`benchmarks/results/cifar10.json`. Put together by hand.\n" in text


def test_results_of_trials_are_found_in_their_folder(tmp_path: Path) -> None:
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials" / "old.json").write_text("{}", encoding="utf-8")
    assert tables.load_results(tmp_path) == {"trials/old": {}}


def test_rendering_twice_changes_nothing() -> None:
    once = tables.render(DOCUMENT, {"cifar10": RESULT})
    assert tables.render(once, {"cifar10": RESULT}) == once


def test_without_a_result_the_text_says_so() -> None:
    assert "Not yet measured" in tables.render(DOCUMENT, {})


def test_an_unknown_table_stops() -> None:
    with pytest.raises(SystemExit, match="no table named 'speed'"):
        tables.render("<!-- table: speed -->\n<!-- end: speed -->", {})


def test_check_reports_a_stale_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "README.md").write_text(DOCUMENT, encoding="utf-8")
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    assert tables.main(["--check"]) == 1
    assert "run ./dev bench-tables" in capsys.readouterr().out
    assert tables.main([]) == 0
    assert tables.main(["--check"]) == 0
