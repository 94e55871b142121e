"""The bounds of options and files, and tables between our names and others': each on both sides."""

import json
import logging
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from sequencer2d.errors import CheckpointError, ConfigError
from sequencer2d.models import graph_table, hub_config, pyramid, weight_files
from sequencer2d.models.config import LARGEST, ModelConfig
from sequencer2d.models.graph_table import GraphTable
from sequencer2d.models.model_card import model_card
from sequencer2d.models.peers import LARGEST_OPTION, check_options
from sequencer2d.models.weight_files import LONGEST_NAME, check_weights, read_torch_file

FILE = Path("a.pt")


@pytest.mark.parametrize(
    ("field", "fits", "fails"),
    [
        ("drop_path_rate", (0.0, 0, 0.999), (-0.001, 1.0, 1, True, "0")),
        ("mlp_ratio", (0.001, 1000), (0, 1000.5, True, "3")),
        ("stem_overlap", (0, 7), (-1, 8, 1.0, True)),
        ("in_chans", (1, LARGEST), (0, LARGEST + 1, 3.0, True)),
        ("num_classes", (0, 1, LARGEST), (-1, LARGEST + 1, True)),
        ("img_size", (1, (1, LARGEST)), (0, (8,), (8, 8, 8), (8, 0), 8.0, (8, True))),
        ("bidirectional", (True, False), (1, 0, "yes")),
        ("implementation", ("auto",), (None, 3)),
        ("pad", ("crop", "zeros"), ("no",)),
        ("global_pool", ("avg", "max", ""), ("mean",)),
    ],
)
def test_options_of_a_model_within_their_bounds(field: str, fits: tuple[Any, ...], fails: tuple[Any, ...]) -> None:
    for value in fits:
        expected = (value, value) if field == "img_size" and isinstance(value, int) else value
        assert getattr(ModelConfig(**{field: value}), field) == expected
    for value in fails:
        with pytest.raises(ConfigError, match=field):
            ModelConfig(**{field: value})


def test_sums_and_widths_without_a_product_need_their_axes() -> None:
    sizes = {"depths": (1,), "patch_sizes": (4,)}
    assert ModelConfig(**sizes, dims=(16,), hidden_dims=(4,), fusion="none").scans == 4
    assert ModelConfig(**sizes, dims=(16,), hidden_dims=(8,), fusion="none", axes="vertical").scans == 2
    assert ModelConfig(**sizes, dims=(16,), hidden_dims=(16,), axes="vertical", bidirectional=False).scans == 1
    assert ModelConfig(**sizes, dims=(16,), hidden_dims=(5,)).scans == 4, "a product takes any width"
    with pytest.raises(ConfigError, match=r"needs 4 scans .* set hidden_dims to dims / 4"):
        ModelConfig(**sizes, dims=(16,), hidden_dims=(5,), fusion="none")
    with pytest.raises(ConfigError, match="fusion='add' sums two axes"):
        ModelConfig(**sizes, dims=(16,), hidden_dims=(4,), fusion="add", axes="horizontal")


def test_tokens_and_strides_of_the_papers_models() -> None:
    config = ModelConfig(stem_overlap=2)
    assert (config.total_stride, config.reductions, config.stem_kernel) == (14, (7, 14, 14, 14), 11)
    assert (config.grid(224, 57), config.grid(224, 57, 1), config.grid(20, 27)) == ((32, 8), (16, 4), (2, 3))
    padded = ModelConfig(pad="zeros")
    assert (padded.grid(224, 57), padded.grid(224, 57, 3), padded.grid(14, 15, 3)) == ((32, 10), (16, 5), (1, 2))
    one = ModelConfig(depths=(1,), patch_sizes=(7,), dims=(8,), hidden_dims=(2,), drop_path_rate=0.5)
    assert one.drop_path_rates == ((0.0,),)


@pytest.mark.parametrize(("name", "fits"), [("a" * LONGEST_NAME, True), ("a" * (LONGEST_NAME + 1), False), ("", False)])
def test_names_of_parameters_have_from_one_to_500_characters(name: str, fits: bool) -> None:
    if fits:
        check_weights({name: torch.zeros(1)}, FILE)
    else:
        with pytest.raises(CheckpointError, match="is no name of a parameter"):
            check_weights({name: torch.zeros(1)}, FILE)


@pytest.mark.parametrize(
    ("tensor", "finite"),
    [
        (torch.zeros(2), True), (torch.tensor([0, float("nan")]), False), (torch.tensor([float("inf")]), False),
        (torch.tensor([1, 2]), True), (torch.tensor([True]), True), (torch.zeros(2, dtype=torch.complex64), False),
        (torch.zeros(2, dtype=torch.bfloat16), True), (torch.full((1,), float("nan"), dtype=torch.bfloat16), False),
        (torch.zeros(2).to(torch.float8_e5m2), True), (torch.full((1,), float("nan")).to(torch.float8_e5m2), False),
    ],
)  # fmt: skip
def test_weights_are_finite_in_every_dtype(tensor: torch.Tensor, finite: bool) -> None:
    assert weight_files._is_finite(tensor) == finite
    if not finite:
        with pytest.raises(CheckpointError, match="in 1 of 2 tensors, b first"):
            check_weights({"a": torch.zeros(1), "b": tensor}, FILE)


