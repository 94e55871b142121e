"""An artifact beside its model: the same images through both, at several sizes."""

import copy
import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor, nn

from sequencer2d.data.config import DataConfig
from sequencer2d.data.eval_transforms import eval_transform
from sequencer2d.data.images import BrokenImageError, decode
from sequencer2d.data.normalization import normalize
from sequencer2d.errors import ExportError, InputError
from sequencer2d.evaluation.subject import input_fields
from sequencer2d.models.sequencer2d import Sequencer2D

LIMITS = {"fp32": 1e-4, "int8": 0.5}
"""Largest relative difference that an artifact may have. int8's only tells a wrong graph from a rounded one: what the
rounding costs is measured as accuracy."""
BATCHES = (1, 3)
BF16_BUDGET = 3.0

Size = tuple[int, int]


@dataclass(frozen=True)
class Difference:
    """One comparison: what was put in, its size (pixels), the batch, and max |artifact − model| / max |model|."""

    source: str
    size: Size
    batch: int
    relative: float


def sizes_for(model: Sequencer2D) -> tuple[Size, Size, Size]:
    """The model's own size, a larger square and a larger rectangle: 224², 392² and 288×320 for a model of 224²."""
    _, height, width = model.pretrained_cfg["input_size"]
    return (height, width), (height * 7 // 4, width * 7 // 4), (height * 9 // 7, width * 10 // 7)


@torch.no_grad()
def compare(
    artifact: nn.Module,
    model: Sequencer2D,
    *,
    sizes: Iterable[Size],
    batches: Sequence[int] = BATCHES,
    images: Sequence[Path] = (),
) -> list[Difference]:
    """Run random images, and image files if there are any, through both at every size.

    Args:
        artifact: images (B, C, H, W), fp32 → logits.
        model: the same, the truth; in evaluation mode, fp32.
        sizes: of the images, height and width in pixels.
        batches: of random images; image files make one batch.
        images: files of real images.

    Raises:
        ExportError: the model's outputs are all 0, so that nothing can be compared.
    """
    generator = torch.Generator().manual_seed(0)
    differences = []
    for size in sizes:
        inputs = [("random", torch.randn(batch, model.in_chans, *size, generator=generator)) for batch in batches]
        if images:
            inputs.append(("images", read_images(model, size, images)))
        for source, batch in inputs:
            relative = relative_difference(artifact(batch), reference(model, batch))
            differences.append(Difference(source, size, len(batch), relative))
    return differences


def reference(model: Sequencer2D, images: Tensor) -> Tensor:
    """What PyTorch makes of the images. Raises `ExportError` if that is all 0."""
    logits = model(images)
    if not logits.any():
        raise ExportError(
            "the model's outputs are all 0, as those of a classifier that was never trained: there is nothing to "
            "compare the artifact with; train the model, or give its classifier random weights"
        )
    return logits


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """max |found − expected| / max |expected|; infinite where `found` has another shape or is not finite."""
    if found.shape != expected.shape or not found.isfinite().all():
        return float("inf")
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max())


def limit_for(model: Sequencer2D, precision: str, sizes: Iterable[Size]) -> float:
    """The largest difference allowed: fixed for fp32; for bf16 a multiple of what PyTorch itself makes in bf16."""
    if precision != "bf16":
        return LIMITS[precision]
    rounded = copy.deepcopy(model).bfloat16()
    usual = compare(lambda x: rounded(x.bfloat16()).float(), model, sizes=sizes)  # type: ignore[arg-type]
    return BF16_BUDGET * max(difference.relative for difference in usual)


def check(differences: Sequence[Difference], limit: float, what: str) -> None:
    """Raise `ExportError` unless every difference is within the limit."""
    worst = max(differences, key=lambda difference: difference.relative)
    if not worst.relative <= limit:
        raise ExportError(
            f"{what} differs from the model by {worst.relative:.1e} ({worst.source}, batch {worst.batch}, "
            f"{worst.size[0]}×{worst.size[1]} pixels; allowed {limit:.1e}): no file was left"
        )


def real_images() -> list[Path]:
    """Photographs that come with scikit-learn; none where it is not installed."""
    spec = importlib.util.find_spec("sklearn")
    folder = Path(spec.origin).parent / "datasets" / "images" if spec and spec.origin else None
    return sorted(folder.glob("*.jpg")) if folder else []


def read_images(model: nn.Module, size: Size, paths: Sequence[Path]) -> Tensor:
    """Image files (B, 3, H, W), prepared as the model's `pretrained_cfg` says, in `size`. Raises `InputError`."""
    config = DataConfig(**(input_fields(model) | {"image_size": size}))
    transform = eval_transform(config)
    pixels = torch.from_numpy(np.stack([transform(_decode(path, config)) for path in paths])).permute(0, 3, 1, 2)
    return normalize(pixels, config.mean, config.std, device=torch.device("cpu"))


def _decode(path: Path, config: DataConfig) -> Image:
    try:
        return decode(path, config.decoding)
    except BrokenImageError as error:
        raise InputError(f"cannot compare on {path} ({error}): give images that can be read") from error
