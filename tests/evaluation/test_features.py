"""Features, neighbors, and the accuracy of simple classifiers on features."""

import hashlib
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sequencer2d.errors import DataError, InputError
from sequencer2d.evaluation.features import (
    Features,
    digest_of,
    embed,
    knn_predictions,
    linear_predictions,
    nearest,
    unit,
)
from sequencer2d.evaluation.intervals import accuracy_text, wilson
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


@pytest.mark.parametrize(("shape", "paths"), [((3,), "abc"), ((2, 3), "abc"), ((3, 2, 1), "abc")])
def test_a_file_whose_vectors_are_not_one_for_each_image_is_refused(
    tmp_path: Path, shape: tuple[int, ...], paths: str
) -> None:
    Features(np.zeros(shape, np.float32), tuple(paths), "model", "0123").save(tmp_path / "x.npz")
    with pytest.raises(DataError, match="features for 3 images"):
        Features.load(tmp_path / "x.npz")


def test_features_are_those_of_evaluation_and_finite(tmp_path: Path) -> None:
    """Dropout is off, autocast reaches the model, and the vectors stay float32."""
    subject, image = load_checkpoint(save_tiny(tmp_path / "tiny.safetensors")), np.full((8, 8, 3), 90, np.uint8)
    modes, dtypes = [], []
    subject.model.head.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    subject.model.stem.register_forward_hook(lambda *arguments: dtypes.append(arguments[-1].dtype))
    ((_, plain, _),) = embed(subject, image)
    subject.model.train()
    ((_, half, _),) = embed(subject, image, amp_dtype=torch.bfloat16)
    assert dtypes == [torch.float32, torch.bfloat16]
    assert modes == [False, False]
    assert (half.dtype, subject.model.training) == (np.float32, False)
    assert half == pytest.approx(plain, abs=0.05)
    with torch.no_grad():
        next(subject.model.parameters()).fill_(float("nan"))
    with pytest.raises(InputError, match="are not finite; try --precision fp32"):
        list(embed(subject, image))


def test_the_hash_of_weights_is_that_of_their_names_and_bytes() -> None:
    """A number, a transposed matrix and bfloat16, which NumPy does not know, included."""
    model = nn.Module()
    model.register_buffer("count", torch.tensor(3))
    model.register_buffer("turned", torch.arange(6.0).view(2, 3).T)
    model.register_buffer("short", torch.tensor([1.5, -2.0], dtype=torch.bfloat16))
    expected = hashlib.blake2b(digest_size=8)
    expected.update(b"count" + struct.pack("<q", 3) + b"turned" + struct.pack("<6f", 0, 3, 1, 4, 2, 5))
    expected.update(b"short" + bytes.fromhex("c03f00c0"))
    assert digest_of(model) == expected.hexdigest()


def test_vectors_get_length_1_and_those_of_length_0_stay() -> None:
    assert unit(np.array([[3, 4], [0, 0]], np.float32)).tolist() == [pytest.approx([0.6, 0.8]), [0, 0]]


def test_neighbors_vote_by_their_similarity() -> None:
    """One at an angle of 0° outweighs two at 70°; those at more than 90° only decide where there is nobody else."""
    angles = np.deg2rad([0, 70, -70, 100, 110, 120])
    train = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    targets = np.array([1, 2, 2, 0, 0, 0])
    query = np.array([[1.0, 0.0]])
    assert knn_predictions(train, targets, query, 3, 3).tolist() == [1]
    assert knn_predictions(train[1:], targets[1:], query, 5, 3).tolist() == [2]
    assert knn_predictions(train[3:], np.array([0, 2, 2]), query, 3, 3).tolist() == [2]


@pytest.mark.parametrize(
    ("counts", "strength"),
    [((5, 0, 5), 0.01), ((5, 0, 4), 1.0), ((1, 0, 29), 1.0)],
    ids=["five of each class", "fewer", "one of a class"],
)
def test_the_strength_is_chosen_where_a_fifth_can_be_spared(counts: tuple[int, ...], strength: float) -> None:
    """Among equally good strengths the strongest regularization is taken; without a choice it is scikit-learn's own."""
    targets = np.repeat(np.arange(3), counts)
    vectors = (10 * np.eye(3)[targets] + np.random.default_rng(0).normal(size=(len(targets), 3))).astype(np.float32)
    found, chosen = linear_predictions(vectors, targets, vectors)
    assert chosen == strength
    assert (found == targets).mean() > 0.9


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
    assert wilson(20, 20)[1] == 1.0


def test_an_accuracy_is_told_in_percent_with_its_interval() -> None:
    assert accuracy_text(81, 263) == "30.8 % (95 % confidence: 25.5 to 36.6)"
    assert accuracy_text(0, 0) == "0.0 % (95 % confidence: 0.0 to 100.0)"