def test_content_may_take_four_times_the_file_and_a_mebibyte() -> None:
    for size, fits in ((4 * 10 + 2**20, True), (4 * 10 + 2**20 + 1, False)):
        copies = weight_files._Copies(10)
        content = {"a": torch.zeros(size - 8, dtype=torch.uint8), "b": [torch.zeros(2), "text"]}
        if fits:
            found = copies.copy(content)
            assert found["b"][1] == "text"
        else:
            with pytest.raises(weight_files._RefusedError, match="claim more memory"):
                copies.copy(content)
    with pytest.raises(weight_files._RefusedError):
        weight_files._Copies(10).copy(torch.zeros(1).expand(2))


def test_copies_keep_what_is_shared_and_what_is_trained() -> None:
    shared, trained = torch.zeros(2), torch.nn.Parameter(torch.zeros(3), requires_grad=False)
    first, second, (third,) = weight_files._Copies(100).copy([shared, shared, (trained,)])
    assert first is second
    assert first is not shared
    assert (type(third), third.requires_grad) == (torch.nn.Parameter, False)
    assert not weight_files._Copies(100).copy(torch.zeros(1, requires_grad=True)).requires_grad


def test_torch_is_told_to_build_tensors_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second guard behind the names of the pickle, which are looked at before."""
    real, told = torch.load, list[dict[str, Any]]()

    def load(path: Path, **options: Any) -> Any:
        told.append(options)
        return real(path, **options)

    monkeypatch.setattr(torch, "load", load)
    for legacy in (False, True):
        torch.save({"a": torch.ones(2)}, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
        assert read_torch_file(tmp_path / "a.pt")["a"].tolist() == [1, 1]
    assert told == [{"map_location": "cpu", "weights_only": True, "mmap": mapped} for mapped in (True, False)]


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        (LARGEST_OPTION, True), (-LARGEST_OPTION, True), (LARGEST_OPTION + 1, False), ("a" * 100, True),
        ("a" * 101, False), (None, True), (True, True), ([1] * 100, True), ([1] * 101, False), ([True], False),
        ({"a": 1}, False), ([[1]], False),
    ],
)  # fmt: skip
def test_options_of_peers_are_numbers_and_names_of_moderate_size(value: Any, fits: bool) -> None:
    if fits:
        assert check_options({"key": value}, "a.pt") == {"key": tuple(value) if isinstance(value, list) else value}
    else:
        with pytest.raises(CheckpointError, match="the option 'key' of timm's model cannot be set so"):
            check_options({"key": value}, "a.pt")
    for name in ("pretrained", "not a name"):
        with pytest.raises(CheckpointError, match="cannot be set so"):
            check_options({name: 1}, "a.pt")


@pytest.mark.parametrize(
    ("strides", "output_stride", "found"),
    [
        ((4, 8), None, [4, 8]), ([3.5, 7], None, [Fraction(7, 2), 7]), ((4096,), None, [4096]), ((4, 4), None, [4, 4]),
        ((4, 8, 16, 32), 16, [4, 8, 16, 16]), ((4, 8), 4, [4, 4]), ((4097,), None, None), ((0, 4), None, None),
        ((8, 4), None, None), ((), None, None), ("48", None, None), ((True,), None, None), ((4, 8), 3, None),
        ((4, 8), 8.0, None), (4, None, None),
    ],
)  # fmt: skip
def test_strides_of_a_pyramid_ascend_within_their_bounds(strides: Any, output_stride: Any, found: Any) -> None:
    if found is None:
        with pytest.raises(ConfigError, match="stride"):
            pyramid._check_strides(strides, output_stride)
    else:
        assert pyramid._check_strides(strides, output_stride) == found


def test_sizes_of_a_level_are_rounded_up_and_strides_shown_plainly() -> None:
    stride = Fraction(7, 2)
    assert [pyramid._ceil(size, stride) for size in (1, 3, 4, 7, 8, 224)] == [1, 1, 2, 2, 3, 64]
    assert [pyramid._ceil(size, Fraction(8)) for size in (8, 9, 16)] == [1, 2, 2]
    assert (pyramid._plain(stride), pyramid._plain(Fraction(8))) == (3.5, 8)
    assert type(pyramid._plain(Fraction(8))) is int
    assert [pyramid.Source(Fraction(s), 1, 8, 14).steps for s in (28, 14, 7, stride)] == [-1, 0, 1, 2]
    with pytest.raises(ConfigError, match=r"stride 8 and stride 14 of stage 1 .* choose such as 7, 14, 28"):
        _ = pyramid.Source(Fraction(8), 1, 8, 14).steps


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["a"], ["a"]), ({"1": "b", "0": "a"}, ["a", "b"]), ({"1": "a"}, None), ({"x": "a"}, None),
        ({"0" * 19: "a"}, ["a"]), ({"0" * 20: "a"}, None), ({}, []),
    ],
)  # fmt: skip
def test_names_of_classes_by_number_are_a_list_without_gaps(names: Any, found: Any) -> None:
    if found is None:
        with pytest.raises(CheckpointError, match="not numbered from 0 without gaps"):
            hub_config._class_names(names, "config.json")
    else:
        assert hub_config._class_names(names, "config.json") == found


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"layers": [1], "num_classes": 3, "drop_rate": 0.5, "bidirectional": None}, {"depths": [1]}),
        ({"union": "add"}, {"axes": "both", "fusion": "add"}),
        ({"with_fc": False}, {"axes": "both", "fusion": "none"}),
        ({"union": "vertical"}, {"axes": "vertical", "fusion": "concat"}),
        ({"union": "add", "with_fc": False}, "model_args say union='add', with_fc=False, which is not ours"),
        ({"mlp_ratios": [3.0, 3.0]}, {"mlp_ratio": 3.0}),
        ({"mlp_ratios": [3.0, 2.0]}, "mlp_ratios differ"),
        ({"mlp_ratios": []}, "mlp_ratios differ"),
        ({"num_rnn_layers": 1, "stem_norm": False, "cell": "gru"}, {"cell": "gru"}),
        ({"num_rnn_layers": 2}, "num_rnn_layers is 2; our models have 1 alone"),
        ({"stem_norm": True}, "stem_norm is True"),
    ],
)
def test_timms_arguments_become_our_options(arguments: dict[str, Any], found: Any) -> None:
    if isinstance(found, str):
        with pytest.raises(CheckpointError, match=found):
            hub_config._overrides(arguments, "config.json")
    else:
        assert hub_config._overrides(arguments, "config.json") == found


def test_what_stands_beside_a_file_has_precedence_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    own = {"model": "a", "input": {"size": [8, 8], "crop_pct": 0.5}, "class_names": ["x"]}
    beside = {"input": {"size": [8, 8], "crop_pct": 1.0, "mean": [0.0]}}
    with caplog.at_level(logging.WARNING):
        merged = hub_config.merge_descriptions(own, beside, "a.pt")
    assert merged == {**own, "input": {"size": [8, 8], "crop_pct": 1.0, "mean": [0.0]}}
    assert "a.pt: crop_pct is taken from config.json beside it" in caplog.text
    caplog.clear()
    assert hub_config.merge_descriptions(own, {"input": {"size": [8, 8]}}, "a.pt") == own
    assert caplog.text == ""
    with pytest.raises(CheckpointError, match=r"holds a a, and config\.json beside it describes a b"):
        hub_config.merge_descriptions(own, {"model": "b"}, "a.pt")


def test_a_card_counts_in_its_units() -> None:
    images = {"size": [8, 16], "interpolation": "bicubic", "crop_pct": 0.5, "mean": [0.5, 0.25], "std": [1.0, 2.0]}
    described = {"model": "m", "num_classes": 2, "input": images, "class_names": ["a", "b"]}
    summary = {
        "parameters": 2_540_000, "final": {"top1": 12.25, "top5": 50.0}, "best": {"top1": 13.0}, "duration_s": 90.0,
        "epochs": 3, "device": "cpu", "versions": {"sequencer2d": "1", "torch": "2"},
        "config": {"data": {"source": "folder", "root": "/a/flowers/"}},
    }  # fmt: skip
    card = model_card(described, summary, None)
    for part in (
        "2.5 M parameters", "value: 0.1225", "| top-1 after the last epoch | 12.25 % |", "| time | 1.5 min |",
        "| top-1 of the best epoch | 13.00 % |", "| top-5 after the last epoch | 50.00 % |", "| data | flowers |",
        "| sequencer2d, PyTorch | 1, 2 |", "8×16 pixels", "mean (0.5, 0.25)", "a, b", f"- {json.dumps('flowers')}",
    ):  # fmt: skip
        assert part in card, part
    assert "hf-hub:me/m" in model_card(described, None, "me/m")


def test_batches_are_rounded_to_powers_of_two_and_one_and_a_half_times_these() -> None:
    assert [graph_table.round_up(batch) for batch in range(1, 18)] == [
        1, 2, 3, 4, 6, 6, 8, 8, 12, 12, 12, 12, 16, 16, 16, 16, 24,
    ]  # fmt: skip


def test_a_batch_is_padded_to_at_most_twice_its_images() -> None:
    table: GraphTable[str] = GraphTable()
    table.put("size", 16, "of sixteen")
    assert table.choose("size", 8, 64).graph == "of sixteen"
    assert table.choose("size", 7, 64).graph is None
    assert table.choose("size", 8, 15).graph is None
    assert table.choose("other", 8, 64).graph is None
    assert table.choose("size", 16).graph == "of sixteen"


def test_what_is_cleared_is_forgotten_and_calls_are_counted_anew() -> None:
    table: GraphTable[str] = GraphTable()
    assert [table.choose("size", 5).capture for _ in range(2)] == [None, 5]
    table.clear()
    assert [table.choose("size", 5).capture for _ in range(2)] == [None, 5]
    table.put("size", 5, "graph")
    table.clear()
    assert len(table) == 0
