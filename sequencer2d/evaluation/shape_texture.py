"""Shape against texture: which one a model follows when an image carries one class's shape and another's texture.

Geirhos et al. (2019) made such images by style transfer, for 16 categories that stand above ImageNet's classes. For a
data set that has none, `phase_amplitude` makes cruder ones: the phases of one image's spectrum, which hold its
outlines, with the amplitudes of another's, which hold its textures' statistics (after Oppenheim and Lim 1981).
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sequencer2d.data.finding import find_images
from sequencer2d.data.sources import Source
from sequencer2d.errors import ConfigError, DataError
from sequencer2d.evaluation.outcomes import logits_of
from sequencer2d.evaluation.pixels import Progress, choose, match_classes, read_batches, read_images
from sequencer2d.evaluation.subject import Subject

FILE_NAME = re.compile(r"([a-z]+)\d+-([a-z]+)\d+")

# ImageNet classes (outputs of a model of all 1000) of the 16 categories; ranges include both ends.
_DOGS = ((152, 191), (193, 203), (205, 226), (228, 241), (243, 250), (252, 257), (259, 259), (261, 263), (265, 268))
CATEGORIES: dict[str, tuple[int, ...]] = {
    "airplane": (404,),
    "bear": (294, 295, 296, 297),
    "bicycle": (444, 671),
    "bird": (
        8, *range(10, 17), 18, 19, 20, 22, 23, 24, *range(80, 84), *range(87, 97), 98, 99, 100, *range(127, 134),
        *range(135, 146),
    ),
    "boat": (472, 554, 625, 814, 914),
    "bottle": (440, 720, 737, 898, 899, 901, 907),
    "car": (436, 511, 817),
    "cat": (281, 282, 283, 284, 285, 286),
    "chair": (423, 559, 765, 857),
    "clock": (409, 530, 892),
    "dog": tuple(index for first, last in _DOGS for index in range(first, last + 1)),
    "elephant": (385, 386),
    "keyboard": (508, 878),
    "knife": (499,),
    "oven": (766,),
    "truck": (555, 569, 656, 675, 717, 734, 864, 867),
}  # fmt: skip


@dataclass(frozen=True)
class ShapeTextureResult:
    """Decisions on images with conflicting cues.

    Attributes:
        model: its name.
        shape, texture, other: how many decisions named the shape's class, the texture's, neither.
        per_category: shape bias by the shape's category; None where neither cue was ever followed.
    """

    model: str
    shape: int
    texture: int
    other: int
    per_category: dict[str, float | None]

    @property
    def count(self) -> int:
        """Images."""
        return self.shape + self.texture + self.other

    @property
    def shape_bias(self) -> float | None:
        """Shape decisions over shape and texture decisions, 0 to 1 (Geirhos et al. 2019); None without either."""
        decided = self.shape + self.texture
        return self.shape / decided if decided else None

    @property
    def cue_accuracy(self) -> float:
        """Share of decisions that named either cue: a low one makes the bias meaningless."""
        return (self.shape + self.texture) / self.count


def cue_conflict(
    subject: Subject,
    root: str | os.PathLike[str],
    *,
    categories: Mapping[str, Sequence[int]] | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> ShapeTextureResult:
    """Decisions on Geirhos et al.'s images, files named `<shape><number>-<texture><number>.png`.

    A category's probability is the mean over its classes; images whose two cues agree are left out.

    Args:
        subject: any classifier.
        root: folder of the images, sub-folders included.
        categories: the model's outputs of each category; by default ImageNet's 16, for models of its 1000 classes.
        batch_size: images in one pass through the model.
        progress: called with the number of images done since the last call.

    Raises:
        ConfigError: a model of other classes without `categories`, or categories that the model does not have.
        DataError: no images, one that cannot be read, or a name that does not say its cues.
    """
    table = _categories(subject, categories)
    files, cues = [], []
    for path in find_images([root]):
        match = FILE_NAME.match(path.stem)
        if match is None or match[1] not in table or match[2] not in table:
            raise DataError(
                f"{path} does not name its cues: expected <shape><number>-<texture><number>, such as "
                f"cat7-elephant1.png, of the "
                f"categories {', '.join(table)}"
            )
        if match[1] != match[2]:
            files.append(path)
            cues.append((match[1], match[2]))
    if not files:
        raise DataError(f"{root} holds no image whose shape and texture differ")
    names = list(table)
    decisions: list[str] = []
    for start in range(0, len(files), batch_size):
        part: list[Path] = files[start : start + batch_size]
        probabilities = logits_of(subject, read_images(part, subject.data)).softmax(dim=1)
        means = torch.stack([probabilities[:, list(table[name])].mean(dim=1) for name in names], dim=1)
        decisions += [names[index] for index in means.argmax(dim=1).tolist()]
        if progress:
            progress(len(part))
    return _count(subject.name, cues, decisions)


def spectral_conflict(
    subject: Subject, source: Source, *, limit: int | None = 1000, seed: int = 0, batch_size: int = 64,
    common_only: bool = False, progress: Progress | None = None,
) -> ShapeTextureResult:  # fmt: skip
    """Decisions on images that take their phases from one image and their amplitudes from another of a different class.

    The phase stands for shape, the amplitude for texture. For any labeled data set.

    Raises:
        ConfigError: classes that do not match. DataError: fewer than two classes among the images.
    """
    classes = match_classes(subject, source, common_only=common_only)
    pixels, targets = [], []
    for batch in read_batches(source, subject.data, batch_size=batch_size, indices=choose(len(source), limit, seed)):
        keep = classes[batch.targets] >= 0
        pixels.append(batch.pixels[keep])
        targets.append(classes[batch.targets[keep]])
    images, labels = np.concatenate(pixels), np.concatenate(targets)
    partner = _partners(labels, np.random.default_rng(seed))
    decisions = []
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        mixed = phase_amplitude(images[part], images[partner[part]])
        decisions += logits_of(subject, mixed).argmax(dim=1).tolist()
        if progress:
            progress(len(mixed))
    cues = [(subject.class_names[a], subject.class_names[b]) for a, b in zip(labels, labels[partner], strict=True)]
    return _count(subject.name, cues, [subject.class_names[index] for index in decisions])


def phase_amplitude(shapes: np.ndarray, textures: np.ndarray) -> np.ndarray:
    """Images (N, H, W, 3), uint8, with the spectral phases of `shapes` and the amplitudes of `textures`."""
    phase = np.angle(np.fft.fft2(shapes, axes=(1, 2)))
    amplitude = np.abs(np.fft.fft2(textures, axes=(1, 2)))
    mixed = np.fft.ifft2(amplitude * np.exp(1j * phase), axes=(1, 2)).real
    return np.rint(mixed.clip(0, 255)).astype(np.uint8)


def _partners(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """For each image the index of one of another class."""
    if len(np.unique(labels)) < 2:
        raise DataError("conflicting cues need images of at least two classes")
    return np.asarray([generator.choice(np.flatnonzero(labels != label)) for label in labels])


def _count(model: str, cues: Sequence[tuple[str, str]], decisions: Sequence[str]) -> ShapeTextureResult:
    tally: dict[str, list[int]] = {}
    for (shape, texture), decision in zip(cues, decisions, strict=True):
        counts = tally.setdefault(shape, [0, 0, 0])
        counts[0 if decision == shape else 1 if decision == texture else 2] += 1
    shape_count, texture_count, other = (int(value) for value in np.sum(list(tally.values()), axis=0))
    per_category = {name: c[0] / (c[0] + c[1]) if c[0] + c[1] else None for name, c in sorted(tally.items())}
    return ShapeTextureResult(model, shape_count, texture_count, other, per_category)


def _categories(subject: Subject, given: Mapping[str, Sequence[int]] | None) -> dict[str, tuple[int, ...]]:
    count = len(subject.class_names)
    if given is None and count != 1000:
        raise ConfigError(
            f"{subject.name} has {count} classes: the 16 categories of the cue-conflict images stand above "
            f"ImageNet's 1000; "
            "give categories, the model's outputs of each (--categories FILE.json)"
        )
    table = {name: tuple(outputs) for name, outputs in (given or CATEGORIES).items()}
    wrong = [name for name, outputs in table.items() if not outputs or not all(0 <= i < count for i in outputs)]
    if wrong:
        raise ConfigError(f"categories {', '.join(wrong)}: expected outputs of {subject.name}, 0 to {count - 1}")
    return table
