"""Descriptions in files: what is wrong is shown in a short form, however long or deep the value is."""

import pytest

from sequencer2d.errors import CheckpointError
from sequencer2d.models.description import FIELDS, _shown, check_description


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


COMPLETE = {
    "format": 1,
    "model": "sequencer2d_n",
    "task": "classification",
    "overrides": {},
    "num_classes": 2,
    "in_chans": 3,
    "class_names": ["a", "b"],
    "class_descriptions": None,
    "input": {
        "size": [8, 8],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.2, 0.2, 0.2],
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "crop_mode": "center",
    },
    "artifact": {
        "version": 1,
        "kind": "onnx",
        "precision": "fp32",
        "sequencer2d": "0.2.0",
        "torch": "2.14.1",
        "minimum_size": 8,
    },
}
"""Every field that we write, with a value that fits."""


def test_a_complete_description_fits():
    assert check_description(COMPLETE, "a file", FIELDS) == COMPLETE


@pytest.mark.parametrize(
    "path",
    [
        *(key for key in COMPLETE),
        *(f"{outer}.{key}" for outer in ("input", "artifact") for key in COMPLETE[outer]),
    ],
)
def test_each_field_is_checked_under_its_name(path):
    """No field may hold a set, which JSON does not have."""
    outer, _, inner = path.rpartition(".")
    changed = COMPLETE | ({outer: COMPLETE[outer] | {inner: {1}}} if outer else {inner: {1}})
    with pytest.raises(CheckpointError, match=rf"^a file: in its description {path} is "):
        check_description(changed, "a file")
