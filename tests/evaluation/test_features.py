"""Features, neighbors, and the accuracy of simple classifiers on features."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sequencer2d.errors import DataError, InputError
from sequencer2d.evaluation.features import (
    Features,
    embed,
    knn_predictions,
    linear_predictions,
    nearest,
)
from sequencer2d.evaluation.intervals import wilson
from sequencer2d.evaluation.subject import load_checkpoint, subject_of
from tests.cli.conftest import save_tiny
from tests.evaluation.subjects import MeanColor


def test_features_are_what_the_classifier_takes(tmp_path: Path) -> None:
    subject = load_checkpoint(save_tiny(tmp_path / "tiny.safetensors"))
    subject = replace(subject, data=replace(subject.data, crop_pct=1.0))
    images = [np.random.default_rng(n).integers(0, 256, (8, 8, 3), dtype=np.uint8) for n in range(3)]
    found = list(embed(subject, images, batch_size=2))
    vectors = np.stack([vector for _, vector, _ in found])
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (subject.data.mean, subject.data.std))
    with torch.no_grad():
        logits = subject.model((pixels - mean) / std)
        assert torch.allclose(subject.model.head.fc(torch.from_numpy(vectors)), logits, atol=1e-5)
    assert (vectors.shape, vectors.dtype) == ((3, 16), np.float32)


def test_a_model_that_does_not_tell_its_features_is_refused() -> None:
    with pytest.raises(InputError, match="colors does not expose its features"):
        list(embed(subject_of(MeanColor(), name="colors"), np.zeros((8, 8, 3), np.uint8)))


def test_features_come_back_from_their_file(tmp_path: Path) -> None:
    stored = Features(np.eye(3, 2, dtype=np.float32), ("a", "ü/b", "c"), "model", "0123")
    stored.save(tmp_path / "x.npz")
    found = Features.load(tmp_path / "x.npz")
    assert (found.paths, found.model, found.weights) == (stored.paths, "model", "0123")
    assert np.array_equal(found.vectors, stored.vectors)
    np.savez(tmp_path / "other.npz", vectors=np.zeros(3))
    with pytest.raises(DataError, match="holds no features"):
        Features.load(tmp_path / "other.npz")
    with pytest.raises(DataError, match="holds no features"):
        Features.load(tmp_path / "none.npz")


class Code:
    """What a pickle would run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


def test_a_file_with_pickled_code_is_refused_and_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    array = np.empty(1, dtype=object)
    array[0] = Code()
    np.savez("code.npz", vectors=np.zeros((1, 2)), paths=array, model="m", weights="w")
    with pytest.raises(DataError, match="holds no features"):
        Features.load("code.npz")
    assert not Path("ran").exists()


def test_neighbors_go_by_the_angle() -> None:
    vectors = np.array([[1, 0], [0, 5], [3, 3], [-1, 0]], np.float32)
    indices, similarity = nearest(np.array([[2, 0.1]], np.float32), vectors, 9)
    assert indices.tolist() == [[0, 2, 1, 3]]
    assert similarity[0] == pytest.approx([0.99875, 0.7415, 0.0499, -0.99875], abs=1e-3)


def test_simple_classifiers_find_what_can_be_separated() -> None:
    random = np.random.default_rng(0)
    centers = np.array([[4, 0, 0], [0, 4, 0], [0, 0, 4]], np.float32)
    targets = np.repeat(np.arange(3), 30)
    vectors = (centers[targets] + random.normal(size=(90, 3))).astype(np.float32)
    queries, truths = vectors[::2] + 0.01, targets[::2]
    assert (knn_predictions(vectors, targets, queries, 5, 3) == truths).mean() > 0.95
    found, strength = linear_predictions(vectors, targets, queries)
    assert (found == truths).mean() > 0.95
    assert strength > 0
    shuffled = random.permutation(targets)
    assert (knn_predictions(vectors, shuffled, random.normal(size=(300, 3)), 5, 3) == 0).mean() < 0.7


def test_wilsons_interval_has_the_published_values() -> None:
    """Newcombe, Statistics in Medicine 17 (1998), table I: method 3."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)
