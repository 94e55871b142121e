"""The model: stem, stages of blocks, norm, head. Images are NCHW, everything inside is NHWC.

One class runs every row of the table of variants: the hierarchical Sequencer2D and, with `axes="flatten"` and equal
stages, the vanilla VSequencer. Parameter names are timm's.
"""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sequencer2d.input_spec import InputSpec
from sequencer2d.models.config import ModelConfig
from sequencer2d.models.hub import HubMixin
from sequencer2d.models.variants import HUB_WEIGHTS
from sequencer2d.nn.blocks import NORM_EPS, ClassifierHead, SequencerBlock
from sequencer2d.nn.embed import Downsample, PatchEmbed, PositionEmbedding
from sequencer2d.nn.init import init_classifier, init_weights
from sequencer2d.nn.maps import check_layout, take_indices, to_layout
from sequencer2d.nn.pretrained import PretrainedConfigured
from sequencer2d.nn.rnn2d import RNN2D


def data_config(config: ModelConfig, variant: str) -> dict[str, Any]:
    """How images are prepared for the model, in the terms of timm's `pretrained_cfg` (sizes in pixels)."""
    cfg: dict[str, Any] = {
        "architecture": variant,
        "num_classes": config.num_classes,
        **InputSpec.for_images(config.in_chans, config.img_size).to_timm(),
        "fixed_input_size": False,
        "pool_size": config.grid(*config.img_size, stage=-1),
        "first_conv": "stem.proj",
        "classifier": "head.fc",
    }
    if variant in HUB_WEIGHTS:
        cfg |= {"hf_hub_id": HUB_WEIGHTS[variant], "license": "apache-2.0"}
    return cfg


def describe_stages(config: ModelConfig) -> list[dict[str, Any]]:
    """Per stage its channels, pixels per token, module and number, in the terms of timm's `feature_info`."""
    return [
        {"num_chs": dim, "reduction": reduction, "module": f"stages.{i}", "index": i}
        for i, (dim, reduction) in enumerate(zip(config.dims, config.reductions, strict=True))
    ]


class Stage(nn.Module):
    """A downsampling convolution (none in the first stage) and a sequence of blocks, NHWC → NHWC."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        dims = config.dims
        first = index == 0
        self.downsample: nn.Module = (
            nn.Identity() if first else Downsample(dims[index - 1], dims[index], config.patch_sizes[index])
        )
        self.blocks = nn.Sequential(
            *(
                SequencerBlock(
                    dims[index],
                    config.hidden_dims[index],
                    mlp_ratio=config.mlp_ratio,
                    drop_path=rate,
                    proj_drop=config.proj_drop_rate,
                    cell=config.cell,
                    axes=config.axes,
                    bidirectional=config.bidirectional,
                    fusion=config.fusion,
                    implementation=config.implementation,
                    gates=config.gates,
                )
                for rate in config.drop_path_rates[index]
            )
        )
        self.grad_checkpointing = False

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x_BHWC = self.downsample(x_BHWC)
        for block in self.blocks:
            if self.grad_checkpointing and torch.is_grad_enabled():
                x_BHWC = checkpoint(block, x_BHWC, use_reentrant=False)
            else:
                x_BHWC = block(x_BHWC)
        return x_BHWC


class Backbone(PretrainedConfigured, nn.Module):
    """What a model and a feature extractor share: `config`, `variant`, and the parts up to the last stage that runs."""

    config: ModelConfig
    variant: str
    stem: nn.Module
    pos_embed: nn.Module
    stages: nn.Sequential

    def run_stages(self, x_BCHW: Tensor) -> Iterator[Tensor]:
        """Images (B, in_chans, H, W) → the output of each stage, (B, H', W', C), computed as it is asked for."""
        x_BHWC = self.pos_embed(self.stem(x_BCHW))
        for stage in self.stages:
            x_BHWC = stage(x_BHWC)
            yield x_BHWC

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute every block in backward instead of keeping its activations."""
        for stage in self.stages:
            cast(Stage, stage).grad_checkpointing = enable

    def set_implementation(self, name: str) -> None:
        """Set how the recurrence runs in every mixer (the names are those of `sequencer2d.ops.rnn2d`)."""
        for module in self.modules():
            if isinstance(module, RNN2D):
                module.set_implementation(name)
        self.config = self.config.replace(implementation=name)

    def no_weight_decay(self) -> set[str]:
        """Return the parameters besides norms and biases that weight decay leaves out: none.

        The position embedding decays in the paper's runs, as every parameter of more than one dimension.
        """
        return set()


