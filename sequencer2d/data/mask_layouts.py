"""Where data sets keep their images and masks. One function a layout: from a folder and a split to pairs of files."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePath
from typing import NamedTuple

from sequencer2d.data.finding import LeftOut, images_below
from sequencer2d.data.folders import find_split
from sequencer2d.data.labels import SUFFIX
from sequencer2d.data.sources import SPLIT_ALIASES, shorten
from sequencer2d.errors import DataError

IMAGES, MASKS = "images", "masks"


class Pairs(NamedTuple):
    """Images and their masks, in the order of the images' names."""

    images: Path
    """The folder above all images."""
    files: list[str]
    """Paths of the images, relative to it."""
    masks: Path
    """The folder above all masks."""
    mask_files: list[str]
    """Paths of the masks, relative to it."""


Layout = Callable[[Path, str], Pairs]
"""(root, split) → the pairs. Raises `DataError` that says what was expected."""


def plain(root: Path, split: str) -> Pairs:
    """root/images/<split>/**/* and root/masks/<split>/**/*.png, of the same names; CamVid, and any other folder."""
    return _split_folders(root, split, IMAGES, MASKS)


def ade20k(root: Path, split: str) -> Pairs:
    """ADEChallengeData2016: images/training/ADE_train_*.jpg and annotations/training/ADE_train_*.png."""
    return _split_folders(_inner(root, "ADEChallengeData2016"), split, IMAGES, "annotations")


def cityscapes(root: Path, split: str) -> Pairs:
    """leftImg8bit/<split>/<city>/*_leftImg8bit.png and gtFine/<split>/<city>/*_gtFine_labelIds.png."""
    return _cityscapes(root, split, "_gtFine_labelIds")


def cityscapes_train_ids(root: Path, split: str) -> Pairs:
    """The same with *_gtFine_labelTrainIds.png, which Cityscapes' own scripts make."""
    return _cityscapes(root, split, "_gtFine_labelTrainIds")


def voc(root: Path, split: str) -> Pairs:
    """VOCdevkit/VOC2012: ImageSets/Segmentation/<split>.txt lists names in JPEGImages and SegmentationClass."""
    root = _inner(_inner(root, "VOCdevkit"), "VOC2012")
    lists = root / "ImageSets" / "Segmentation"
    path = next((lists / f"{name}.txt" for name in _names(split) if (lists / f"{name}.txt").is_file()), None)
    if path is None:
        raise DataError(f"{lists} has no {split}.txt; expected VOC's layout (JPEGImages, SegmentationClass) in {root}")
    names = path.read_text(encoding="utf-8").split()
    images, masks = root / "JPEGImages", root / "SegmentationClass"
    for folder, suffix in ((images, ".jpg"), (masks, SUFFIX)):
        there = set(images_below(folder, LeftOut())) if folder.is_dir() else set()
        missing = [name for name in names if f"{name}{suffix}" not in there]
        if missing or not names:
            raise DataError(
                f"{len(missing)} of {len(names)} files that {path} lists are not in {folder}: {shorten(missing, 3)}"
            )
    return Pairs(images, [f"{name}.jpg" for name in names], masks, [f"{name}{SUFFIX}" for name in names])


def _split_folders(root: Path, split: str, images: str, masks: str) -> Pairs:
    layout = f"{images}/<split>/<images> and {masks}/<split>/<masks>{SUFFIX}"
    for name in (images, masks):
        if not (root / name).is_dir():
            raise DataError(f"{root} has no folder {name}; expected {layout} in it")
    folder = find_split(root / images, split)
    own = root / masks / folder.relative_to(root / images)
    if not own.is_dir():
        raise DataError(f"{folder} has no masks: {own} is missing; expected {layout} in {root}")
    return _paired(folder, own)


def _cityscapes(root: Path, split: str, ending: str) -> Pairs:
    names = ("leftImg8bit", "gtFine")
    for name in names:
        if not (root / name).is_dir():
            raise DataError(
                f"{root} has no folder {name}; expected leftImg8bit/<split>/<city> and gtFine/<split>/<city>"
            )
    images = find_split(root / names[0], split)
    return _paired(images, root / names[1] / images.name, "_leftImg8bit", ending)


def _paired(images: Path, masks: Path, image_ending: str = "", mask_ending: str = "") -> Pairs:
    """All images below a folder, each with the mask of the same name. Both may have an ending before the suffix."""
    left_out = LeftOut()
    files = images_below(images, left_out)
    if not files:
        raise DataError(f"no images in {images}" + (f"; left out: {left_out}" if left_out else ""))
    found = images_below(masks, left_out) if masks.is_dir() else []
    of_name = dict(_names_of((path for path in found if path.lower().endswith(SUFFIX)), mask_ending))
    names = [name for name, _ in _names_of(files, image_ending)]
    missing = [file for file, name in zip(files, names, strict=True) if name not in of_name]
    if missing:
        suffix = f"the ending {mask_ending}{SUFFIX}" if mask_ending else f"the suffix {SUFFIX}"
        raise DataError(
            f"{len(missing)} of {len(files)} images in {images} have no mask in {masks}: {shorten(missing, 3)}; "
            f"expected a file of the same name with {suffix}"
        )
    if len(set(names)) < len(names):
        count = Counter(names)
        twice = [file for file, name in zip(files, names, strict=True) if count[name] > 1]
        raise DataError(f"images in {images} share a mask: {shorten(twice, 4)}; give each image a name of its own")
    for name in sorted(of_name.keys() - set(names)):
        left_out.add("masks without an image", of_name[name])
    left_out.report(images)
    return Pairs(images, files, masks, [of_name[name] for name in names])


def _names_of(paths: Iterable[str], ending: str) -> Iterator[tuple[str, str]]:
    """For each path with the ending: the path without suffix and ending, and the path itself."""
    for path in paths:
        name = str(PurePath(path).with_suffix(""))
        if name.endswith(ending):
            yield name.removesuffix(ending), path


def _inner(root: Path, name: str) -> Path:
    """The folder of this name in `root`, or `root` itself if it is that folder already."""
    return root / name if (root / name).is_dir() else root


def _names(split: str) -> tuple[str, ...]:
    return SPLIT_ALIASES.get(split, (split,))
