"""Data sets that timm's readers give random access to: Hugging Face's and torchvision's."""

import contextlib
import functools
import importlib.util
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from sequencer2d.data.fine_grained import FINE_GRAINED
from sequencer2d.data.images import UPRIGHT, BrokenImageError, Decoding, decode, to_rgb
from sequencer2d.data.sources import Source
from sequencer2d.errors import DataError

_TARGETS = ("targets", "labels", "_labels")
"""Under which attribute torchvision's data sets list the targets."""
TWO_SPLITS = ("cifar10", "cifar100", "mnist", "kmnist", "fashion_mnist", "qmnist")
"""Data sets of torchvision whose test images timm would give for any name that is not `train`."""
TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "val", "valid", "validation", "eval", "evaluation")


def open_external(
    kind: str, name: str, split: str, *, root: str = "", download: bool = False, decoding: Decoding = UPRIGHT
) -> Source:
    """A data set by name, through timm or, where timm lacks it, by `fine_grained`.

    Args:
        kind: "hfds" (needs the package `datasets`) or "torch" (torchvision).
        name: the data set's name, for "hfds" also the path of a folder.
        split: its name there; "val" becomes "validation" or "test" where a Hugging Face data set calls it so.
        root: where it is stored; for "hfds" the cache, or "" for the usual one.
        download: fetch it if it is not there; otherwise nothing touches the network.
        decoding: how image files become pixels.

    Raises:
        DataError: not there, unknown, or without class labels.
    """
    if kind == "hfds" and importlib.util.find_spec("datasets") is None:
        raise DataError(f"hfds:{name} needs the package datasets: pip install datasets")
    if kind == "torch" and not root:
        raise DataError(f"torch:{name} needs data.root, the folder that holds (or shall hold) the data set")
    if kind == "torch" and name.lower() in FINE_GRAINED:
        return FINE_GRAINED[name.lower()](split, root=root, download=download, decoding=decoding)
    if kind == "torch" and name.lower() in TWO_SPLITS and split not in (*TRAIN_NAMES, *TEST_NAMES):
        raise DataError(f"torch:{name} has the splits train and test (also called val), not {split!r}")
    try:
        with contextlib.nullcontext() if download or kind != "hfds" else _offline():
            return ExternalSource(_create(kind, name, split, root, download), f"{kind}:{name}[{split}]", decoding)
    except DataError:
        raise
    except Exception as error:  # the libraries raise anything: ValueError, AssertionError, OSError, their own classes
        hint = "" if download else "; if it has not been fetched yet, set data.download=true"
        raise DataError(f"cannot open {kind}:{name}, split {split!r}: {type(error).__name__}: {error}{hint}") from error


class ExternalSource:
    """A data set of timm (`ImageDataset`) or torchvision as a `Source`.

    torchvision's `ImageFolder` and its kind read their files through `decode`; its other data sets decode their own.

    Raises:
        DataError: it is empty or states no classes.
    """

    def __init__(self, dataset: Any, name: str, decoding: Decoding = UPRIGHT) -> None:
        self._dataset, self._name, self.decoding = dataset, name, decoding
        from torchvision.datasets import DatasetFolder

        if isinstance(dataset, DatasetFolder):
            dataset.loader = functools.partial(decode, decoding=decoding)
        self._reader = getattr(dataset, "reader", None)
        self.class_names = _class_names(dataset)
        if not len(dataset):
            raise DataError(f"{name} holds no images")
        if not self.class_names:
            raise DataError(f"{name} states no class labels; expected a classification data set")

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if self._reader is not None:
            file, target = self._reader[index]
            with file:
                return decode(file, self.decoding), self._checked(target)
        try:
            image, target = self._dataset[index]
            return to_rgb(image, self.decoding), self._checked(target)
        except (OSError, ValueError, SyntaxError) as error:
            raise BrokenImageError(f"{type(error).__name__}: {error}") from error

    def _checked(self, target: Any) -> int:
        """Test splits of the hub have −1 where labels are withheld."""
        if not 0 <= int(target) < len(self.class_names):
            raise BrokenImageError(f"its class is {int(target)}, expected 0 to {len(self.class_names) - 1}")
        return int(target)

    def describe(self, index: int) -> str:
        """Name of the data set and number of the image."""
        return f"{self._name}[{index}]"

    def identities(self) -> tuple[Sequence[bytes], np.ndarray]:
        """No names, and targets; all 0 where the data set does not list them."""
        return [b""] * len(self), _targets_of(self._dataset, len(self))

    def size_of(self, index: int) -> object:
        """Bytes of the image's file, or (width, height)."""
        try:
            if self._reader is None:
                return self._dataset[index][0].size
            file, _ = self._reader[index]
            with file:
                return file.seek(0, os.SEEK_END)
        except (OSError, ValueError, SyntaxError, AttributeError):
            return -1


def _create(kind: str, name: str, split: str, root: str, download: bool) -> Any:
    from timm.data import create_dataset

    options: dict[str, Any] = {"download": download} if kind == "torch" else {}
    names = (split, "validation", "test") if kind == "hfds" and split == "val" else (split,)
    for number, candidate in enumerate(names):
        try:
            return create_dataset(f"{kind}/{name}", root=root or None, split=candidate, **options)
        except ValueError as error:
            if "split" not in str(error) or number == len(names) - 1:
                raise
    raise AssertionError("unreachable")


def _class_names(dataset: Any) -> tuple[str, ...]:
    if hasattr(dataset, "classes"):
        return tuple(str(name) for name in dataset.classes)
    indices = getattr(dataset.reader, "class_to_idx", {})
    return tuple(sorted(indices, key=indices.__getitem__))


def _targets_of(dataset: Any, length: int) -> np.ndarray:
    reader = getattr(dataset, "reader", None)
    listed: Any = next((getattr(dataset, name) for name in _TARGETS if hasattr(dataset, name)), None)
    if reader is not None and hasattr(reader, "dataset") and hasattr(reader, "label_key"):
        listed = reader.dataset[reader.label_key]
    try:
        targets = np.asarray(listed, dtype=np.int64)
    except (TypeError, ValueError):
        targets = np.zeros(0, np.int64)
    return targets if targets.shape == (length,) and (targets >= 0).all() else np.zeros(length, np.int64)


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Keep `datasets` and the hub's client off the network. Their switches are read when a data set is opened."""
    import datasets
    import huggingface_hub.constants

    switches = [(datasets.config, "HF_HUB_OFFLINE"), (huggingface_hub.constants, "HF_HUB_OFFLINE")]
    before = [getattr(module, name) for module, name in switches]
    for module, name in switches:
        setattr(module, name, True)
    try:
        yield
    finally:
        for (module, name), value in zip(switches, before, strict=True):
            setattr(module, name, value)
