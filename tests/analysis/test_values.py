"""What stands in files and texts of the analysis: keys, units, order, cuts, worked out by hand."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sequencer2d.analysis.about import model_text, weights_text
from sequencer2d.analysis.arrays import save_arrays
from sequencer2d.analysis.attribution import Attribution
from sequencer2d.analysis.blocks import block_names, block_outputs
from sequencer2d.analysis.cka import Similarity, similarity
from sequencer2d.analysis.drawing import RIGHT, WRONG, _two_lines, power_scale, prediction_color, prediction_text
from sequencer2d.analysis.hidden_states import HiddenStates, check_channels, most_active, running_states
from sequencer2d.analysis.memory import MemoryReach, Reach
from sequencer2d.analysis.neighbors import _short
from sequencer2d.errors import ConfigError, InputError
from tests.evaluation.subjects import colors_subject, small


def test_a_model_is_described_by_its_size_and_its_images() -> None:
    subject = small()
    millions = sum(parameter.numel() for parameter in subject.model.parameters()) / 1e6
    assert model_text(subject) == (
        f"small (sequencer2d_n): {millions:.1f} M parameters, 3 classes, images of 32×32 pixels"
    )
    assert model_text(replace(subject, name="sequencer2d_n")).startswith("sequencer2d_n: ")
    assert model_text(colors_subject()) == "colors: 0.0 M parameters, 3 classes, images of 32×32 pixels"
    assert model_text(replace(colors_subject(), class_names=())) == "colors: 0.0 M parameters, images of 32×32 pixels"


def test_weights_are_told_with_their_day(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    path.touch()
    os.utime(path, (0, 86_400 * 31))
    assert weights_text(str(path)) == f"{path}, 1970-02-01"


def test_arrays_are_written_to_npz_alone(tmp_path: Path) -> None:
    save_arrays(tmp_path / "a.npz", values=[1, 2], name="x")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as stored:
        assert {key: stored[key].tolist() for key in stored.files if key != "allow_pickle"} == {
            "values": [1, 2], "name": "x",
        }  # fmt: skip
    with pytest.raises(ConfigError, match=r"not to .*a\.npy"):
        save_arrays(tmp_path / "a.npy", values=[1])


def attribution(truths: list[int] | None) -> Attribution:
    confidences = np.array([0.5, 0.6, 0.9, 0.7])
    predictions, maps = np.array([0, 1, 2, 0]), np.zeros((4, 2, 2), np.float32)
    known = None if truths is None else np.array(truths)
    return Attribution("m", "b", maps, maps, predictions, confidences, predictions, confidences, known)


def test_known_mistakes_come_first_and_the_most_confident_ahead() -> None:
    assert attribution(None).mistakes_first() == [0, 1, 2, 3]
    assert attribution([1, 1, 0, -1]).mistakes_first() == [2, 0, 1, 3]
    assert attribution([0, 1, 2, 1]).mistakes_first() == [3, 0, 1, 2]
    assert attribution([0, 0, 2, 0]).mistakes_first() == [1, 0, 2, 3], "class 0 may be the truth"
    one = attribution(None)
    assert not one.asked
    assert replace(one, classes=np.array([0, 1, 2, 2])).asked


def test_files_of_similarity_and_memory_hold_what_was_measured(tmp_path: Path) -> None:
    Similarity(("a", "b"), (("x",), ("y", "z")), np.array([[0.5, 0.25]]), 8).save(tmp_path / "s.npz")
    reaches = tuple(
        Reach(f"block{k}", k, 4.0 * (k + 1), np.full(50, 0.02), np.arange(1.0, 3 + k), 8 + k) for k in range(2)
    )
    MemoryReach("m", reaches, 3).save(tmp_path / "m.npz")
    found = {}
    for name in ("s", "m"):
        with np.load(tmp_path / f"{name}.npz") as stored:
            found[name] = {key: stored[key].tolist() for key in stored.files if key != "allow_pickle"}
    assert found["s"] == {
        "values": [[0.5, 0.25]], "models": ["a", "b"], "rows": ["x"], "columns": ["y", "z"], "images": 8,
    }  # fmt: skip
    assert found["m"].pop("histogram") == [[0.02] * 50] * 2
    first, second = found["m"].pop("half_life_tokens")
    assert (first[:2], np.isnan(first[2]), second) == ([1, 2], True, [1, 2, 3])
    assert found["m"] == {
        "model": "m", "images": 3, "blocks": ["block0", "block1"], "scans": [0, 1], "strides": [4, 8],
        "tokens": [8, 9],
    }  # fmt: skip
    assert reaches[1].direction == "bottom to top"
    assert Reach("b", 0, 1.0, np.zeros(50), np.arange(11.0), 4).quantiles().tolist() == [1, 5, 9]


def test_scans_uncover_a_row_or_a_column_a_step() -> None:
    """A grid of two rows and three columns. The vertical scans are done after two steps."""
    values = np.arange(24, dtype=np.float32).reshape(4, 2, 3, 1)
    states = HiddenStates("m", "b", np.zeros((4, 6, 3), np.uint8), values, values[0], (0, 1, 2, 3))
    frames = [~np.isnan(frame[..., 0]) for frame in running_states(states)]
    assert len(frames) == 3
    full = [[True] * 3] * 2
    assert frames[0].tolist() == [
        [[True] * 3, [False] * 3], [[False] * 3, [True] * 3], [[True, False, False]] * 2, [[False, False, True]] * 2,
    ]  # fmt: skip
    assert frames[1].tolist() == [full, full, [[True, True, False]] * 2, [[False, True, True]] * 2]
    assert frames[2].all()
    assert np.array_equal(list(running_states(states))[2], values)
    flat = replace(states, scans=(0,), states=values[:1], flattened=True)
    assert [(~np.isnan(frame)).sum() for frame in running_states(flat)] == [3, 6]
    rows = [(title, maps.shape) for title, maps in states.rows()]
    assert rows == [("vertical", (2, 3, 2)), ("horizontal", (2, 3, 2)), ("fusion", (2, 3, 1))]
    assert [title for title, _ in flat.rows()] == ["flattened sequence", "fusion"]


def test_the_channels_that_vary_most_come_first() -> None:
    maps = np.stack([np.full((2, 2), 9.0), np.array([[0, 2], [0, 2]]), np.array([[0, 1], [0, 1]])], axis=-1)
    assert most_active(maps, 2).tolist() == [1, 2]
    check_channels([0, 2], 3)
    for wrong in (-1, 3):
        with pytest.raises(ConfigError, match=f"no channel {wrong}: this block has channels 0 to 2"):
            check_channels([0, wrong], 3)


def test_texts_above_photos() -> None:
    assert prediction_text("cat", 0.875, None, 30) == "cat (88%)"
    assert prediction_text("cat", 0.875, "cat", 30) == "✓ cat (88%)\ntruth: cat"
    assert prediction_text("cat", 1, "dog", 30) == "✗ cat (100%)\ntruth: dog"
    assert [prediction_color("cat", truth) for truth in (None, "cat", "dog")] == ["black", RIGHT, WRONG]
    assert _two_lines("one two three", "", 8) == ["one two", "three"]
    assert _two_lines("one two three four five", " (9%)", 12) == ["one two", "three… (9%)"]
    assert [len(_short("x" * count)) for count in (19, 20, 21)] == [19, 20, 20]
    assert _short("x" * 21) == "x" * 19 + "…"


def test_colors_run_from_0_to_1_unless_they_are_told_otherwise() -> None:
    pytest.importorskip("matplotlib")
    scale = power_scale(0.5)
    assert (scale.vmin, scale.vmax, float(scale(0.25))) == (0, 1, 0.5)
    assert power_scale(0.5, None).vmax is None


def test_blocks_are_caught_in_one_pass_that_ends_at_the_last() -> None:
    subject = small()
    names, reached = block_names(subject.model), []
    subject.model.head.register_forward_pre_hook(lambda *_: reached.append(1))
    images = torch.rand(2, 3, 32, 32)
    outputs = block_outputs(subject.model, images, [names[1], names[0], names[1]])
    assert sorted(outputs) == sorted(names[:2])
    assert not reached
    assert not subject.model.get_submodule(names[0])._forward_hooks
    assert torch.equal(block_outputs(subject.model, images, [names[0]])[names[0]], outputs[names[0]])
    subject.model(images)
    assert reached == [1]


def test_cka_leaves_out_a_last_batch_of_fewer_than_four_images() -> None:
    subject = small()
    pixels = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    counted: list[int] = []
    result = similarity(subject, subject, pixels[:11], batch_size=8, progress=counted.append)
    assert (result.images, counted) == (8, [8])
    assert similarity(subject, subject, pixels, batch_size=8).images == 12
    np.testing.assert_allclose(result.values.diagonal(), 1, rtol=1e-6)
    with pytest.raises(InputError, match="batches of at least 4 images, got 3"):
        similarity(subject, subject, pixels, batch_size=3)
    with pytest.raises(InputError, match="12 images for small and 11 for small"):
        similarity(subject, subject, pixels, pixels[:11])
