"""Another stride from the same weights: the kernel of the stem is resampled, everything else stays."""

import math
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import nn

from sequencer2d.errors import ConfigError
from sequencer2d.models.config import ModelConfig
from sequencer2d.models.sequencer2d import Sequencer2D, data_config, describe_stages
from sequencer2d.nn.embed import PatchEmbed, PositionEmbedding, resample_grid
from sequencer2d.nn.pyramid import doublings


def restride(model: Sequencer2D, patch_size: int) -> None:
    """Give the stem a stride of `patch_size` pixels, in place; the strides of all stages change in proportion.

    The kernel is resampled as in FlexiViT (Beyer et al. 2023, arXiv:2212.08013), by the pseudo-inverse of bicubic
    resizing: a larger kernel returns for an enlarged patch what the old one returned for the patch. A position
    embedding is resampled to the new grid. The stride that the model has changes nothing.

    Raises:
        ConfigError: a patch size that is no positive integer, or a stem whose patches overlap.
    """
    if patch_size == model.config.patch_sizes[0]:
        return
    if model.config.stem_overlap:
        raise ConfigError("the stem's patches overlap, and such a kernel is not resampled: take stem_overlap=0")
    from timm.layers import resample_patch_embed

    config = model.config.replace(patch_sizes=(patch_size, *model.config.patch_sizes[1:]))
    stem = model.stem
    assert isinstance(stem, PatchEmbed)
    with torch.no_grad():
        weight = resample_patch_embed(stem.proj.weight.detach(), [patch_size, patch_size])
    with torch.device("meta"):
        new = PatchEmbed(config.in_chans, config.dims[0], patch_size, stride=config.total_stride, pad=config.pad)
    new.proj.weight = nn.Parameter(weight, requires_grad=stem.proj.weight.requires_grad)
    new.proj.bias = stem.proj.bias
    model.stem = new.train(stem.training)
    if isinstance(model.pos_embed, PositionEmbedding):
        positions = model.pos_embed.weight
        grid = resample_grid(positions.detach(), *config.grid(*config.img_size))
        model.pos_embed.weight = nn.Parameter(grid, requires_grad=positions.requires_grad)
    model.config = config
    model.feature_info = describe_stages(config)[: len(model.stages)]
    model.pretrained_cfg = {**model.pretrained_cfg, "pool_size": data_config(config, model.variant)["pool_size"]}


def stem_for(config: ModelConfig, strides: Sequence[Fraction]) -> int:
    """The stem's stride, in pixels, from which every stage reaches `strides` by doubling or halving its map.

    Of several it is the one nearest to the model's own, which changes the pretrained kernel least.

    Raises:
        ConfigError: there is none.
    """
    own = config.patch_sizes[0]
    after = [Fraction(reduction, own) for reduction in config.reductions]
    candidates = [
        int(patch)
        for power in range(-16, 17)
        if (patch := strides[-1] / after[-1] * Fraction(2) ** power).denominator == 1
        and all(doublings(stride / (patch * stage)) is not None for stride in strides for stage in after)
    ]
    if not candidates:
        raise ConfigError(
            f"pyramid={tuple(map(float, strides))}: no stride of the stem leads there from stages of strides "
            f"{config.reductions} by powers of two; choose strides that are powers of two apart, such as (4, 8, 16, 32)"
        )
    return min(candidates, key=lambda patch: abs(math.log(patch / own)))
