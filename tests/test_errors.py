"""The parts that messages about mistakes share."""

import pytest

from sequencer2d.errors import did_you_mean, first_line

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
