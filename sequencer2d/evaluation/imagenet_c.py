"""ImageNet-C as its authors released it (Hendrycks and Dietterich 2019), and mCE from it.

The release holds the 50,000 validation images under 15 corruptions at 5 severities as JPEG files of 224 pixels:
<corruption>/<severity>/<class>/*.JPEG, the class being a WordNet identifier. As in the paper they are read with a crop
of 1.0: nothing is cut off that the corrupted image still holds.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL.Image import Image

from sequencer2d.data.folders import FolderSource
from sequencer2d.data.images import PUBLISHED
from sequencer2d.data.loader import Loader
from sequencer2d.data.sampler import ResumableSampler
from sequencer2d.data.sources import Source, shorten
from sequencer2d.data.words import imagenet_wnids
from sequencer2d.errors import DataError
from sequencer2d.evaluation.corruptions import CORRUPTIONS, SEVERITIES
from sequencer2d.evaluation.mce import CorruptionResult, cell_figures, check_names
from sequencer2d.evaluation.outcomes import logits_of, outcomes_of
from sequencer2d.evaluation.pixels import Progress, choose, match_classes
from sequencer2d.evaluation.subject import Subject
from sequencer2d.tasks.accuracy import concatenate

LAYOUT = "<corruption>/<severity>/<class>/*.JPEG"
RELEASED_IMAGES = 50_000  # of each corruption and severity

Cell = tuple[str, int]


@dataclass(frozen=True)
class Release:
    """The images of each corruption and severity.

    Attributes:
        root: its folder.
        corruptions, severities: those that were asked for.
        cells: the images of each; the same classes and as many images in all of them.
    """

    root: Path
    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    cells: dict[Cell, FolderSource]

    def __len__(self) -> int:
        """Images of one cell."""
        return len(self.any_cell)

    @property
    def any_cell(self) -> FolderSource:
        """One of the cells, for what they share."""
        return next(iter(self.cells.values()))

    @property
    def complete(self) -> bool:
        """Whether this is ImageNet-C with all its images."""
        every = len(CORRUPTIONS) * len(SEVERITIES)
        return len(self.cells) == every and self.any_cell.class_names == tuple(sorted(imagenet_wnids())) and (
            len(self) == RELEASED_IMAGES
        )  # fmt: skip


def open_release(
    root: str | os.PathLike[str],
    *,
    corruptions: Sequence[str] = CORRUPTIONS,
    severities: Sequence[int] = SEVERITIES,
) -> Release:
    """Open the unpacked archives of ImageNet-C, or another data set of its layout, such as Tiny-ImageNet-C.

    Args:
        root: the folder that holds <corruption>/<severity>/<class>/*.JPEG, or folders of such folders (noise, blur,
            weather, digital, as the archives are called).
        corruptions: those to open. The release's four extra corruptions are no part of mCE.
        severities: those to open, from 1 to 5.

    Raises:
        ConfigError: an unknown corruption or severity.
        DataError: no such folder; a corruption, severity or class that is missing; cells that differ in their images.
    """
    check_names(corruptions, severities)
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root} is {'not a folder' if root.exists() else 'missing'}; expected {root}/{LAYOUT}")
    folders = {name: _find(root, name) for name in corruptions}
    missing = [name for name, folder in folders.items() if folder is None]
    if missing:
        raise DataError(_incomplete(root, missing, len(folders)))
    cells = {}
    for name, folder in folders.items():
        assert folder is not None
        for severity in severities:
            if not (folder / str(severity)).is_dir():
                raise DataError(f"{folder} has no severity {severity}; expected {folder}/{severity}/<class>/*.JPEG")
            cells[name, severity] = FolderSource(folder / str(severity), "", PUBLISHED)
    _check_equal(cells)
    return Release(root, tuple(corruptions), tuple(severities), cells)


def release_errors(
    subject: Subject,
    release: Release,
    *,
    clean: Source | None = None,
    limit: int | None = None,
    seed: int = 0,
    batch_size: int = 128,
    workers: int | None = None,
    common_only: bool = False,
    progress: Progress | None = None,
) -> CorruptionResult:
    """Errors, confidence and calibration of a classifier on each corruption and severity of the release.

    Args:
        subject: any classifier.
        release: the opened archives.
        clean: the images without corruption, evaluated with the model's own crop; none: their figures are nan.
        limit: at most so many images of each cell, a random sample; the same ones of every cell.
        seed: of the sample.
        batch_size: images in a pass through the model.
        workers: processes that read images; none: one for each core, at most 16; 0: this process.
        common_only: leave out classes of the data that the model does not have.
        progress: called with the number of images done.

    Raises:
        ConfigError: classes that do not match.
        DataError: an image that cannot be read, or no image of a class that the model has.
    """
    corrupted = replace(subject, data=replace(subject.data, crop_pct=1.0))
    measure = partial(
        _figures, limit=limit, seed=seed, batch_size=batch_size, workers=workers, common_only=common_only,
        progress=progress,
    )  # fmt: skip
    before = measure(subject, clean)[0] if clean is not None else (np.nan, np.nan, np.nan)
    figures, count = [], 0
    for source in release.cells.values():
        cell, count = measure(corrupted, source)
        figures.append(cell)
    table = np.asarray(figures).reshape(len(release.corruptions), len(release.severities), 3)
    known = set(imagenet_wnids())
    return CorruptionResult(
        model=subject.name,
        corruptions=release.corruptions,
        severities=release.severities,
        error=table[..., 0],
        confidence=table[..., 1],
        calibration=table[..., 2],
        clean_error=before[0],
        clean_confidence=before[1],
        clean_calibration=before[2],
        count=count,
        released=True,
        imagenet=set(subject.class_names) == known and known.issuperset(release.any_cell.class_names),
    )


class _Chosen:
    """Some images of a source, with the outputs of a model as targets."""

    def __init__(self, source: Source, indices: np.ndarray, outputs: np.ndarray, class_names: tuple[str, ...]) -> None:
        self.source, self.outputs, self.class_names = source, outputs, class_names
        self.indices: list[int] = indices.tolist()

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Image, int]:
        image, target = self.source[self.indices[index]]
        return image, int(self.outputs[target])

    def describe(self, index: int) -> str:
        return self.source.describe(self.indices[index])

    def identities(self) -> tuple[Sequence[bytes], np.ndarray]:
        names, targets = self.source.identities()
        chosen = [names[index] for index in self.indices] if len(names) else names
        return chosen, self.outputs[targets[self.indices]]

    def size_of(self, index: int) -> object:
        return self.source.size_of(self.indices[index])


def _figures(
    subject: Subject,
    source: Source,
    *,
    limit: int | None,
    seed: int,
    batch_size: int,
    workers: int | None,
    common_only: bool,
    progress: Progress | None,
) -> tuple[tuple[float, float, float], int]:
    """Error, confidence and calibration error on the images of one cell, and how many there were."""
    outputs = match_classes(subject, source, common_only=common_only)
    chosen = _Chosen(source, choose(len(source), limit, seed), outputs, subject.class_names)
    config = replace(subject.data, workers=workers, max_broken=0)
    sampler = ResumableSampler(len(chosen), batch_size=batch_size, seed=0, shuffle=False, drop_last=False)
    loader = Loader(chosen, sampler, config, train=False)
    parts = []
    try:
        for images, targets in loader:
            asked = targets >= 0
            if asked.any():
                pixels = images[asked].permute(0, 2, 3, 1).numpy()
                parts.append(outcomes_of(logits_of(subject, pixels, batch_size=len(pixels)), targets[asked].numpy()))
            if progress:
                progress(len(targets))
    finally:
        loader.close()
    if not parts:
        raise DataError(f"none of the chosen images is of a class that {subject.name} has: raise the limit")
    outcomes = concatenate(parts)
    return cell_figures(outcomes.predictions == outcomes.targets, outcomes.confidences), len(outcomes.targets)


def _find(root: Path, name: str) -> Path | None:
    """The folder of a corruption: in the root, or in one of its folders."""
    candidates = [root / name, *(entry / name for entry in sorted(root.iterdir()) if entry.is_dir())]
    return next((folder for folder in candidates if folder.is_dir()), None)


def _incomplete(root: Path, missing: list[str], asked: int) -> str:
    if len(missing) == asked:
        return (
            f"{root} is not ImageNet-C: it has no folder {shorten(missing, 3)}; expected {root}/{LAYOUT}, "
            "as the archives noise, blur, weather and digital unpack"
        )
    return (
        f"{root} lacks {len(missing)} of {asked} corruptions ({shorten(missing)}): unpack their archives there too, "
        "or name those that are there (--corruptions), without an mCE then"
    )


def _check_equal(cells: dict[Cell, FolderSource]) -> None:
    first, *others = cells.values()
    for source in others:
        if source.class_names != first.class_names or len(source) != len(first):
            raise DataError(
                f"{source.folder} holds {len(source)} images in {len(source.class_names)} classes, "
                f"{first.folder} {len(first)} in {len(first.class_names)}: every corruption and severity must hold the "
                "same images; unpack the archive again"
            )
