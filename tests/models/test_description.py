"""Descriptions in files: what is wrong is shown in a short form, however long or deep the value is."""

import pytest

from sequencer2d.errors import CheckpointError
from sequencer2d.models.description import _shown, check_description


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("x" * 40, "'" + "x" * 40 + "'"),
        ("x" * 41, "'" + "x" * 40 + "' …"),
        (None, "None"),
        (True, "True"),
        (0.5, "0.5"),
        (10**18 - 1, "9" * 18),
        (1 - 10**18, "-" + "9" * 18),
        (10**18, "an integer of more than 18 digits"),
        (-(10**18), "an integer of more than 18 digits"),
        ([1, "a", 0.5, True], "[1, 'a', 0.5, True]"),
        ((1, 2), "[1, 2]"),
        ([1] * 5, "a list"),
        ([[1]], "a list"),
        ({"a": 1}, "a dict"),
    ],
)
def test_values_are_shown_in_short(value, shown):
    assert _shown(value) == shown


@pytest.mark.parametrize(
    ("meta", "required", "message"),
    [
        ([], (), "its description is .*; expected an object with text as keys"),
        ({"format": 2}, (), "has format 2, this version reads 1: update sequencer2d"),
        ({"format": "2"}, (), "in its description format is '2'; expected an integer"),
        ({"input": {"size": [0, 8]}}, (), r"in its description input.size is \[0, 8\]"),
        ({}, ("num_classes",), "its description lacks num_classes"),
        ({"input": {}}, ("input.size",), "its description lacks input.size"),
    ],
)
def test_what_does_not_fit_is_named(meta, required, message):
    with pytest.raises(CheckpointError, match=f"^a file.*{message}"):
        check_description(meta, "a file", required)


def test_what_fits_comes_back_and_unknown_entries_stay():
    meta = {"format": 1, "model": "sequencer2d_n", "input": {"size": [8, 8]}, "ours": 3}
    assert check_description(meta, "a file", ("model", "input.size")) == meta
