"""Frozen features of images: vectors, nearest neighbors, and how well a simple classifier does on them."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sequencer2d.data.batches import normalize
from sequencer2d.data.given import GivenImage
from sequencer2d.errors import DataError, InputError, first_line
from sequencer2d.evaluation.predict import for_each
from sequencer2d.evaluation.subject import Subject
from sequencer2d.files import atomic_write
from sequencer2d.tasks import CLASSIFICATION

STRENGTHS = (0.01, 0.1, 1.0, 10.0)
"""Inverse strengths of L2 regularization that the linear probe chooses from."""


@dataclass(frozen=True)
class Features:
    """Features of images.

    Attributes:
        vectors: float32 (N, D), as the model's pooled features before the classifier.
        paths: (N,) the images.
        model: name of the model that made them.
        weights: hash of its weights; see `digest_of`.
    """

    vectors: np.ndarray
    paths: tuple[str, ...]
    model: str
    weights: str

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all of it as an .npz file, which `numpy.load` reads without pickles."""
        paths, model, weights = map(np.array, (self.paths, self.model, self.weights))
        with atomic_write(path) as file:
            np.savez_compressed(file, vectors=self.vectors, paths=paths, model=model, weights=weights)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> "Features":
        """Read what `save` wrote. Raises `DataError` for anything else."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                about = (str(stored["model"]), str(stored["weights"]))
                found = Features(stored["vectors"], tuple(stored["paths"].tolist()), *about)
        except Exception as error:  # zipfile, struct, pickle refusals, missing entries
            raise DataError(
                f"{path} holds no features ({first_line(error)}); write them with sequencer2d embed"
            ) from error
        if found.vectors.ndim != 2 or len(found.vectors) != len(found.paths):
            raise DataError(f"{path} holds {found.vectors.shape} features for {len(found.paths)} images")
        return found


def embed(
    subject: Subject,
    images: GivenImage | Iterable[GivenImage],
    *,
    device: torch.device | str = "cpu",
    amp_dtype: torch.dtype | None = None,
    batch_size: int = 32,
) -> Iterator[tuple[str, np.ndarray | None, str | None]]:
    """Compute the pooled features of images, the input of the classifier.

    Args:
        subject: a classifier. Its model is moved to `device` and put in evaluation mode.
        images: as for `evaluation.predict.predict`.
        device: where the model runs.
        amp_dtype: autocast to this dtype; none: the model's own.
        batch_size: images in one forward pass.

    Yields:
        (path, float32 (D,), None), or (path, None, why it cannot be read), in the order of the images.

    Raises:
        InputError: a model that does not tell its features, such as an exported one; or features that are not finite.
    """
    device = torch.device(device)
    model: Any = subject.model
    if not (hasattr(model, "forward_features") and hasattr(model, "forward_head")):
        raise InputError(f"{subject.name} does not expose its features; give a checkpoint of a classifier")
    model = model.to(device).eval()
    config = subject.data

    def find(pixels: Tensor, sizes: list[tuple[int, int]]) -> list[np.ndarray]:
        with torch.autocast(device.type, dtype=amp_dtype, enabled=amp_dtype is not None):
            maps = model.forward_features(normalize(pixels, config.mean, config.std, device=device))
            vectors = model.forward_head(maps, pre_logits=True).float().cpu().numpy()
        if not np.isfinite(vectors).all():
            raise InputError(f"the features of {subject.name} are not finite; try --precision fp32")
        return list(vectors)

    yield from for_each(images, config, CLASSIFICATION.samples.eval_transform(config), find, batch_size)


def digest_of(model: nn.Module) -> str:
    """A hash of a model's weights, so that features of two models are not compared."""
    found = hashlib.blake2b(digest_size=8)
    for name, value in model.state_dict().items():
        found.update(name.encode())
        found.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (N, D) of length 1; those of length 0 stay 0."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


def nearest(queries: np.ndarray, vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest vectors by cosine similarity.

    Args:
        queries: float32 (Q, D).
        vectors: float32 (N, D).
        count: neighbors of each query, at most N.

    Returns:
        Indices int64 (Q, count), the most similar first, and similarities float32 (Q, count), -1 to 1.
    """
    similarity = unit(queries) @ unit(vectors).T
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
    return order, np.take_along_axis(similarity, order, axis=1)


def knn_predictions(
    train: np.ndarray, targets: np.ndarray, queries: np.ndarray, neighbors: int, classes: int
) -> np.ndarray:
    """Classes int64 (Q,) by a vote of the nearest training vectors, weighted by their similarity."""
    indices, similarity = nearest(queries, train, neighbors)
    votes = np.zeros((len(queries), classes), np.float64)
    np.add.at(votes, (np.arange(len(queries))[:, None], targets[indices]), np.maximum(similarity, 0) + 1e-9)
    return votes.argmax(axis=1)


def linear_predictions(
    train: np.ndarray, targets: np.ndarray, queries: np.ndarray, seed: int = 0
) -> tuple[np.ndarray, float]:
    """Classes (Q,) by logistic regression (scikit-learn), and the inverse strength of its L2 regularization.

    Features are standardized. The strength is the best of `STRENGTHS` on a fifth of the training images, which are
    then all trained on.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def fitted(strength: float, vectors: np.ndarray, labels: np.ndarray) -> Any:
        return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000)).fit(vectors, labels)

    counts = np.bincount(targets)
    can_split = counts[counts > 0].min() >= 2 and len(targets) >= 5 * (counts > 0).sum()
    strength = 1.0
    if can_split:
        inner, held, inner_y, held_y = train_test_split(
            train, targets, test_size=0.2, random_state=seed, stratify=targets
        )
        strength = max(STRENGTHS, key=lambda c: fitted(c, inner, inner_y).score(held, held_y))
    return fitted(strength, train, targets).predict(queries), strength
