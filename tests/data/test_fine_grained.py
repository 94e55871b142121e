"""Flowers-102 and Stanford Cars in the files of their authors, small; CIFAR-100 in torchvision's."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from numpy.lib.recfunctions import repack_fields
from scipy.io import savemat

from sequencer2d.data.config import DataConfig
from sequencer2d.data.fingerprint import difference, fingerprint
from sequencer2d.data.loader import build_loader
from sequencer2d.data.opening import open_source
from sequencer2d.errors import DataError
from tests.data.images import make_folder, picture

SPLITS = {"trnid": [3, 1], "valid": [6, 4], "tstid": [2, 5, 7]}
LABELS = [1, 102, 2, 2, 101, 1, 3]
"""Of images 1 to 7, from 1, as in imagelabels.mat."""


def make_flowers(folder: Path) -> Path:
    (folder / "jpg").mkdir(parents=True)
    for number in range(1, 8):
        picture(number).save(folder / "jpg" / f"image_{number:05d}.jpg")
    savemat(folder / "setid.mat", {name: np.array([ids], dtype=np.uint16) for name, ids in SPLITS.items()})
    savemat(folder / "imagelabels.mat", {"labels": np.array([LABELS], dtype=np.uint8)})
    return folder


def make_cars(folder: Path, *, labels_in: str = "", nested: bool = False) -> Path:
    (folder / "devkit").mkdir(parents=True)
    names = np.array(["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "BMW M3 Coupe 2012"], dtype=object)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names[None]})
    for split, classes in {"train": [3, 1, 1, 2], "test": [2, 3]}.items():
        images = folder / f"cars_{split}" / (f"cars_{split}" if nested else "")
        images.mkdir(parents=True)
        boxes = [("bbox_x1", "u2"), ("bbox_y1", "u2"), ("bbox_x2", "u2"), ("bbox_y2", "u2")]
        table = np.zeros((1, len(classes)), dtype=[*boxes, ("class", "u1"), ("fname", "O")])
        for index, number in enumerate(classes):
            picture(10 * number + index).save(images / f"{index + 1:05d}.jpg")
            table[0, index] = (1, 1, 9, 9, number, f"{index + 1:05d}.jpg")
        file = folder / "devkit" / "cars_train_annos.mat"
        if split == "test":
            savemat(
                folder / "devkit" / "cars_test_annos.mat",
                {"annotations": repack_fields(table[[*dict(boxes), "fname"]])},
            )
            file = folder / labels_in / "cars_test_annos_withlabels.mat"
        savemat(file, {"annotations": table})
    return folder


def targets(source: Any) -> list[int]:
    return [source[index][1] for index in range(len(source))]


@pytest.mark.parametrize("folder", ["flowers-102", "102flowers", ""])
def test_flowers_by_their_splits_and_joined(tmp_path: Path, folder: str) -> None:
    make_flowers(tmp_path / folder)
    found = {split: open_source("torch:flowers102", split, root=str(tmp_path)) for split in ("train", "val", "test")}
    assert [targets(source) for source in found.values()] == [[1, 0], [0, 1], [101, 100, 2]]
    joined = open_source("torch:flowers102", "train+val", root=str(tmp_path))
    assert targets(joined) == [1, 0, 0, 1]
    assert [Path(joined.describe(i)).name[-6:] for i in range(4)] == ["03.jpg", "01.jpg", "06.jpg", "04.jpg"]
    assert joined.class_names == found["test"].class_names
    assert len(joined.class_names) == 102
    assert joined.class_names[0] == "pink primrose"
    with pytest.raises(IndexError):
        joined[4]
    before = fingerprint(joined)
    assert before["images"] == 4
    assert fingerprint(open_source("torch:flowers102", "train+val", root=str(tmp_path))) == before
    assert difference(before, fingerprint(open_source("torch:flowers102", "val+train", root=str(tmp_path))))
    assert joined.size_of(2) == (tmp_path / folder / "jpg" / "image_00006.jpg").stat().st_size


def test_flowers_are_those_of_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_flowers(tmp_path / "flowers-102")
    monkeypatch.setattr(torchvision.datasets.Flowers102, "_check_integrity", lambda self: True)
    for split in ("train", "val", "test"):
        theirs = torchvision.datasets.Flowers102(tmp_path, split)
        ours = open_source("torch:flowers102", split, root=str(tmp_path))
        assert len(ours) == len(theirs)
        for index in range(len(theirs)):
            image, target = theirs[index]
            assert ours[index][1] == target
            assert np.array_equal(np.asarray(ours[index][0]), np.asarray(image))


@pytest.mark.parametrize("options", [{}, {"labels_in": "devkit"}, {"nested": True}])
@pytest.mark.parametrize("folder", ["stanford_cars", ""])
def test_cars_by_their_splits(tmp_path: Path, folder: str, options: dict[str, Any]) -> None:
    make_cars(tmp_path / folder, **options)
    train, val, test = (
        open_source("torch:stanford_cars", split, root=str(tmp_path)) for split in ("train", "val", "test")
    )
    assert (targets(train), targets(val), targets(test)) == ([2, 0, 0, 1], [1, 2], [1, 2])
    assert train.class_names == ("AM General Hummer SUV 2000", "Acura RL Sedan 2012", "BMW M3 Coupe 2012")


def test_cars_are_those_of_torchvision(tmp_path: Path) -> None:
    make_cars(tmp_path / "stanford_cars")
    for split in ("train", "test"):
        theirs = torchvision.datasets.StanfordCars(tmp_path, split)
        ours = open_source("torch:stanford_cars", split, root=str(tmp_path))
        assert targets(ours) == [int(target) for _, target in theirs._samples]
        assert ours.class_names == tuple(theirs.classes)


def test_a_loader_reads_them(tmp_path: Path) -> None:
    make_flowers(tmp_path / "flowers-102")
    config = DataConfig("torch:flowers102", str(tmp_path), "train+val", "test", image_size=8, batch_size=2, workers=0)
    assert sum(len(images) for images, _ in build_loader(config, train=True)) == 4
    assert sum(len(images) for images, _ in build_loader(config, train=False)) == 3


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    def refusal(name: str, split: str) -> str:
        with pytest.raises(DataError) as caught:
            open_source(f"torch:{name}", split, root=str(tmp_path))
        return str(caught.value)

    assert "102flowers.tgz" in refusal("flowers102", "train")
    assert "cars_train/, cars_test/, devkit/" in refusal("stanford_cars", "train")
    flowers, cars = make_flowers(tmp_path / "flowers-102"), make_cars(tmp_path / "stanford_cars")
    assert "no split 'future'" in refusal("flowers102", "future")
    (flowers / "jpg" / "image_00003.jpg").unlink()
    assert "1 of flowers102[train]'s 2 images are not in" in refusal("flowers102", "train")
    savemat(flowers / "imagelabels.mat", {"labels": np.array([LABELS[:3]])})
    assert "imagelabels.mat does not: there are 3" in refusal("flowers102", "test")
    (flowers / "setid.mat").write_bytes(b"MATLAB 5.0 but not really")
    assert "no readable MATLAB file" in refusal("flowers102", "train")
    savemat(flowers / "setid.mat", {"other": [1]})
    assert "no variable 'trnid'" in refusal("flowers102", "train")
    (cars / "cars_test_annos_withlabels.mat").unlink()
    assert "devkit/cars_test_annos.mat has no classes" in refusal("stanford_cars", "test")
    (cars / "devkit" / "cars_test_annos.mat").rename(cars / "cars_test_annos_withlabels.mat")
    assert "no fields fname and class" in refusal("stanford_cars", "test")


def test_splits_of_a_folder_are_joined_if_their_classes_agree(tmp_path: Path) -> None:
    make_folder(tmp_path, {"train": {"a": 2, "b": 1}, "val": {"a": 1, "b": 2}, "odd": {"a": 1, "c": 1}})
    assert targets(open_source(str(tmp_path), "train+val")) == [0, 0, 1, 0, 1, 1]
    with pytest.raises(DataError, match="only in the other: c"):
        open_source(str(tmp_path), "train+odd")


def make_cifar100(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two training images and one of the test, as the Toronto server packs them; torchvision checks other sums then."""
    folder = root / "cifar-100-python"
    folder.mkdir()

    def write(name: str, content: dict[str, Any]) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    pixels = np.random.default_rng(0).integers(0, 256, (3, 3072), dtype=np.uint8)
    sums = {
        "train": write("train", {"data": pixels[:2], "fine_labels": [99, 3], "coarse_labels": [0, 1]}),
        "test": write("test", {"data": pixels[2:], "fine_labels": [42], "coarse_labels": [0]}),
    }
    meta = write("meta", {"fine_label_names": [f"class {i}" for i in range(100)]})
    cifar100 = torchvision.datasets.CIFAR100
    monkeypatch.setattr(cifar100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(cifar100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(cifar100, "meta", {**cifar100.meta, "md5": meta})


def test_cifar100_and_its_splits_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_cifar100(tmp_path, monkeypatch)
    train, val, test = (open_source("torch:cifar100", split, root=str(tmp_path)) for split in ("train", "val", "test"))
    assert (targets(train), targets(val), targets(test)) == ([99, 3], [42], [42])
    assert len(train.class_names) == 100
    assert train[0][0].size == (32, 32)
    with pytest.raises(DataError, match="splits train and test"):
        open_source("torch:cifar100", "trian", root=str(tmp_path))
