"""Numbers of analyses that small inputs give by hand: similarity, memory, evidence, curves of runs."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sequencer2d import tasks
from sequencer2d.analysis import comparison
from sequencer2d.analysis.arrays import save_arrays
from sequencer2d.analysis.attribution import Attribution
from sequencer2d.analysis.blocks import block_outputs
from sequencer2d.analysis.cka import _gram, _grams, similarity
from sequencer2d.analysis.erf import _area, _arm_ratio, _checked, measure
from sequencer2d.analysis.memory import Reach, _previous, memory_reach
from sequencer2d.data.config import DataConfig
from sequencer2d.errors import ConfigError, InputError
from sequencer2d.evaluation.subject import Subject
from sequencer2d.ops.scans import Scan
from tests.analysis.test_hidden_states import image, subject


class Blocks(nn.Module):
    """Two blocks, the second of which gives its output in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))  # says on which device the model is
        self.blocks = nn.ModuleList([nn.Flatten(), Listed(), Named()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks[1](self.blocks[0](x))[0]


class Listed(nn.Module):
    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [2 * x, x]


class Named(nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"x": x}


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)


def small() -> Subject:
    return Subject("s", Blocks(), DataConfig(image_size=4), ("a", "b"))


def test_the_first_tensor_of_a_list_is_a_blocks_output_and_no_other_is_taken() -> None:
    x = torch.randn(2, 3, 4, 4)
    found = block_outputs(small().model, x, ["blocks.1", "blocks.0", "blocks.1"])
    assert torch.equal(found["blocks.1"], 2 * x.flatten(1))
    with pytest.raises(ConfigError, match=r"blocks.2 did not run"):
        block_outputs(small().model, x, ["blocks.2"])
    with pytest.raises(ConfigError, match="puts out dict, not a tensor"):
        block_outputs(nn.Sequential(Named()), x, ["0"])


def test_grams_are_those_of_centered_features_in_fp64() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    assert _gram(x).tolist() == [[5, -5], [-5, 5]]
    found = _grams(nn.Sequential(nn.Identity()), x.bfloat16(), ("0",))
    assert [(gram.tolist(), gram.dtype) for gram in found] == [([[5, -5], [-5, 5]], torch.float64)]


def test_a_last_batch_of_fewer_than_4_images_is_left_out() -> None:
    seen: list[int] = []
    names = ["blocks.0", "blocks.1"]
    for count, used in ((4, [4]), (11, [4, 4]), (12, [4, 4, 4])):
        seen.clear()
        result = similarity(
            small(), small(), images(count), images(count), blocks_first=names, blocks_second=names[:1],
            batch_size=4, progress=seen.append,
        )  # fmt: skip
        assert (seen, result.images, result.blocks) == (used, sum(used), (("blocks.0", "blocks.1"), ("blocks.0",)))
        np.testing.assert_allclose(result.values, 1, rtol=1e-6, err_msg="a map and its double are equal up to scale")
    for count, batch_size in ((3, 4), (8, 3)):
        with pytest.raises(InputError, match="at least 4 images, got 3"):
            similarity(small(), small(), images(count), batch_size=batch_size)
    with pytest.raises(InputError, match="4 images for s and 5 for s"):
        similarity(small(), small(), images(4), images(5))


def test_images_of_a_second_size_are_the_second_models() -> None:
    names = ["blocks.0"]
    same = similarity(small(), small(), images(40), images(40, seed=1), blocks_first=names, blocks_second=names)
    assert abs(same.values[0, 0]) < 0.3, "unrelated images"


def test_the_state_before_the_first_step_is_zero() -> None:
    hidden = torch.arange(1.0, 7.0).reshape(1, 2, 3, 1)
    before = [_previous(hidden, Scan.numbered(number))[0, ..., 0].tolist() for number in range(4)]
    assert before == [
        [[0, 0, 0], [1, 2, 3]], [[4, 5, 6], [0, 0, 0]], [[0, 1, 2], [0, 4, 5]], [[2, 3, 0], [5, 6, 0]],
    ]  # fmt: skip


def test_half_lives_are_summed_up_by_their_10th_50th_and_90th_percent() -> None:
    reach = Reach("b", 3, 7.0, np.zeros(50), np.arange(11.0), 5)
    assert reach.quantiles().tolist() == [1, 5, 9]
    seen: list[int] = []
    pixels = np.stack([image(seed) for seed in range(3)])
    memory = memory_reach(subject(), pixels, batch_size=2, progress=seen.append)
    assert (seen, memory.images) == ([2, 1], 3)
    assert all(scan.histogram.sum() == pytest.approx(1) for scan in memory.scans)
    with pytest.raises(InputError, match="no images"):
        memory_reach(subject(), pixels[:0])


def attribution(truths: list[int] | None) -> Attribution:
    predictions = np.array([0, 1, 2, 1])
    confidences = np.array([0.5, 0.7, 0.9, 0.8])
    empty = np.zeros((4, 2, 2))
    known = None if truths is None else np.array(truths)
    return Attribution("m", "b", empty, empty, predictions, confidences, predictions, confidences, known)


def test_confident_mistakes_come_first_and_unknown_truths_are_none() -> None:
    assert attribution(None).mistakes_first() == [0, 1, 2, 3]
    assert attribution([0, 0, 0, 0]).mistakes_first() == [2, 3, 1, 0]
    assert attribution([-1, 0, -1, 1]).mistakes_first() == [1, 0, 2, 3]
    assert not attribution(None).asked


def test_the_area_of_a_share_and_the_arms_of_a_cross() -> None:
    assert _area(np.full((2, 5), 0.1), 0.5) == 0.5
    assert _area(np.array([[0.6, 0.1], [0.1, 0.2]]), 0.5) == 0.25
    assert _area(np.array([[0.6, 0.1], [0.1, 0.2]]), 0.9) == 0.75
    cross = np.ones((9, 9))
    cross[4], cross[:, 4] = 3, 3
    assert _arm_ratio(cross, (4, 4, 5, 5)) == pytest.approx(3)
    assert measure(np.ones((9, 9)), (4, 4, 5, 5)).row_share == pytest.approx(1 / 9)
    shape = measure(np.ones((10, 10)), (4, 4, 6, 6))
    assert (shape.cross_share, shape.side_50, shape.area_90) == (pytest.approx(0.36), pytest.approx(50**0.5), 0.9)
    lone = np.zeros((9, 9))
    lone[4] = 1
    assert _arm_ratio(lone, (4, 4, 5, 5)) == math.inf
    assert math.isnan(_arm_ratio(np.zeros((9, 9)), (4, 4, 5, 5)))
    for values, said in ((np.zeros((2, 2)), "zero"), (np.full((2, 2), np.nan), "not finite")):
        with pytest.raises(InputError, match=f"image is {said}:"):
            _checked("b", values)


def test_arrays_are_written_to_npz_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not to"):
        save_arrays(tmp_path / "x.npy", a=1)
    save_arrays(tmp_path / "x.npz", a=[1, 2], name="m")
    with np.load(tmp_path / "x.npz") as file:
        assert (file["a"].tolist(), str(file["name"])) == ([1, 2], "m")


def test_curves_of_runs_have_a_color_each_and_marks_where_they_are_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    figures: list[Any] = []
    monkeypatch.setattr(comparison, "figure_bytes", lambda figure: figures.append(figure) or b"png")
    few = [{"kind": "step", "epoch": 1, "train_loss": 9.0}]
    few += [
        {"kind": "epoch", "epoch": n, "train_loss": 1 / n, "top1": None if n == 2 else 10 * n} for n in range(1, 41)
    ]
    many = [{"kind": "epoch", "epoch": n, "train_loss": 1.0} for n in range(1, 42)]
    metric = tasks.CLASSIFICATION.decides
    assert (
        comparison.draw_comparison({"a$": few, "b": many}, metric, tmp_path / "x.png", loss="nats")
        == tmp_path / "x.png"
    )
    assert (tmp_path / "x.png").read_bytes() == b"png"
    training, validation, top1 = figures[0].axes
    assert [axes.get_title() for axes in (training, validation, top1)] == [
        "training: nats",
        "validation: nats",
        metric.axis,
    ]
    first, second = training.lines
    assert (first.get_label(), second.get_label()) == (r"a\$", "b")
    assert (first.get_color(), second.get_color()) == ("C0", "C1")
    assert (first.get_marker(), second.get_marker(), first.get_markersize()) == ("o", "", 3)
    assert first.get_xydata()[:2].tolist() == [[1, 1], [2, 0.5]]
    assert len(validation.lines) == 0
    assert validation.get_legend() is None
    assert training.get_legend().get_texts()[0].get_fontsize() == 8
    assert np.isnan(top1.lines[0].get_ydata()[1])
    assert figures[0].get_size_inches().tolist() == [13, 4.2]
