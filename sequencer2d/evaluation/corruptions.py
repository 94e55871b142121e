"""The 15 corruptions of ImageNet-C at 5 severities (Hendrycks and Dietterich 2019), of one image.

They are those of the library imagecorruptions-imaug. This module imports neither torch nor timm, so that processes that
only corrupt start within a second or two.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sequencer2d.errors import ConfigError, InputError, UserError, how_to_install
from sequencer2d.seeds import stream_seed

CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
SEVERITIES = (1, 2, 3, 4, 5)
LEAST_PIXELS = 32
# Share of pixels that impulse noise sets to black or white, per severity, as in ImageNet-C.
IMPULSE_AMOUNTS = (0.03, 0.06, 0.09, 0.17, 0.27)


def corrupt(pixels: np.ndarray, name: str, severity: int, seed: int = 0) -> np.ndarray:
    """One image, uint8 (H, W, 3), corrupted: the same result for the same seed.

    Raises:
        ConfigError: an unknown corruption or severity.
        InputError: an image with fewer than 32 pixels along a side.
        UserError: the library is not installed.
    """
    if name not in CORRUPTIONS:
        raise ConfigError(f"no corruption {name!r}; there are: {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise ConfigError(f"severity {severity}; expected 1 to 5")
    if min(pixels.shape[:2]) < LEAST_PIXELS:
        raise InputError(f"corruptions need images of at least 32×32 pixels, got {pixels.shape[0]}×{pixels.shape[1]}")
    library = _library()
    if name == "impulse_noise":
        return _impulse_noise(pixels, IMPULSE_AMOUNTS[severity - 1], seed)
    state = np.random.get_state()
    np.random.seed(seed)  # the library draws from numpy's global generator
    try:
        options = {"seed": seed} if name == "glass_blur" else {}
        return np.asarray(library(np.ascontiguousarray(pixels), severity=severity, corruption_name=name, **options))
    finally:
        np.random.set_state(state)


def corrupt_versions(
    images: np.ndarray, indices: Sequence[int], cells: Sequence[tuple[str, int]], seed: int = 0
) -> np.ndarray:
    """Several images under several corruptions, each preceded by itself.

    Args:
        images: uint8 (B, H, W, 3).
        indices: (B,) of the images in their source: with the cell they make the seed of a corruption.
        cells: K pairs of corruption and severity.
        seed: the other part of a corruption's seed.

    Returns:
        uint8 (B, 1 + K, H, W, 3).
    """
    return np.stack([
        np.stack([image, *(corrupt(image, *cell, seed=_seed(seed, int(index), *cell)) for cell in cells)])
        for image, index in zip(images, indices, strict=True)
    ])  # fmt: skip


def require_library() -> None:
    """Raise `UserError` if the library is not installed."""
    _library()


def start_worker() -> None:
    """Prepare a process that only corrupts: the library imported, and one thread, since there are many processes."""
    _library()
    import cv2

    cv2.setNumThreads(1)


def _seed(seed: int, index: int, name: str, severity: int) -> int:
    """32 bits: the library's generators take no more."""
    return stream_seed(seed, index, CORRUPTIONS.index(name), severity) & 0xFFFFFFFF


def _impulse_noise(pixels: np.ndarray, amount: float, seed: int) -> np.ndarray:
    """The library's own call, with a seed: it lets the noise draw from a generator that nobody can set."""
    from skimage.util import random_noise

    return np.rint(random_noise(pixels / 255, mode="s&p", amount=amount, rng=seed) * 255).astype(np.uint8)


def _library() -> Callable[..., Any]:
    try:
        from imagecorruptions import corrupt as library
    except ImportError as error:
        raise UserError(
            f"corruptions need the library imagecorruptions-imaug: {how_to_install('analysis')} ({error})"
        ) from error
    return library  # type: ignore[no-any-return]
