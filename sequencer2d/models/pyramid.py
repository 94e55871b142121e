"""Feature maps for any decoder: a pyramid of chosen strides over the stages of a backbone."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import Tensor, nn

from sequencer2d.errors import ConfigError
from sequencer2d.models.features import Sequencer2DFeatures
from sequencer2d.models.peers import peer_features
from sequencer2d.models.restriding import restride, stem_for
from sequencer2d.models.sequencer2d import Backbone, Sequencer2D
from sequencer2d.nn.embed import pad_to_multiple
from sequencer2d.nn.maps import take_indices
from sequencer2d.nn.pretrained import PretrainedConfigured
from sequencer2d.nn.pyramid import PyramidLevel, doublings

STRIDES = (4, 8, 16, 32)
"""Pixels per position of the maps that decoders for ResNet expect."""


@dataclass(frozen=True)
class Source:
    """Where a level of a pyramid comes from: its stride (pixels), the stage's number, channels and stride (pixels)."""

    stride: Fraction
    stage: int
    channels: int
    reduction: int

    @property
    def steps(self) -> int:
        """How often the stage's resolution is doubled; below 0, halved.

        Raises:
            ConfigError: no power of two lies between the two strides.
        """
        steps = doublings(self.reduction / self.stride)
        if steps is None:
            raise ConfigError(
                f"pyramid: stride {float(self.stride):g} and stride {self.reduction} of stage {self.stage} are no "
                f"power of two apart; choose such as {self.reduction / 2:g}, {self.reduction}, {2 * self.reduction}"
            )
        return steps


def choose_sources(stages: Iterable[Mapping[str, Any]], strides: Sequence[Fraction]) -> tuple[Source, ...]:
    """Choose the stage of each level.

    The last level takes the last stage. Any other takes a stage of the coarsest stride that is not coarser than its
    own, or of the finest one if all are coarser. Levels that share a stride of stages spread over these stages in equal
    distances, the last of them taking the deepest.

    Args:
        stages: timm's `feature_info`: `num_chs` and `reduction` of each stage.
        strides: of the levels, in pixels, in ascending order.
    """
    infos = list(stages)
    reductions = [info["reduction"] for info in infos]
    groups = [max((r for r in reductions if r <= stride), default=min(reductions)) for stride in strides]
    groups[-1] = reductions[-1]
    chosen = []
    for index, group in enumerate(groups):
        members = [stage for stage, reduction in enumerate(reductions) if reduction == group]
        levels = [level for level, other in enumerate(groups) if other == group]
        # The deepest stage of the first, second, … of as many equal parts as there are levels.
        part = levels.index(index) + 1
        chosen.append(members[math.ceil(part * len(members) / len(levels)) - 1])
    return tuple(
        Source(stride, stage, infos[stage]["num_chs"], reductions[stage])
        for stride, stage in zip(strides, chosen, strict=True)
    )


