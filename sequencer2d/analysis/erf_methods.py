"""Two definitions of the effective receptive field: what is summed, of which token, and how it is drawn.

`energy` is ours: Σ_c g², the mean over images, of the token at (H//2, W//2), g being the gradient of the token's summed
features with respect to the normalized image. It does not depend on how many images there are, counts what lowers a
feature like what raises it, and scales with the square of the gradient, so that ratios of it do not depend on its size.

`paper` is what the Sequencer authors' script draws in Figure 5: Σ max(g, 0) over images and channels, of the token at
(H//2 - 1, W//2 - 1), as log10(1 + sum), all maps of all models between one minimum and one maximum. It leaves out
negative gradients, and it grows with the number of images, as does what the logarithm does to it: such maps compare
within one figure only. Luo et al. themselves average the gradients over images.

On the same weights the two differ much: a square makes a weak arm weaker beside the middle, and a cross more distinct.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from sequencer2d.errors import ConfigError


@dataclass(frozen=True)
class Method:
    """One definition.

    Attributes:
        name: as it is chosen by.
        quantity: what a map holds, in a few words.
        token: number of tokens along an axis → index of the one that is differentiated.
        per_image: gradients (B, C, H, W) → (B, H, W), each image's part of the map.
        averaged: whether a map is the mean over images (or else the sum).
        shown: map → what figures show of it.
        bar: what the color bar says.
        colors: matplotlib's name of the color map.
        gamma: exponent of the color scale; below 1 weak arms show beside a strong middle.
        one_scale: whether figures scale all maps between one minimum and one maximum (or else each to its own maximum).
        images: how many are usual.
        augmented: whether images are augmented as in timm's training (or else cropped as in evaluation).
        caption: what a figure must say of it.
    """

    name: str
    quantity: str
    token: Callable[[int], int]
    per_image: Callable[[Tensor], Tensor]
    averaged: bool
    shown: Callable[[np.ndarray], np.ndarray]
    bar: str
    colors: str
    gamma: float
    one_scale: bool
    images: int
    augmented: bool
    caption: str

    def scaled(self, maps: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Maps as figures show them, between 0 and 1."""
        shown = [self.shown(values) for values in maps]
        if not self.one_scale:
            return [values / values.max() if values.max() > 0 else values for values in shown]
        least, most = min(values.min() for values in shown), max(values.max() for values in shown)
        return [(values - least) / (most - least) if most > least else values - least for values in shown]


def _log_of_sum(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.log10(1 + values))


METHODS = {
    "energy": Method(
        name="energy",
        quantity="squared gradient, mean over images",
        token=lambda count: count // 2,
        per_image=lambda gradient: gradient.square().sum(dim=1),
        averaged=True,
        shown=np.sqrt,
        bar="gradient / maximum of the map (√ scale)",
        colors="magma",
        gamma=0.5,
        one_scale=False,
        images=50,
        augmented=False,
        caption="Method energy (not the paper's): root of the squared gradient's mean over images, each map scaled to "
        "its own maximum",
    ),
    "paper": Method(
        name="paper",
        quantity="positive part of the gradient, sum over images",
        token=lambda count: max(count // 2 - 1, 0),
        per_image=lambda gradient: gradient.clamp(min=0).sum(dim=1),
        averaged=False,
        shown=_log_of_sum,
        bar="log₁₀(1 + sum of positive gradients), 0 to 1 over all maps",
        colors="pink",
        gamma=1.0,
        one_scale=True,
        images=34,
        augmented=True,
        caption="Method paper (as in the Sequencer paper's Figure 5): log₁₀(1 + sum of the gradients' positive part "
        "over images and channels), all maps scaled by one minimum and maximum; it depends on the number of images",
    ),
}  # fmt: skip
DEFAULT = "energy"


def find_method(name: str) -> Method:
    """The method called `name`. Raises `ConfigError` if there is none."""
    if name not in METHODS:
        raise ConfigError(f"no method {name!r} for receptive fields; choose one of {', '.join(METHODS)}")
    return METHODS[name]
