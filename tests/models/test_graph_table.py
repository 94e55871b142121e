"""Which graph serves which batch: shapes that recur, last batches, own aspect ratios, servers; bounded in number."""

import functools
import random

import pytest
import torch

from sequencer2d.models.graph_table import (
    IN_A_ROW,
    MAX_GRAPHS,
    SIGHTINGS_CROWDED,
    Choice,
    GraphTable,
    first_images,
    own_memory,
    pad_batch,
    round_up,
)


def serve(table, calls, largest=0, ready=lambda batch: batch):
    """Do what `Replays` does for (kind, batch) calls; what became of each: how it was served, and in how many images.

    A graph is represented by its number of images.
    """
    served = []
    for kind, batch in calls:
        choice = table.choose(kind, batch, largest, lambda batch=batch: ready(batch))
        assert sum(part is not None for part in vars(choice).values()) == 1
        if choice.capture is not None:
            table.put(kind, choice.capture, choice.capture)
            served.append(("captured", choice.capture))
        else:
            served.append(("ran", choice.run) if choice.graph is None else ("replayed", choice.graph))
        assert served[-1][1] >= batch
    return served


def captured(served):
    return [images for how, images in served if how == "captured"]


def test_shapes_that_come_once_get_no_graph():
    """Images of a folder in their own aspect ratios are no reason to capture hundreds of graphs."""
    table = GraphTable()
    assert not captured(serve(table, [((224, width), 1) for width in range(5000)], largest=64))
    assert len(table) == 0


def test_a_batch_that_comes_again_gets_a_graph_of_its_own():
    table = GraphTable()
    assert serve(table, [("size", 100)] * 4, largest=256) == [
        ("ran", 100), ("captured", 100), ("replayed", 100), ("replayed", 100),
    ]  # fmt: skip


def test_a_smaller_last_batch_is_padded_at_once_and_a_much_smaller_one_is_not():
    table = GraphTable()
    serve(table, [("size", 64)] * 9)
    assert serve(table, [("size", 37)], largest=64) == [("replayed", 64)]
    assert serve(table, [("size", 5)], largest=64) == [("ran", 5)]


def test_batches_that_keep_the_gpu_busy_are_not_padded():
    table = GraphTable()
    serve(table, [("size", 256)] * 9, largest=64)
    assert serve(table, [("size", 200)], largest=64) == [("ran", 200)]


def test_a_server_with_batches_of_1_to_32_has_few_graphs_and_soon_runs_nothing_else():
    draw = random.Random(0)
    calls = [("size", draw.randint(1, 32)) for _ in range(2000)]
    table = GraphTable()
    served = serve(table, calls, largest=64)
    assert len(table) <= 16
    assert {how for how, _ in served[300:]} == {"replayed"}
    waste = sum(images for _, images in served[300:]) / sum(batch for _, batch in calls[300:])
    assert waste < 1.3


def test_a_batch_that_comes_in_a_row_is_no_longer_padded():
    table = GraphTable()
    serve(table, [("size", 64)] * 9)
    served = serve(table, [("size", 37)] * (IN_A_ROW + 1), largest=64)
    assert served == [("replayed", 64)] * (IN_A_ROW - 1) + [("captured", 37), ("replayed", 37)]


def test_a_batch_that_would_have_to_be_compiled_is_padded_to_one_that_would_not():
    """Until it comes in a row: then its own code pays."""
    ready = {1: 3, 2: 3}.get
    table = GraphTable()
    calls = [("size", 1), ("size", 16), ("size", 2), ("size", 1), ("size", 2)]
    served = serve(table, calls, largest=64, ready=lambda batch: ready(batch, batch))
    assert served == [("ran", 3), ("ran", 16), ("captured", 3), ("replayed", 3), ("replayed", 3)]
    served = serve(table, [("size", 1)] * (IN_A_ROW + 1), largest=64, ready=lambda batch: ready(batch, batch))
    assert served[-2:] == [("captured", 1), ("replayed", 1)]


def test_a_call_that_comes_again_after_its_capture_counts_once():
    table = GraphTable()
    ask = functools.partial(table.choose, "size", 1, 64, lambda: 3)
    assert [ask(), ask()] == [Choice(run=3), Choice(capture=3)]
    table.put("size", 3, "of three")
    assert [ask(), ask(), ask()] == [Choice(graph="of three")] * 2 + [Choice(capture=1)]


def test_the_table_is_bounded_and_the_longest_unused_gives_way():
    table = GraphTable(2)
    assert captured(serve(table, [(kind, 1) for kind in "aabba"])) == [1, 1]
    assert captured(serve(table, [("c", 1)] * SIGHTINGS_CROWDED)) == [1]
    assert len(table) == 2
    assert ("b", 1) not in table
    assert ("a", 1) in table


def test_shapes_in_turns_that_do_not_fit_are_rarely_captured_anew():
    table = GraphTable(8)
    calls = [(kind, 1) for kind in range(12)] * 100
    assert len(captured(serve(table, calls))) <= 8 + len(calls) / SIGHTINGS_CROWDED


def test_what_is_counted_is_bounded_too():
    table = GraphTable()
    serve(table, [(kind, 1 + kind % 7) for kind in range(10_000)], largest=64)
    assert len(table._sightings) <= 1024
    assert len(table._in_a_row) <= 1024
    assert len(table) <= MAX_GRAPHS


@pytest.mark.parametrize("batch", [*range(1, 70), 1000])
def test_batches_are_rounded_up_by_less_than_a_half(batch):
    assert batch <= round_up(batch) <= 1.5 * batch
    assert round_up(round_up(batch)) == round_up(batch)


def test_padding_and_cutting():
    images = torch.randn(3, 3, 4, 4)
    padded = pad_batch(images, 8)
    assert torch.equal(padded[:3], images)
    assert padded[3:].abs().max() == 0
    assert pad_batch(images, 3) is images
    output = own_memory(first_images({"maps": [padded, padded * 2], "name": "x"}, 3, of=8))
    padded.zero_()
    assert torch.equal(output["maps"][0], images)
    assert torch.equal(output["maps"][1], images * 2)
    number = torch.tensor(1.0)
    assert first_images(number, 3, of=3) is number
