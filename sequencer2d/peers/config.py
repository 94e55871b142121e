"""The frozen description of one peer, a class for each family: everything that its parameters follow from."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from sequencer2d.choices import POOLS
from sequencer2d.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from typing_extensions import Self

POOLS_OF_TOKENS = ("token", "avg", "")
LARGEST = 10**7
"""No size is larger: a model that can be trained has none near it."""


def _is_integer(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= LARGEST


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST


def _all(values: Any, accepts: Callable[[Any], bool]) -> bool:
    return isinstance(values, tuple) and len(values) > 0 and all(map(accepts, values))


Rule = tuple[str, Callable[[Any], bool]]
_POSITIVE: Rule = ("a positive number", lambda value: _is_number(value) and value > 0)
_RATE: Rule = ("a probability, 0 up to but not including 1", lambda value: _is_number(value) and 0 <= value < 1)
PER_STAGE = (tuple[int, ...], tuple[float, ...])
RULES: dict[Any, Rule] = {
    int: ("a positive integer", _is_integer),
    float: _POSITIVE,
    str: ("text", lambda value: isinstance(value, str)),
    tuple[int, ...]: ("a positive integer for each stage", lambda value: _all(value, _is_integer)),
    tuple[float, ...]: ("a positive number for each stage", lambda value: _all(value, _POSITIVE[1])),
    "img_size": (
        "pixels, one positive integer or (height, width)",
        lambda size: _all(size, _is_integer) and len(size) == 2,
    ),
    "num_classes": ("0 (no classifier) or a positive integer", lambda value: _is_integer(value, 0)),
    "crop_pct": ("a share of the image, above 0 and up to 1", lambda value: _POSITIVE[1](value) and value <= 1),
    "drop_rate": _RATE,
    "drop_path_rate": _RATE,
    "layer_scale": ("a number, or none", lambda value: value is None or _is_number(value)),
}
"""What a field may hold, in words and as a test: by its name, otherwise by its type."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PeerConfig:
    """What every family has.

    Attributes:
        depths: blocks per stage.
        dims: channels C per stage.
        img_size: height and width (pixels) that the model is built for; one integer means a square.
        crop_pct: share of the image that its published evaluation keeps, 0 to 1.
        in_chans: channels of the image.
        num_classes: outputs of the classifier; 0 for no classifier.
        global_pool: how tokens are pooled: "avg", "max" or "" (no pooling); for models with a class token "token",
            "avg" or "".
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0 at the first.

    Raises:
        ConfigError: a value that does not fit.
    """

    pools: ClassVar[tuple[str, ...]] = POOLS
    mixer: ClassVar[str] = ""
    """How tokens are mixed, in a few words."""
    fixed_size: ClassVar[bool] = False
    """Whether a model runs on images of `img_size` only."""

    depths: tuple[int, ...]
    dims: tuple[int, ...]
    img_size: tuple[int, int] = (224, 224)
    crop_pct: float = 0.9
    in_chans: int = 3
    num_classes: int = 1000
    global_pool: str = "avg"
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0

    def __post_init__(self) -> None:
        size = self.img_size
        object.__setattr__(self, "img_size", (size, size) if isinstance(size, int) else size)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                value = tuple(value)
                object.__setattr__(self, field.name, value)
            expected, accepts = RULES[field.name if field.name in RULES else field.type]
            if not accepts(value):
                raise ConfigError(f"{field.name}={value!r}: expected {expected}")
            if field.type in PER_STAGE and len(value) != len(self.depths):
                raise ConfigError(f"{field.name}={value!r}: expected one value for each of {len(self.depths)} stages")
        if self.global_pool not in self.pools:
            choices = ", ".join(map(repr, self.pools))
            raise ConfigError(f"global_pool={self.global_pool!r}: expected one of {choices}")

    @property
    def drop_path_rates(self) -> tuple[tuple[float, ...], ...]:
        """Stochastic depth of every block, per stage: drop_path_rate · index / (blocks − 1)."""
        last = max(sum(self.depths) - 1, 1)
        starts = [sum(self.depths[:i]) for i in range(len(self.depths))]
        return tuple(
            tuple(self.drop_path_rate * (start + i) / last for i in range(depth))
            for start, depth in zip(starts, self.depths, strict=True)
        )

    def replace(self, **changes: Any) -> "Self":
        """Return a copy with `changes`.

        Raises:
            ConfigError: a name that is no field (close matches are listed) or a value that does not fit.
        """
        names = [field.name for field in dataclasses.fields(self)]
        for name in changes:
            if name not in names:
                raise ConfigError(f"{type(self).__name__} has no option {name!r}; {did_you_mean(name, names)}")
        return dataclasses.replace(self, **changes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GFNetConfig(PeerConfig):
    """Global Filter Network (Rao et al. 2021), one stage or a pyramid of several.

    Attributes:
        patch_size: stride of the stem (pixels); every later stage halves the grid.
        layer_scale: first value of each block's scale gamma; None for blocks without one.
        mlp_ratio: hidden channels of the MLP over C.
    """

    mixer = "FFT, filter"
    fixed_size = True

    patch_size: int = 16
    layer_scale: float | None = None
    mlp_ratio: float = 4.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViPConfig(PeerConfig):
    """Vision Permutator (Hou et al. 2021).

    Attributes:
        segments: cuts of the channels per stage, which is also the side of its grid; where it halves, a convolution
            halves the grid.
        patch_size: stride of the stem (pixels).
        mlp_ratio: hidden channels of the MLP over C.
    """

    mixer = "permute, linear"
    fixed_size = True

    segments: tuple[int, ...]
    patch_size: int = 7
    mlp_ratio: float = 3.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class CycleMLPConfig(PeerConfig):
    """CycleMLP (Chen et al. 2022).

    Attributes:
        mlp_ratios: hidden channels of the MLP over C, per stage.
    """

    mixer = "cycle, linear"

    mlp_ratios: tuple[float, ...] = (4, 4, 4, 4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class T2TViTConfig(PeerConfig):
    """Tokens-to-token ViT with transformers in its splits (Yuan et al. 2021); its ViT is one stage.

    Attributes:
        heads: of the ViT's attention.
        mlp_ratio: hidden channels of the MLP over C.
        global_pool: "token" (the class token), "avg" or "".
    """

    pools = POOLS_OF_TOKENS
    mixer = "attention"

    heads: int
    mlp_ratio: float = 3.0
    global_pool: str = "token"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PVTConfig(PeerConfig):
    """Pyramid Vision Transformer, version 1 (Wang et al. 2021).

    Attributes:
        heads: of the attention, per stage.
        mlp_ratios: hidden channels of the MLP over C, per stage.
        reductions: tokens of an axis to one of the keys and values, per stage.
        global_pool: "token" (the class token), "avg" or "".
    """

    pools = POOLS_OF_TOKENS
    mixer = "attention, reduced"

    heads: tuple[int, ...] = (1, 2, 5, 8)
    mlp_ratios: tuple[float, ...] = (8, 8, 4, 4)
    reductions: tuple[int, ...] = (8, 4, 2, 1)
    global_pool: str = "token"


def count_maps(depths: tuple[int, ...]) -> int:
    """Feature maps of a peer: one a stage, or one a block where there is one stage only."""
    return len(depths) if len(depths) > 1 else depths[0]
