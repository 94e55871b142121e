"""ImageNet's shifted test sets: -A, -R, -Sketch, -V2, and ReaL, the reassessed labels; each with its subset of classes.

A model of all 1000 classes is asked only about the classes of the set (200 of ImageNet-A and -R): its other logits are
left out, as the sets' authors do. Which classes those are comes from timm. A model of other classes that are named by
WordNet identifiers, such as one trained on Tiny-ImageNet, can be asked about those it shares. EXIF orientation and
transparency are ignored, as the sets' authors ignore them.
"""

import json
import os
import pkgutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sequencer2d.data.folders import FolderSource
from sequencer2d.data.images import PUBLISHED
from sequencer2d.data.sources import Source
from sequencer2d.data.words import imagenet_wnids
from sequencer2d.errors import ConfigError, DataError
from sequencer2d.evaluation.outcomes import logits_of, outcomes_of
from sequencer2d.evaluation.pixels import Progress, choose, read_batches
from sequencer2d.evaluation.subject import Subject
from sequencer2d.tasks.accuracy import ClassificationResult, concatenate, summarize

KINDS = {
    "imagenet-a": "7,500 natural images that a ResNet-50 gets wrong, 200 classes (Hendrycks et al. 2021)",
    "imagenet-r": "30,000 renditions, 200 classes (Hendrycks et al. 2021)",
    "imagenet-sketch": "50,889 sketches, 1000 classes (Wang et al. 2019)",
    "imagenet-v2": "10,000 new test images, 1000 classes (Recht et al. 2019)",
    "imagenet-real": "the validation images with reassessed labels, several an image (Beyer et al. 2020)",
}
SUBSETS = {"imagenet-a": "imagenet_a_synsets.txt", "imagenet-r": "imagenet_r_synsets.txt"}


@dataclass(frozen=True)
class ShiftedSet:
    """One shifted set.

    Attributes:
        kind: one of `KINDS`.
        source: its images; for ReaL the targets of the source are not used.
        wnids: the class of each of the source's targets.
        subset: the classes that are asked about.
        labels: for ReaL, the acceptable classes (outputs of an ImageNet model) of each image; some images have none.
    """

    kind: str
    source: Source
    wnids: tuple[str, ...]
    subset: tuple[str, ...]
    labels: tuple[tuple[int, ...], ...] | None = None


def open_shifted(kind: str, root: str | os.PathLike[str]) -> ShiftedSet:
    """Open a shifted set from its unpacked archive.

    Args:
        kind: one of `KINDS`.
        root: folder of class folders: named by WordNet identifiers, for V2 by numbers 0 to 999. For ReaL the folder of
            ImageNet's validation images in class folders, with their original file names.

    Raises:
        ConfigError: an unknown kind.
        DataError: no such folder, or folders or files that are not of this set.
    """
    if kind not in KINDS:
        raise ConfigError(f"no shifted set {kind!r}; there are: {', '.join(KINDS)}")
    source = FolderSource(root, "", PUBLISHED)
    everything = imagenet_wnids()
    if kind == "imagenet-v2":
        wnids = tuple(everything[number] for number in _numbers(source, root))
    else:
        wnids = source.class_names
    subset = _subset(kind) if kind in SUBSETS else everything
    foreign = [name for name in wnids if name not in set(subset)]
    if foreign:
        raise DataError(
            f"{root} is not {kind}: {len(foreign)} of its {len(wnids)} folders are no classes of it "
            f"({', '.join(foreign[:3])}…); "
            f"expected folders named as {', '.join(subset[:2])}"
        )
    labels = _real_labels(source) if kind == "imagenet-real" else None
    return ShiftedSet(kind, source, wnids, subset, labels)


