"""The frozen description of one model: everything that its architecture and its parameters follow from."""

import dataclasses
import math
from typing import Any

from sequencer2d.choices import AXES, FUSIONS, GATES, PADS, POOLS
from sequencer2d.errors import ConfigError, did_you_mean

CHOICES = {
    # Names of the rows of `ops.cells` and `nn.init`. Those tables load PyTorch, and the table of variants does not.
    "cell": ("lstm", "gru", "rnn"),
    "conv_init": ("paper", "timm"),
    "axes": tuple(AXES),
    "fusion": FUSIONS,
    "global_pool": POOLS,
    "gates": GATES,
    "pad": PADS,
}
PER_STAGE = ("depths", "patch_sizes", "dims", "hidden_dims")
RATES = ("drop_rate", "proj_drop_rate", "drop_path_rate")
FLAGS = ("bidirectional", "position_embedding")
LARGEST = 10**7
"""No size is larger: a model that can be trained has none near it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """One Sequencer2D or VSequencer; the defaults are Sequencer2D-S (the paper's section 3.2 and appendix B.2).

    Attributes:
        depths: blocks per stage.
        patch_sizes: stride of the stem, then of the convolution between each pair of stages (pixels, then tokens).
        stem_overlap: pixels by which the stem's patches reach into their neighbors on every side; at most its stride.
            The paper's is 0: patches side by side.
        dims: channels C per stage.
        hidden_dims: hidden units D of one scan, per stage.
        mlp_ratio: hidden channels of the channel MLP over C.
        cell: "lstm", "gru" or "rnn" (tanh).
        axes: "both" (BiLSTM2D), "vertical", "horizontal" or "flatten" (VSequencer: one sequence of H·W tokens).
        bidirectional: scan each axis both ways.
        fusion: "concat" (linear over concatenated scans), "add" (vertical + horizontal, then linear) or "none".
        position_embedding: add a learned absolute position embedding after the stem.
        img_size: height and width of the images (pixels) that the model is meant for; it fixes the grid of the
            position embedding and the data configuration. Any other size runs too. One integer means a square.
        pad: what becomes of images whose sizes are no multiples of the total stride. "crop": each convolution cuts off,
            at the bottom and the right, what does not fill a patch, as in the authors' code and timm, with which all
            published numbers were measured. "zeros": they are padded there with the mean color, as the paper's text
            (section 4.2) has in mind; no pixel is lost, and the padded tokens take part in the pooled mean.
        in_chans: channels of the input image.
        num_classes: outputs of the classifier; 0 for no classifier.
        global_pool: "avg" (mean over the grid), "max" or "" (no pooling: logits per token).
        drop_rate: dropout before the classifier.
        proj_drop_rate: dropout in the channel MLP.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0 at the first.
        implementation: how the recurrence runs, see `sequencer2d.ops.rnn2d`; "auto" takes the fastest that can.
        gates: what the fused recurrence keeps for backward: "stored", or "recomputed" for less memory.
        conv_init: the first weights of the convolutions: "paper" (LeCun normal as timm 0.5.4 computes it, std
            1 / (0.8796 √fan-in)), or "timm" (as today's timm does, std 1 / √fan-in).

    Raises:
        ConfigError: a value that does not fit.
    """

    depths: tuple[int, ...] = (4, 3, 8, 3)
    patch_sizes: tuple[int, ...] = (7, 2, 1, 1)
    stem_overlap: int = 0
    dims: tuple[int, ...] = (192, 384, 384, 384)
    hidden_dims: tuple[int, ...] = (48, 96, 96, 96)
    mlp_ratio: float = 3.0
    cell: str = "lstm"
    axes: str = "both"
    bidirectional: bool = True
    fusion: str = "concat"
    position_embedding: bool = False
    img_size: tuple[int, int] = (224, 224)
    in_chans: int = 3
    num_classes: int = 1000
    global_pool: str = "avg"
    drop_rate: float = 0.0
    proj_drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    implementation: str = "auto"
    gates: str = "stored"
    conv_init: str = "paper"
    pad: str = "crop"

    def __post_init__(self) -> None:
        for name in PER_STAGE:
            object.__setattr__(self, name, _positive_integers(name, getattr(self, name)))
        size = self.img_size
        pair = (size, size) if isinstance(size, int) else size
        object.__setattr__(self, "img_size", _positive_integers("img_size", pair))
        _check_lengths(self)
        _check_values(self)
        _check_unfused_width(self)

    @property
    def total_stride(self) -> int:
        """Pixels per token of the last stage: the smallest image has one token."""
        return math.prod(self.patch_sizes)

    @property
    def stem_kernel(self) -> int:
        """Side of the stem's kernel (pixels): its stride, and what patches share with their neighbors on two sides."""
        return self.patch_sizes[0] + 2 * self.stem_overlap

    @property
    def reductions(self) -> tuple[int, ...]:
        """Pixels per token of each stage."""
        return tuple(math.prod(self.patch_sizes[: i + 1]) for i in range(len(self.patch_sizes)))

    @property
    def scans(self) -> int:
        """Recurrences in one token mixer: axes times directions."""
        return (2 if self.axes == "both" else 1) * (2 if self.bidirectional else 1)

    @property
    def drop_path_rates(self) -> tuple[tuple[float, ...], ...]:
        """Stochastic depth of every block, per stage: drop_path_rate · index / (blocks − 1)."""
        last = max(sum(self.depths) - 1, 1)
        starts = [sum(self.depths[:i]) for i in range(len(self.depths))]
        return tuple(
            tuple(self.drop_path_rate * (start + i) / last for i in range(depth))
            for start, depth in zip(starts, self.depths, strict=True)
        )

    def grid(self, height: int, width: int, stage: int = 0) -> tuple[int, int]:
        """Tokens of a stage, (rows, columns), for an image of `height`×`width` pixels."""
        if self.pad == "zeros":
            height, width = (-(-size // self.total_stride) * self.total_stride for size in (height, width))
        return height // self.reductions[stage], width // self.reductions[stage]

    def replace(self, **changes: Any) -> "ModelConfig":
        """Return a copy with `changes`.

        Raises:
            ConfigError: a name that is no field (close matches are listed) or a value that does not fit.
        """
        names = [field.name for field in dataclasses.fields(self)]
        for name in changes:
            if name not in names:
                raise ConfigError(f"no model option {name!r}; {did_you_mean(name, names)}")
        return dataclasses.replace(self, **changes)


def _positive_integers(name: str, values: Any) -> tuple[int, ...]:
    try:
        result = tuple(values)
    except TypeError:
        raise ConfigError(f"{name}={values!r}: expected a sequence of positive integers") from None
    if not result or not all(_is_size(v, 1) for v in result):
        raise ConfigError(f"{name}={values!r}: expected a sequence of positive integers")
    return result


def _is_size(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= LARGEST


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_lengths(config: ModelConfig) -> None:
    lengths = {name: len(getattr(config, name)) for name in PER_STAGE}
    if len(set(lengths.values())) > 1:
        given = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ConfigError(f"{' and '.join(PER_STAGE)} need one value per stage each: {given}")
    if len(config.img_size) != 2:
        raise ConfigError(f"img_size={config.img_size!r}: expected (height, width) in pixels")


def _check_values(config: ModelConfig) -> None:
    for name, allowed in CHOICES.items():
        if getattr(config, name) not in allowed:
            raise ConfigError(f"{name}={getattr(config, name)!r}: expected one of {', '.join(map(repr, allowed))}")
    for name in RATES:
        rate = getattr(config, name)
        if not _is_number(rate) or not 0.0 <= rate < 1.0:
            raise ConfigError(f"{name}={rate!r}: expected a probability, 0 up to but not including 1")
    for name in FLAGS:
        if not isinstance(getattr(config, name), bool):
            raise ConfigError(f"{name}={getattr(config, name)!r}: expected true or false")
    if not isinstance(config.implementation, str):
        raise ConfigError(f"implementation={config.implementation!r}: expected the name of one")
    if not _is_number(config.mlp_ratio) or not 0 < config.mlp_ratio <= 1000:
        raise ConfigError(f"mlp_ratio={config.mlp_ratio!r}: expected a positive number, at most 1000")
    if not _is_size(config.stem_overlap, 0) or config.stem_overlap > config.patch_sizes[0]:
        raise ConfigError(
            f"stem_overlap={config.stem_overlap!r}: expected an integer from 0 to the stem's stride, "
            f"{config.patch_sizes[0]}"
        )
    if not _is_size(config.in_chans, 1):
        raise ConfigError(f"in_chans={config.in_chans!r}: expected a positive integer")
    if not _is_size(config.num_classes, 0):
        raise ConfigError(f"num_classes={config.num_classes!r}: expected 0 (no classifier) or a positive integer")
    if config.fusion == "add" and config.axes != "both":
        raise ConfigError(f"fusion='add' sums two axes; axes={config.axes!r} has one: use axes='both' or fusion='none'")


def _check_unfused_width(config: ModelConfig) -> None:
    if config.fusion != "none":
        return
    for dim, hidden in zip(config.dims, config.hidden_dims, strict=True):
        if config.scans * hidden != dim:
            raise ConfigError(
                f"fusion='none' needs {config.scans} scans · hidden_dims = dims in every stage, "
                f"given hidden {hidden}, channels {dim}: set hidden_dims to dims / {config.scans} or fusion='concat'"
            )
