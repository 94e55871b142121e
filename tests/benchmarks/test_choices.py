"""The table of what "auto" takes is what was measured, no more and no less."""

from benchmarks.choices import choices, measured_rows
from sequencer2d.ops.measured import KERNELS_FASTER, Problems


def row(rows, hidden, ours, torch, cell="lstm", dtype="bfloat16"):
    times = {"ours_forward_ms": ours, "ours_training_ms": ours, "torch_forward_ms": torch, "torch_training_ms": 9.0}
    return {"rows": rows, "hidden": hidden, "cell": cell, "dtype": dtype, **times}


def test_the_table_was_made_from_the_committed_results():
    assert tuple(choices(measured_rows())) == KERNELS_FASTER


def test_a_row_covers_the_measured_sequences_and_the_hidden_units_that_cost_as_much():
    rows = [row(16, 64, 1.0, 2.0), row(256, 64, 1.0, 2.0), row(64, 128, 2.0, 1.0), row(512, 128, 1.0, 2.0)]
    assert [found for found in choices(rows) if not found.training] == [
        Problems("lstm", "bfloat16", False, (48, 64), (1, 256)),
        Problems("lstm", "bfloat16", False, (65, 128), (512, 512)),
    ]


def test_few_sequences_are_judged_by_few_alone():
    rows = [row(4096, 64, 1.0, 2.0), row(16, 128, 1.0, 2.0)]
    assert [(found.hidden, found.sequences) for found in choices(rows) if not found.training] == [
        ((48, 64), (4096, 4096)),
        ((65, 128), (1, 16)),
    ]


def test_few_sequences_in_float32_are_not_judged_by_more():
    """cuDNN has kernels of its own for few of them."""
    rows = [row(64, 64, 1.0, 2.0, dtype="tf32"), row(256, 64, 1.0, 2.0, dtype="tf32")]
    assert [found.sequences for found in choices(rows)] == [(64, 256), (64, 256)]


def test_what_is_hardly_faster_is_left_out():
    assert [found.training for found in choices([row(16, 64, 1.0, 1.09)])] == [True]


def test_what_is_slower_as_a_graph_is_left_out():
    slower = row(16, 64, 1.0, 2.0) | {"ours_forward_graph_ms": 0.9, "torch_forward_graph_ms": 0.5}
    assert [found.training for found in choices([slower])] == [True]


def test_what_is_slower_in_one_problem_or_was_not_timed_is_left_out():
    rows = [row(16, 64, 1.0, 2.0), row(16, 64, 2.0, 1.0), row(64, 64, None, 1.0), row(128, 64, 1.0, 2.0)]
    assert [found for found in choices(rows) if not found.training] == [
        Problems("lstm", "bfloat16", False, (48, 64), (128, 128))
    ]