class Sequencer2D(HubMixin, Backbone):
    """Sequencer2D or VSequencer (Tatsunami and Taki 2022, Figure 2 and Table 1), as `config` says.

    Args:
        config: the whole description.
        variant: its name in the table of variants, "" if it has none; checkpoints carry it.

    Shape: images (B, in_chans, H, W), floating, normalized → logits (B, num_classes). H and W may be any number of
    pixels from the total stride (14 for the paper's models) up. What exceeds its multiples is cut off at the bottom and
    the right, as in timm, or with `pad="zeros"` filled up there with zeros.

    Raises:
        InputError: images of another shape or dtype, or smaller than the total stride.

    Attributes:
        output_fmt: layout of what `forward_features` returns, "NHWC".
        feature_dim: its axis of channels, -1.
        feature_info: per stage, a dict of `num_chs`, `reduction` (pixels per token) and `module` (its name).
        pretrained_cfg: see `data_config`; timm's `resolve_model_data_config(model)` reads it.
        default_cfg: the same, by timm's older name.
    """

    def __init__(self, config: ModelConfig, variant: str = "") -> None:
        super().__init__()
        self.config = config
        self.variant = variant
        self.num_classes = config.num_classes
        self.in_chans = config.in_chans
        self.global_pool = config.global_pool
        self.num_features = self.head_hidden_size = config.dims[-1]
        self.output_fmt, self.feature_dim = "NHWC", -1
        self.feature_info = describe_stages(config)
        self.pretrained_cfg = data_config(config, variant)

        self.stem = PatchEmbed(
            config.in_chans,
            config.dims[0],
            config.patch_sizes[0],
            stride=config.total_stride,
            pad=config.pad,
            overlap=config.stem_overlap,
        )
        self.pos_embed: nn.Module = nn.Identity()
        if config.position_embedding:
            self.pos_embed = PositionEmbedding(*config.grid(*config.img_size), config.dims[0])
        self.stages = nn.Sequential(*(Stage(config, i) for i in range(len(config.depths))))
        self.norm: nn.Module = nn.LayerNorm(self.num_features, eps=NORM_EPS)
        self.head = ClassifierHead(self.num_features, config.num_classes, config.global_pool, config.drop_rate)
        init_weights(self, config.conv_init)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x_BCHW))

    def forward_features(self, x_BCHW: Tensor) -> Tensor:
        """Images (B, in_chans, H, W) → normalized tokens of the last stage (B, H', W', num_features)."""
        return self.norm(self.stages(self.pos_embed(self.stem(x_BCHW))))

    def forward_head(self, x_BHWC: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens of `forward_features` → logits (B, num_classes), or the pooled features (B, num_features)."""
        return self.head(x_BHWC, pre_logits=pre_logits)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the outputs of chosen stages on the way to the features.

        Args:
            x: images (B, in_chans, H, W).
            indices: stages, in ascending order: None for all, an integer for the last n, or their numbers.
            norm: apply the final norm to the last stage's output.
            stop_early: leave out the stages after the last one that was asked for.
            output_fmt: layout of the returned maps, "NCHW" (contiguous) or "NHWC".
            intermediates_only: return the list alone.

        Returns:
            The features, NHWC (normalized if the last stage ran), and the list of maps; or that list.

        Raises:
            ConfigError: an index or a layout that does not exist.
        """
        check_layout(output_fmt)
        last = len(self.stages) - 1
        chosen = take_indices(last + 1, indices)
        maps = []
        features = x
        for index, features in enumerate(self.run_stages(x)):
            if index in chosen:
                maps.append(to_layout(self.norm(features) if norm and index == last else features, output_fmt))
            if stop_early and index == max(chosen):
                break
        if intermediates_only:
            return maps
        return (self.norm(features) if index == last else features), maps

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove, in place, what the maps of chosen stages do not need; the features then end at the last of them.

        Args:
            indices: stages, as in `forward_intermediates`.
            prune_norm: remove the final norm also where the last stage stays.
            prune_head: remove classifier and pooling also where the last stage stays.

        Returns:
            The numbers of the chosen stages.

        Raises:
            ConfigError: an index that does not exist.
        """
        chosen = list(take_indices(len(self.stages), indices))
        shortened = max(chosen) < len(self.stages) - 1
        self.stages = self.stages[: max(chosen) + 1]
        if prune_norm or shortened:
            self.norm = nn.Identity()
        if shortened:
            self.num_features = self.head_hidden_size = self.config.dims[max(chosen)]
        if prune_head or shortened:
            self.reset_classifier(0, "")
        return chosen

    def get_classifier(self) -> nn.Module:
        """Return the classifier: a linear layer, or the identity for 0 classes."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new one (zero, on the same device and dtype); 0 classes remove it."""
        changes: dict[str, Any] = {"num_classes": num_classes}
        if global_pool is not None:
            changes["global_pool"] = global_pool
        config = self.config.replace(**changes)
        like = next(self.parameters())
        self.head = ClassifierHead(self.num_features, num_classes, config.global_pool, config.drop_rate)
        init_classifier(self.head)
        self.head.to(device=like.device, dtype=like.dtype).train(self.training)
        self.config, self.num_classes, self.global_pool = config, num_classes, config.global_pool
        self.pretrained_cfg = {**self.pretrained_cfg, "num_classes": num_classes}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return the regular expressions by which timm groups parameters by depth (layer-wise learning rates)."""
        per_block = [(r"^stages\.(\d+)\.blocks\.(\d+)", None), (r"^stages\.(\d+)\.downsample", (0,))]
        per_stage = [(r"^stages\.(\d+)", None)]
        return {"stem": r"^(?:stem|pos_embed)", "blocks": [*(per_stage if coarse else per_block), (r"^norm", (99999,))]}
