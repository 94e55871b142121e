"""Frozen features of the shipped weights are measured on samples of other data sets."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.tiny_imagenet import frozen
from tests.data.images import make_folder
from tests.models.shipping import ship


def test_shipped_and_random_weights_are_measured_on_the_same_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights").mkdir()
    source = ship(tmp_path / "weights", monkeypatch)
    monkeypatch.setitem(frozen.DATA_SETS, "cifar10", frozen.Images("cifar", ("train", "val"), (6, 2)))
    make_folder(tmp_path / "cifar", {"train": {"a": 4, "b": 9}, "val": {"a": 4, "b": 1}, "test": {"a": 3, "b": 2}})
    result = tmp_path / "result.json"
    assert frozen.main(["--data", str(tmp_path), "--sets", "cifar10", "--result", str(result)]) == 0
    rows = json.loads(result.read_text(encoding="utf-8"))["rows"]
    assert [(row["weights"], row["train_images"], row["test_images"]) for row in rows] == [
        ("shipped", 12, 4), ("random", 12, 4),
    ]  # fmt: skip
    assert all(0 <= row[key] <= 100 for row in rows for key in ("linear_percent", "knn_percent"))
    as_shipped, as_random = (frozen.subject(weights).model.head.fc.weight for weights in ("shipped", "random"))
    assert torch.allclose(as_shipped, source.head.fc.weight, atol=1e-2)
    assert not as_random.any(), "a classifier begins at zero"


def test_a_sample_has_so_many_images_of_each_class_of_all_splits_and_is_always_the_same(tmp_path: Path) -> None:
    make_folder(tmp_path, {"train": {"a": 4, "b": 9}, "val": {"a": 4, "b": 1}})
    drawn = frozen.sample(tmp_path, ("train", "val"), 6)
    assert sorted(drawn.values()) == ["a"] * 6 + ["b"] * 6
    assert {path.parent.parent.name for path in drawn} == {"train", "val"}
    assert drawn == frozen.sample(tmp_path, ("train", "val"), 6)