class FeaturePyramid(PretrainedConfigured, nn.Module):
    """Images (B, C, H, W) → a list of maps (B, C', ⌈H/stride⌉, ⌈W/stride⌉), finest first, NCHW and contiguous.

    The image may have any size: at the bottom and the right it is filled up with zeros, the mean color, until the
    strides of all stages divide it, and every map is cut back to its size.

    Args:
        backbone: images → a list of NCHW maps; `out_indices` numbers their stages. `feature_pyramid` makes it.
        sources: of the levels, finest first.
        dim: channels of every map; None keeps those of the stages.
        out_indices: the levels to return; None for all.
        normed: the stages whose maps come normalized from the backbone.

    Attributes:
        feature_info: timm's `FeatureInfo` of the levels: `channels()`, `reduction()` (pixels; a float only where it is
            no whole number), `module_name()`.
        pretrained_cfg: how images are prepared, as the backbone says.
        default_cfg: the same, by timm's older name.

    Raises:
        ConfigError: strides that are no power of two from those of the stages, or a level that does not exist.
    """

    def __init__(
        self,
        backbone: nn.Module,
        sources: Sequence[Source],
        dim: int | None = None,
        out_indices: int | Sequence[int] | None = None,
        normed: Sequence[int] = (),
    ) -> None:
        from timm.models import FeatureInfo

        super().__init__()
        self.sources = tuple(sources)
        self.out_indices = tuple(sorted(take_indices(len(self.sources), out_indices)))
        self.multiple = math.lcm(*(source.reduction for source in self.sources))
        self.backbone = backbone
        # Keyed by their numbers, so that a pyramid of some levels takes the weights of those from one of all.
        self.levels = nn.ModuleDict(
            {
                str(i): PyramidLevel(source.channels, source.steps, dim, normed=source.stage in normed)
                for i, source in enumerate(self.sources)
                if i in self.out_indices
            }
        )
        self.levels.to(next(backbone.parameters()))
        self.feature_info = FeatureInfo(
            [
                {"num_chs": dim or source.channels, "reduction": _plain(source.stride), "module": f"levels.{i}"}
                for i, source in enumerate(self.sources)
            ],
            self.out_indices,
        )
        described: Any = backbone
        self.in_chans: int = described.in_chans
        self.pretrained_cfg = described.pretrained_cfg
        self.output_fmt = "NCHW"

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        height, width = x_BCHW.shape[2:]
        padded = pad_to_multiple(x_BCHW, self.multiple)
        stages: Any = self.backbone.out_indices
        maps = dict(zip(stages, self.backbone(padded), strict=True))
        return [
            self.levels[str(i)](maps[source.stage], _ceil(height, source.stride), _ceil(width, source.stride))
            for i, source in enumerate(self.sources)
            if i in self.out_indices
        ]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute every block of the backbone in backward instead of keeping its activations."""
        _, model = self._model()
        model.set_grad_checkpointing(enable)

    def set_implementation(self, name: str) -> None:
        """Set how the recurrence of a Sequencer runs (the names are those of `sequencer2d.ops.rnn2d`).

        Raises:
            ConfigError: another backbone, or no such implementation.
        """
        if not isinstance(self.backbone, Backbone):
            raise ConfigError(
                f"{type(self._model()[1]).__name__} has no recurrence of ours to set; fuse the model first"
            )
        self.backbone.set_implementation(name)

    def no_weight_decay(self) -> set[str]:
        """Return the parameters besides norms and biases that weight decay leaves out: those of the backbone."""
        prefix, model = self._model()
        names = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
        return {f"{prefix}{name}" for name in names}

    def _model(self) -> tuple[str, Any]:
        """The module with timm's contract, and the prefix of its parameters: timm's extractors hold it as `model`."""
        if isinstance(self.backbone, Backbone):
            return "backbone.", self.backbone
        return "backbone.model.", self.backbone.model


def feature_pyramid(
    model: nn.Module,
    strides: Sequence[float] = STRIDES,
    dim: int | None = None,
    out_indices: int | Sequence[int] | None = None,
    output_stride: int | None = None,
) -> FeaturePyramid:
    """Make a model a backbone for decoders. The model is taken apart: its modules become the backbone's.

    The stem of a Sequencer gets another stride where `strides` need it (`restride`). Its last map takes the final norm.
    The strides of any other model must be powers of two apart from `strides`.

    Args:
        model: a `Sequencer2D`, a peer, or a model of timm's with `forward_intermediates`.
        strides: of the maps, in pixels, in ascending order. (3.5, 7, 14, 28) leaves the paper's models as they are.
        dim: channels of every map; None keeps those of the stages.
        out_indices: the levels to return, as in timm; None for all.
        output_stride: the coarsest stride; levels beyond it come at this stride, as dilated backbones have them.

    Raises:
        ConfigError: strides that cannot be reached, a level that does not exist, or a model without feature maps.
    """
    wanted = _check_strides(strides, output_stride)
    if dim is not None and (isinstance(dim, bool) or not isinstance(dim, int) or dim < 1):
        raise ConfigError(f"pyramid_dim={dim!r}: expected a positive number of channels, or None for the stages' own")
    levels = take_indices(len(wanted), out_indices)
    if isinstance(model, Sequencer2D):
        restride(model, stem_for(model.config, wanted))
    infos: Any = getattr(model, "feature_info", None)
    if not infos:
        raise ConfigError(f"{type(model).__name__} does not describe its feature maps (timm's feature_info)")
    count = len(infos)
    sources = choose_sources([infos[i] for i in range(count)], wanted)
    stages = sorted({sources[level].stage for level in levels})
    if isinstance(model, Sequencer2D):
        backbone: nn.Module = Sequencer2DFeatures(model, stages, norm=True)
        normed = () if isinstance(model.norm, nn.Identity) else (count - 1,)
        return FeaturePyramid(backbone, sources, dim, levels, normed)
    return FeaturePyramid(peer_features(model, stages), sources, dim, levels)


def check_pyramid(features_only: bool, pyramid: Any, dim: Any, output_fmt: str) -> None:
    """Raise `ConfigError` for options of a factory that do not go together."""
    if pyramid is None and dim is not None:
        raise ConfigError("pyramid_dim is the width of a pyramid: it needs pyramid=(4, 8, 16, 32) or other strides")
    if pyramid is not None and not features_only:
        raise ConfigError("pyramid makes a backbone for decoders: it needs features_only=True")
    if pyramid is not None and output_fmt != "NCHW":
        raise ConfigError(f"output_fmt={output_fmt!r}: a pyramid's maps are NCHW; leave it out")


def _check_strides(strides: Sequence[float], output_stride: int | None) -> list[Fraction]:
    given = list(strides) if isinstance(strides, Sequence) and not isinstance(strides, str) else []
    numbers = all(isinstance(s, int | float) and not isinstance(s, bool) and 0 < s <= 4096 for s in given)
    if not given or not numbers or sorted(given) != given:
        raise ConfigError(f"pyramid={strides!r}: expected strides in pixels in ascending order, such as {STRIDES}")
    if output_stride is not None and (not isinstance(output_stride, int) or output_stride < given[0]):
        raise ConfigError(
            f"output_stride={output_stride!r}: expected a whole number, at least the finest stride {given[0]}"
        )
    return [Fraction(s if output_stride is None else min(s, output_stride)) for s in given]


def _plain(stride: Fraction) -> int | float:
    return int(stride) if stride.denominator == 1 else float(stride)


def _ceil(size: int, stride: Fraction) -> int:
    """⌈size / stride⌉, in integers, which torch.export follows for any size."""
    return (size * stride.denominator + stride.numerator - 1) // stride.numerator
