"""Flowers-102 and Stanford Cars in the files in which their authors distribute them, MATLAB's tables included.

    flowers-102/  jpg/image_00001.jpg …        unpacked from 102flowers.tgz
                  imagelabels.mat, setid.mat
    stanford_cars/  cars_train/00001.jpg …, cars_test/00001.jpg …
                    devkit/cars_meta.mat, devkit/cars_train_annos.mat
                    cars_test_annos_withlabels.mat     here or in devkit/

The folder above them, or the one that holds these files itself, is `data.root`. torchvision uses the same layout.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sequencer2d.data.image_files import ImageFiles
from sequencer2d.data.images import UPRIGHT, Decoding
from sequencer2d.errors import DataError, how_to_install

FLOWERS_SPLITS = {"train": "trnid", "val": "valid", "validation": "valid", "valid": "valid", "test": "tstid"}
"""Name of each split in setid.mat."""
CARS_SPLITS = {"train": "train", **dict.fromkeys(("test", "val", "validation", "valid"), "test")}
"""There is no validation split: whoever asks for one gets the test images."""
CARS_FIELDS = ("fname", "class")


class ListedSource(ImageFiles):
    """Images whose files and targets a table lists.

    Args:
        name: for messages.
        folder: of the images.
        files: (N,) names of the files in it.
        targets: (N,) class indices.
        class_names: name of each class.
        decoding: how image files become pixels.

    Raises:
        DataError: no images, files that are missing, or targets that are no classes.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        files: Sequence[str],
        targets: np.ndarray,
        class_names: Sequence[str],
        decoding: Decoding = UPRIGHT,
    ) -> None:
        present = {path.name for path in folder.iterdir()}
        if missing := [file for file in files if file not in present]:
            raise DataError(f"{len(missing)} of {name}'s {len(files)} images are not in {folder}: {missing[0]}, …")
        if not len(files) or targets.min() < 0 or targets.max() >= len(class_names):
            raise DataError(f"{name} lists {len(files)} images, or classes beyond its {len(class_names)}")
        super().__init__(folder, files, targets, class_names, decoding)


def open_flowers102(
    split: str, *, root: str | os.PathLike[str], download: bool = False, decoding: Decoding = UPRIGHT
) -> ListedSource:
    """Oxford's 102 flowers (Nilsback and Zisserman 2008): splits train (1,020 images), val (1,020) and test (6,149).

    The paper trains on `train+val` and tests on `test`.

    Args:
        split: its name.
        root: the folder that holds `flowers-102/`, or its files.
        download: fetch the files by torchvision if they are not there.
        decoding: how image files become pixels.

    Raises:
        DataError: no such split, files that are missing or damaged, or scipy is not installed.
    """
    key = _known(split, FLOWERS_SPLITS, "flowers102")
    files = ("setid.mat", "imagelabels.mat")
    folder = _find_folder(root, ("flowers-102", "102flowers", ""), files)
    if folder is None and download:
        _download_flowers(root)
        folder = _find_folder(root, ("flowers-102",), files)
    if folder is None or not (folder / "jpg").is_dir():
        raise DataError(
            f"no Flowers-102 in {root}: expected flowers-102/ with jpg/ (unpacked from 102flowers.tgz), "
            "imagelabels.mat and setid.mat, as its authors distribute them; data.download=true fetches them"
        )
    numbers = _array(folder / "setid.mat", key)
    labels = _array(folder / "imagelabels.mat", "labels")
    if numbers.size and not 1 <= numbers.min() <= numbers.max() <= labels.size:
        raise DataError(f"{folder / 'setid.mat'} names images that imagelabels.mat does not: there are {labels.size}")
    names = [f"image_{number:05d}.jpg" for number in numbers]
    return ListedSource(
        f"flowers102[{split}]", folder / "jpg", names, labels[numbers - 1] - 1, _flower_names(labels), decoding
    )