def evaluate_shifted(
    subject: Subject,
    shifted: ShiftedSet,
    *,
    limit: int | None = None,
    seed: int = 0,
    batch_size: int = 64,
    common_only: bool = False,
    progress: Progress | None = None,
) -> ClassificationResult:
    """Accuracy and calibration on a shifted set, among its classes.

    For ReaL a prediction is right if it is one of the image's labels; images without labels are left out.

    Args:
        subject: a classifier of ImageNet's classes.
        shifted: the set.
        limit: at most so many images, a random sample.
        seed: of the sample.
        batch_size: images in one pass through the model.
        common_only: ask about the classes that the model and the set share, leaving out images of others.
        progress: called with the number of images done since the last call.

    Raises:
        ConfigError: a model that lacks classes of the set.
        DataError: an image that cannot be read, or none left.
    """
    outputs = _outputs(subject, shifted, common_only)
    asked = [wnid for wnid in shifted.subset if wnid in outputs]
    columns = torch.as_tensor([outputs[wnid] for wnid in asked])
    position = {wnid: index for index, wnid in enumerate(asked)}
    target_of = np.asarray([position.get(wnid, -1) for wnid in shifted.wnids])
    parts = []
    for batch in read_batches(
        shifted.source, subject.data, batch_size=batch_size, indices=choose(len(shifted.source), limit, seed)
    ):
        targets = target_of[batch.targets]
        logits = logits_of(subject, batch.pixels)[:, columns]
        if shifted.labels is not None:
            targets = _best_label(logits, [shifted.labels[i] for i in batch.indices], asked, imagenet_wnids())
        parts.append(outcomes_of(logits[torch.from_numpy(targets >= 0)], targets[targets >= 0]))
        if progress:
            progress(len(targets))
    return summarize(concatenate(parts), tuple(asked))


def _outputs(subject: Subject, shifted: ShiftedSet, common_only: bool) -> dict[str, int]:
    """The subject's output for each WordNet identifier."""
    names = imagenet_wnids() if len(subject.class_names) == 1000 else subject.class_names
    outputs = {name: index for index, name in enumerate(names)}
    missing = [wnid for wnid in shifted.subset if wnid not in outputs]
    if missing and (not common_only or len(missing) == len(shifted.subset)):
        raise ConfigError(
            f"{subject.name} has {len(outputs)} classes and lacks {len(missing)} of the {len(shifted.subset)} of "
            f"{shifted.kind} ({', '.join(missing[:3])}…); "
            + (
                "its classes must be named by WordNet identifiers such as n01440764"
                if len(missing) == len(shifted.subset)
                else "ask about the shared ones with common_only (--common-classes)"
            )
        )
    return outputs


def _best_label(
    logits: torch.Tensor, labels: list[tuple[int, ...]], asked: list[str], wnids: tuple[str, ...]
) -> np.ndarray:
    """Of each image's acceptable classes the most probable one, so that any of them counts as right; −1 for none."""
    position = {wnid: index for index, wnid in enumerate(asked)}
    targets = []
    for row, acceptable in zip(logits, labels, strict=True):
        known = [position[wnids[label]] for label in acceptable if wnids[label] in position]
        targets.append(max(known, key=lambda index: float(row[index])) if known else -1)
    return np.asarray(targets)


def _numbers(source: FolderSource, root: str | os.PathLike[str]) -> list[int]:
    wrong = [name for name in source.class_names if not name.isdigit() or int(name) >= 1000]
    if wrong:
        raise DataError(f"{root} is not imagenet-v2: its folders are named 0 to 999, found {', '.join(wrong[:3])}")
    return [int(name) for name in source.class_names]


def _subset(kind: str) -> tuple[str, ...]:
    return tuple(_timm_file(SUBSETS[kind]).split())


def _real_labels(source: FolderSource) -> tuple[tuple[int, ...], ...]:
    everything = json.loads(_timm_file("imagenet_real_labels.json"))
    labels = []
    for index in range(len(source)):
        stem = Path(source.describe(index)).stem
        number = stem.removeprefix("ILSVRC2012_val_")[:8]
        if not stem.startswith("ILSVRC2012_val_") or not number.isdigit() or not 1 <= int(number) <= len(everything):
            raise DataError(
                f"{source.describe(index)} is no ImageNet validation image: ReaL's labels go by their names, "
                f"ILSVRC2012_val_00000001"
            )
        labels.append(tuple(everything[int(number) - 1]))
    return tuple(labels)


def _timm_file(name: str) -> str:
    content = pkgutil.get_data("timm.data", f"_info/{name}")
    if content is None:
        raise ConfigError(f"this timm lacks {name}; install a newer one")
    return content.decode("utf-8")
