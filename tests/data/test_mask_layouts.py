"""Data sets in their official layouts: which files belong together, what the values in their masks mean."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sequencer2d.data.config import DataConfig
from sequencer2d.data.mask_sets import MASK_SETS
from sequencer2d.data.segmentation import open_masks
from sequencer2d.errors import DataError
from tests.data.images import picture

SIZE = (24, 32)
"""Height and width of the images."""


def blocks(values: list[int]) -> np.ndarray:
    """A mask of SIZE whose columns hold the values, in equal shares."""
    return np.array(values, np.uint8).repeat(-(-SIZE[1] // len(values)))[: SIZE[1]][None].repeat(SIZE[0], 0)


def save(image: Path, mask: Path, labels: np.ndarray) -> None:
    """A picture and its mask, with a palette as VOC's have."""
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    picture(len(image.name), SIZE[::-1]).save(image)
    colored = Image.fromarray(labels)
    colored.putpalette([channel for k in range(256) for channel in (k, 255 - k, 7 * k % 256)])
    colored.save(mask)


def write_ade20k(root: Path) -> None:
    """0 is everything else; the classes are 1 to 150."""
    for split, short, count in (("training", "train", 5), ("validation", "val", 2)):
        for number in range(1, count + 1):
            name = f"ADE_{short}_{number:08d}"
            inner = root / "ADEChallengeData2016"
            image = inner / "images" / split / f"{name}.jpg"
            save(image, inner / "annotations" / split / f"{name}.png", blocks([0, 1, 3, 150]))
    (root / "ADEChallengeData2016/objectInfo150.txt").write_text("Idx\tRatio\n")


def write_cityscapes(root: Path) -> None:
    """Ids from 0 to 33, and the numbers of classes beside them."""
    ids, train_ids = blocks([0, 7, 11, 33]), blocks([255, 0, 2, 18])
    for split, cities in (("train", ("aachen", "bochum")), ("val", ("lindau",))):
        for city in cities:
            for number in range(2):
                name = f"{city}_{number:06d}_000019"
                image = root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png"
                fine = root / "gtFine" / split / city
                save(image, fine / f"{name}_gtFine_labelIds.png", ids)
                Image.fromarray(train_ids).save(fine / f"{name}_gtFine_labelTrainIds.png")
                Image.fromarray(ids).convert("RGB").save(fine / f"{name}_gtFine_color.png")
                (fine / f"{name}_gtFine_polygons.json").write_text("{}")


def write_voc(root: Path) -> None:
    """0 is the background, a class; 255 the rim of objects."""
    inner = root / "VOCdevkit" / "VOC2012"
    for number in range(6):
        mask = inner / "SegmentationClass" / f"2007_{number:06d}.png"
        save(inner / "JPEGImages" / f"2007_{number:06d}.jpg", mask, blocks([255, 0, 2, 20]))
    picture(0, SIZE[::-1]).save(inner / "JPEGImages" / "2008_000000.jpg")  # of detection, without a mask
    lists = inner / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_000000\n2007_000001\n2007_000003\n2007_000005\n")
    (lists / "val.txt").write_text("2007_000002\n2007_000004\n")


