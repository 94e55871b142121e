from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets as torchvision_datasets

from sequencer2d.data.opening import open_source
from sequencer2d.errors import DataError
from tests.data.images import make_folder, picture


def test_folder_through_torchvision(tmp_path: Path) -> None:
    make_folder(tmp_path, {"train": {"a": 2, "b": 1}})
    source = open_source("torch:image_folder", "train", root=str(tmp_path))
    assert source.class_names == ("a", "b")
    assert [source[i][1] for i in range(3)] == [0, 0, 1]
    assert np.array_equal(np.asarray(source[1][0]), np.asarray(picture(1)))
    assert source.describe(1) == "torch:image_folder[train][1]"


def test_grayscale_data_set_of_torchvision_becomes_rgb(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, (images, targets) in {"train": (4, [3, 1, 4, 1]), "t10k": (2, [5, 9])}.items():
        pixels = torch.arange(images * 28 * 28).reshape(images, 28, 28) % 251
        write_idx(raw / f"{name}-images-idx3-ubyte", pixels.to(torch.uint8))
        write_idx(raw / f"{name}-labels-idx1-ubyte", torch.tensor(targets, dtype=torch.uint8))
    assert len(torchvision_datasets.MNIST(tmp_path)) == 4
    train, val = (open_source("torch:mnist", split, root=str(tmp_path)) for split in ("train", "val"))
    assert (len(train), len(val), val[1][1]) == (4, 2, 9)
    assert (train[0][0].mode, len(train.class_names)) == ("RGB", 10)


def write_idx(path: Path, values: torch.Tensor) -> None:
    """MNIST's own file format: magic number, sizes (big-endian), bytes."""
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(header + values.numpy().tobytes())


def test_what_is_not_there_is_not_fetched(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.download=true"):
        open_source("torch:cifar10", "train", root=str(tmp_path))
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match=r"needs data\.root"):
        open_source("torch:cifar10", "train")
    with pytest.raises(DataError, match="cannot open torch:imaginary"):
        open_source("torch:imaginary", "train", root=str(tmp_path))


def test_folder_through_hugging_face_datasets(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    make_folder(tmp_path / "images", {"train": {"a": 2, "b": 1}, "test": {"a": 1, "b": 1}})
    cache = str(tmp_path / "cache")
    train, val = (open_source(f"hfds:{tmp_path / 'images'}", split, root=cache) for split in ("train", "val"))
    assert (len(train), len(val), train.class_names) == (3, 2, ("a", "b"))
    assert sorted(train[i][1] for i in range(3)) == [0, 0, 1]
    assert np.array_equal(np.asarray(train[0][0]), np.asarray(picture(0)))


def test_hugging_face_names_are_not_looked_up_unasked() -> None:
    pytest.importorskip("datasets")
    with pytest.raises(DataError, match=r"data\.download=true"):
        open_source("hfds:nobody/nothing", "train")