def open_stanford_cars(
    split: str, *, root: str | os.PathLike[str], download: bool = False, decoding: Decoding = UPRIGHT
) -> ListedSource:
    """Stanford's cars (Krause et al. 2013): 196 classes, splits train (8,144 images) and test (8,041).

    Args:
        split: its name; `val` is the test split, as there is no other.
        root: the folder that holds `stanford_cars/`, or its files.
        download: not possible: their authors' server no longer has them.
        decoding: how image files become pixels.

    Raises:
        DataError: no such split, files that are missing or damaged, or scipy is not installed.
    """
    key = _known(split, CARS_SPLITS, "stanford_cars")
    folder = _find_folder(root, ("stanford_cars", ""), ("devkit/cars_meta.mat",))
    if folder is None:
        raise DataError(
            f"no Stanford Cars in {root}: expected stanford_cars/ with cars_train/, cars_test/, devkit/ and "
            "cars_test_annos_withlabels.mat, as their authors distributed them"
            + ("; they can no longer be downloaded from their authors" if download else "")
        )
    table = "cars_train_annos.mat" if key == "train" else "cars_test_annos_withlabels.mat"
    found = [path for path in (folder / "devkit" / table, folder / table) if path.is_file()]
    if not found:
        hint = "" if key == "train" else " (devkit/cars_test_annos.mat has no classes)"
        raise DataError(f"{folder} has no {table}, here or in devkit/{hint}")
    images = [path for path in (folder / f"cars_{key}" / f"cars_{key}", folder / f"cars_{key}") if path.is_dir()]
    if not images:
        raise DataError(f"{folder} has no folder cars_{key} of images; unpack cars_{key}.tgz there")
    files, targets = _annotations(found[0])
    classes = [str(name) for name in _array(folder / "devkit" / "cars_meta.mat", "class_names")]
    return ListedSource(f"stanford_cars[{split}]", images[0], files, targets - 1, classes, decoding)


FINE_GRAINED: dict[str, Callable[..., ListedSource]] = {
    "flowers102": open_flowers102,
    "stanford_cars": open_stanford_cars,
}
"""Data sets by the name that follows `torch:`."""


def _known(split: str, names: dict[str, str], data_set: str) -> str:
    if split not in names:
        raise DataError(f"{data_set} has no split {split!r}; there are {', '.join(dict.fromkeys(names))}")
    return names[split]


def _find_folder(root: str | os.PathLike[str], below: Sequence[str], files: Sequence[str]) -> Path | None:
    """The first of the folders below `root` that has all the files."""
    folders = [Path(root, name) for name in below]
    return next((folder for folder in folders if all((folder / file).is_file() for file in files)), None)


def _array(path: Path, key: str) -> np.ndarray:
    """One variable of a MATLAB file, flat."""
    try:
        return np.atleast_1d(_loadmat(path)[key])
    except KeyError:
        raise DataError(f"{path} has no variable {key!r}: it is not the file of this data set") from None


def _annotations(path: Path) -> tuple[list[str], np.ndarray]:
    """Names of the files (without folders) and classes, from 1, of the cars' table of images."""
    table = _array(path, "annotations")
    if table.dtype.names is None or not set(CARS_FIELDS) <= set(table.dtype.names):
        raise DataError(f"{path} has no fields {' and '.join(CARS_FIELDS)}: it is not the cars' table with classes")
    files, classes = (table[name].tolist() for name in CARS_FIELDS)
    return [Path(str(file)).name for file in files], np.array(classes, dtype=np.int64)


def _loadmat(path: Path) -> dict[str, Any]:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise DataError(f"{path.name} needs scipy: {how_to_install('data')}") from error
    try:
        return loadmat(path, squeeze_me=True)
    except Exception as error:  # scipy raises anything for a damaged file
        raise DataError(f"{path} is no readable MATLAB file: {error}") from error


def _flower_names(labels: np.ndarray) -> tuple[str, ...]:
    """torchvision knows the flowers' names; the distributed files only have numbers, which serve otherwise."""
    from torchvision.datasets import Flowers102

    names = getattr(Flowers102, "classes", ())
    count = int(labels.max())
    return tuple(names) if len(names) == count else tuple(str(number + 1) for number in range(count))


def _download_flowers(root: str | os.PathLike[str]) -> None:
    from torchvision.datasets import Flowers102

    try:
        Flowers102(root, download=True)
    except Exception as error:  # whatever the network and the checksums bring
        raise DataError(f"cannot fetch Flowers-102: {type(error).__name__}: {error}") from error