def write_ade20k_parquet(root: Path) -> None:
    """As on the Hugging Face hub: a folder for each split, images and masks as files in cells."""
    datasets = pytest.importorskip("datasets")
    write_ade20k(root / "files")
    inner = root / "files/ADEChallengeData2016"
    for split, folder in (("training", "train"), ("validation", "validation")):
        images = sorted((inner / "images" / split).iterdir())
        masks = [inner / "annotations" / split / f"{path.stem}.png" for path in images]
        rows = {
            name: [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
            for name, paths in (("image", images), ("annotation", masks))
        }
        features = datasets.Features(
            {"image": datasets.Image(), "annotation": datasets.Image(), "scene_category": datasets.Value("int64")}
        )
        table = datasets.Dataset.from_dict({**rows, "scene_category": [0] * len(images)}, features=features)
        for subset in ("scene_parsing", "instance_segmentation"):
            target = root / "hub" / subset / folder / "0000.parquet"
            target.parent.mkdir(parents=True)
            table.to_parquet(str(target))


SETS: dict[str, tuple[str, str, Callable[[Path], None], list[int], int]] = {
    "ade20k": ("ade20k", "", write_ade20k, [255, 0, 2, 149], 150),
    "ade20k, parquet": ("ade20k", "hub", write_ade20k_parquet, [255, 0, 2, 149], 150),
    "cityscapes": ("cityscapes", "", write_cityscapes, [255, 0, 2, 18], 19),
    "cityscapes_train_ids": ("cityscapes_train_ids", "", write_cityscapes, [255, 0, 2, 18], 19),
    "voc": ("voc", "", write_voc, [255, 0, 2, 20], 21),
}
"""Name of the source, folder below the root, what writes it, the labels of its masks, its classes."""


@pytest.mark.parametrize("name", SETS)
def test_official_layouts_are_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    source, folder, write, labels, classes = SETS[name]
    write(tmp_path)
    for split, count in (("train", 5 if "ade" in name else 4), ("val", 2)):
        opened = open_masks(DataConfig(source=source, root=str(tmp_path / folder)), split)
        assert len(opened) == count
        assert len(set(opened.class_names)) == classes
        image, mask = opened[count - 1]
        assert (image.mode, image.size, mask.mode) == ("RGB", SIZE[::-1], "L")
        np.testing.assert_array_equal(np.asarray(mask), blocks(labels))
        assert min(opened.size_of(0)) > 50
        assert str(tmp_path) in opened.describe(0)


def test_the_folder_inside_of_an_archive_is_taken_too(tmp_path: Path) -> None:
    write_ade20k(tmp_path)
    write_voc(tmp_path)
    for source, folder in (("ade20k", "ADEChallengeData2016"), ("voc", "VOCdevkit"), ("voc", "VOCdevkit/VOC2012")):
        assert len(open_masks(DataConfig(source=source, root=str(tmp_path / folder)), "val")) == 2


@pytest.mark.parametrize(
    ("source", "write", "spoil", "message"),
    [
        ("ade20k", write_cityscapes, "", "has no folder images; expected images/<split>/<images> and annotations/"),
        ("ade20k", write_ade20k, "ADEChallengeData2016/annotations/training/ADE_train_00000002.png", "have no mask in"),
        ("cityscapes", write_voc, "", "has no folder leftImg8bit; expected leftImg8bit/<split>/<city> and gtFine"),
        (
            "cityscapes",
            write_cityscapes,
            "gtFine/train/bochum/bochum_000001_000019_gtFine_labelIds.png",
            r"1 of 4 images .* expected a file of the same name with the ending _gtFine_labelIds\.png",
        ),
        ("voc", write_ade20k, "", r"has no train\.txt; expected VOC's layout"),
        ("voc", write_voc, "VOCdevkit/VOC2012/SegmentationClass/2007_000003.png", r"1 of 4 files that .*: 2007_000003"),
    ],
)
def test_what_is_missing_is_said(
    source: str, write: Callable[[Path], None], spoil: str, message: str, tmp_path: Path
) -> None:
    write(tmp_path)
    if spoil:
        (tmp_path / spoil).unlink()
    with pytest.raises(DataError, match=message) as error:
        open_masks(DataConfig(source=source, root=str(tmp_path)), "train")
    assert "\n" not in str(error.value)


def test_parquet_files_without_the_split_or_the_columns_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.Dataset.from_dict({"text": ["a"]}).to_parquet(str(tmp_path / "train-00000-of-00001.parquet"))
    with pytest.raises(DataError, match=r"have the columns text; expected image"):
        open_masks(DataConfig(source="ade20k", root=str(tmp_path)), "train")
    with pytest.raises(DataError, match=r"no Parquet files of the split 'val' in .*train-00000-of-00001\.parquet"):
        open_masks(DataConfig(source="ade20k", root=str(tmp_path)), "val")


def test_classes_of_known_sets_are_in_their_official_order() -> None:
    names = {source: known.class_names for source, known in MASK_SETS.items()}
    assert [names["ade20k"][k] for k in (0, 2, 12, 20, 149)] == ["wall", "sky", "person", "car", "flag"]
    assert [names["voc"][k] for k in (0, 1, 15, 20)] == ["background", "aeroplane", "person", "tvmonitor"]
    assert [names["cityscapes"][k] for k in (0, 10, 13, 18)] == ["road", "sky", "car", "bicycle"]
    for known in MASK_SETS.values():
        assert len(set(known.class_names)) == known.rules.num_classes
