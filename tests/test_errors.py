"""The parts that messages about mistakes share."""

import pytest

from sequencer2d.errors import Interrupted, counted, did_you_mean, first_line

NAMES = ("lstm", "gru", "rnn", "sequencer2d_s", "sequencer2d_m", "sequencer2d_l", "sequencer2d_t", "sequencer2d_n")


def test_close_names_are_suggested_at_most_four_and_otherwise_all_are_listed() -> None:
    assert did_you_mean("lstn", NAMES) == "did you mean lstm?"
    assert did_you_mean("sequencer2d_x", NAMES).count(" or ") == 3
    assert did_you_mean("transformer", NAMES[:3]) == "known: lstm, gru, rnn"
    assert did_you_mean("transformer", NAMES[:3], otherwise="see docs") == "see docs"
    assert did_you_mean("transformer", NAMES[:3], otherwise="") == ""
    assert did_you_mean("grx", ["gru"], cutoff=0.7) == "known: gru"
    assert did_you_mean("transformer", iter(NAMES[:2])) == "known: lstm, gru", "names may come one by one"


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("one", "one"),
        ("\n  \n two \nthree", "two"),
        ("", "ValueError"),
        (" \n", "ValueError"),
        ("x" * 201, "x" * 200),
    ],
)
def test_the_first_line_of_an_error_is_the_first_that_says_something(message: str, shown: str) -> None:
    assert first_line(ValueError(message)) == shown


def test_a_line_is_cut_where_it_is_asked_for() -> None:
    assert first_line(RuntimeError("too long"), longest=3) == "too"


def test_things_are_counted_in_words() -> None:
    assert [counted(number, "image") for number in (0, 1, 2, 1234)] == [
        "0 images",
        "1 image",
        "2 images",
        "1,234 images",
    ]
    assert [counted(number, "class", "classes") for number in (1, 2)] == ["1 class", "2 classes"]


def test_names_are_suggested_from_a_likeness_of_0_6() -> None:
    """SequenceMatcher's ratio is twice the letters that match over all letters: 2 · 3 / 10 and 2 · 2 / 8."""
    assert did_you_mean("abcxy", ["abcvw"]) == "did you mean abcvw?"
    assert did_you_mean("abxy", ["abvw"]) == "known: abvw"
    assert did_you_mean("abcdexyz", ["abcdevwu"]) == "did you mean abcdevwu?"


def test_a_run_that_stops_itself_is_not_ended_by_its_launcher() -> None:
    assert not Interrupted("enough").by_launcher
    assert Interrupted("SIGTERM", by_launcher=True).by_launcher
    assert str(Interrupted("enough")) == "enough"
