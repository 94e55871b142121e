"""What all peers share: timm's contract for image models, around the stages that a family runs.

Images are NCHW. Tokens are maps (B, H, W, C), or sequences (B, N, C) where a family has a class token, which stands
first. Parameter names are those of the published checkpoints.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sequencer2d.errors import InputError
from sequencer2d.input_spec import InputSpec
from sequencer2d.nn.embed import resample_grid
from sequencer2d.nn.maps import check_layout, take_indices, to_layout
from sequencer2d.nn.pretrained import PretrainedConfigured
from sequencer2d.peers.config import PeerConfig

INIT_STD = 0.02
LAST = (99999,)
"""Where timm's grouping by depth puts a parameter: with the group before it."""


def peer_data_config(config: PeerConfig, variant: str) -> dict[str, Any]:
    """How images are prepared for the model, in the terms of timm's `pretrained_cfg` (sizes in pixels)."""
    return {
        **InputSpec.for_images(config.in_chans, config.img_size, config.crop_pct).to_timm(),
        "architecture": variant,
        "num_classes": config.num_classes,
        "fixed_input_size": config.fixed_size,
        "pool_size": None,
        "classifier": "head",
    }


class Peer(PretrainedConfigured, nn.Module):
    """A model of one of the paper's competitors.

    A family builds its parts between `super().__init__` and `_finish`, and implements `run_stages`, `_keep_stages` and
    the class attributes below.

    Shape: images (B, in_chans, H, W), floating, normalized → logits (B, num_classes).

    Attributes:
        config: its description.
        variant: its name in the table of peers; "" if it has none.
        output_fmt: layout of `forward_features`: "NHWC", or "NLC" (class token first) where `num_prefix_tokens` is 1.
        feature_info: for each map, a dict of `num_chs`, `reduction` (pixels per token) and `module`. A family without a
            pyramid has one map per block, as timm's do.
        pretrained_cfg: see `peer_data_config`.
        default_cfg: the same, by timm's older name.
    """

    undecayed: ClassVar[frozenset[str]] = frozenset()
    """Parameters besides norms and biases that the authors leave out of weight decay."""
    stem: ClassVar[str] = r"^patch_embed"
    layers: ClassVar[tuple[tuple[str, tuple[int, ...] | None], ...]] = ()
    """Regular expressions of the parameters of one block, in timm's terms of `group_matcher`."""
    num_prefix_tokens: ClassVar[int] = 0

    def __init__(self, config: PeerConfig, variant: str = "") -> None:
        super().__init__()
        self.config, self.variant = config, variant
        self.in_chans, self.num_classes, self.global_pool = config.in_chans, config.num_classes, config.global_pool
        self.num_features = self.head_hidden_size = config.dims[-1]
        self.output_fmt = "NLC" if self.num_prefix_tokens else "NHWC"
        self.feature_dim = -1
        self.grad_checkpointing = False
        self.pretrained_cfg = peer_data_config(config, variant)
        self.feature_info: list[dict[str, Any]] = []
        self.norm: nn.Module = nn.Identity()
        self.head: nn.Module = nn.Identity()

    def _finish(self, maps: Iterable[tuple[int, int, str]], norm_eps: float) -> None:
        """Add norm and classifier, describe the maps (channels, pixels per token, module) and draw first weights."""
        self.feature_info = [
            {"num_chs": channels, "reduction": reduction, "module": module, "index": index}
            for index, (channels, reduction, module) in enumerate(maps)
        ]
        self.norm = nn.LayerNorm(self.num_features, eps=norm_eps)
        self.head_drop = nn.Dropout(self.config.drop_rate)
        self.head = self._new_head()
        for module in self.modules():
            if isinstance(module, nn.Linear):
                _init_linear(module)

    def run_stages(self, x_BCHW: Tensor) -> Iterator[Tensor]:
        """Images (B, in_chans, H, W) → the tokens after each map of `feature_info`, computed as they are asked for."""
        raise NotImplementedError

    def _keep_stages(self, count: int) -> None:
        """Remove, in place, what comes after the first `count` maps of `feature_info`."""
        raise NotImplementedError

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the tokens that have a class token, for an image of `height`×`width` pixels."""
        raise NotImplementedError

    def _run(self, blocks: Iterable[nn.Module], x: Tensor, *arguments: Any) -> Tensor:
        """Run blocks one after the other; with checkpointing, their activations are computed again in backward."""
        for block in blocks:
            if self.grad_checkpointing and torch.is_grad_enabled():
                x = cast(Tensor, checkpoint(block, x, *arguments, use_reentrant=False))
            else:
                x = block(x, *arguments)
        return x

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x_BCHW))

    def forward_features(self, x_BCHW: Tensor) -> Tensor:
        """Images (B, in_chans, H, W) → normalized tokens of the last stage, in the layout `output_fmt`."""
        *_, tokens = self.run_stages(x_BCHW)
        return self.norm(tokens)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens of `forward_features` → logits (B, num_classes), or the pooled features (B, num_features)."""
        x = self.head_drop(self._pool(x))
        return x if pre_logits else self.head(x)

    def _pool(self, x: Tensor) -> Tensor:
        if self.global_pool == "token":
            return x[:, 0]
        if self.global_pool == "avg":
            return x[:, self.num_prefix_tokens :].mean(dim=1) if x.ndim == 3 else x.mean(dim=(1, 2))
        return torch.amax(x, dim=(1, 2)) if self.global_pool == "max" else x

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the maps of chosen stages on the way to the features.

        Args:
            x: images (B, in_chans, H, W).
            indices: of `feature_info`, in ascending order: None for all, an integer for the last n, or their numbers.
            norm: apply the final norm to the last map.
            stop_early: leave out the stages after the last one that was asked for.
            output_fmt: layout of the returned maps, "NCHW" (contiguous) or "NHWC". They never hold the class token.
            intermediates_only: return the list alone.

        Returns:
            The features, as `forward_features` gives them if the last stage ran, and the list of maps; or that list.

        Raises:
            ConfigError: an index or a layout that does not exist.
        """
        check_layout(output_fmt)
        last = len(self.feature_info) - 1
        chosen = take_indices(last + 1, indices)
        maps: list[Tensor] = []
        tokens = x
        for index, tokens in enumerate(self.run_stages(x)):
            if index in chosen:
                normed = self.norm(tokens) if norm and index == last else tokens
                maps.append(to_layout(self._as_map(normed, x), output_fmt))
            if stop_early and index == max(chosen):
                break
        if intermediates_only:
            return maps
        return (self.norm(tokens) if index == last else tokens), maps

    def _as_map(self, tokens: Tensor, x_BCHW: Tensor) -> Tensor:
        """Tokens of any layout → (B, H, W, C)."""
        if tokens.ndim == 4:
            return tokens
        return tokens[:, self.num_prefix_tokens :].unflatten(1, self._grid(*x_BCHW.shape[2:]))

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
        chosen = list(take_indices(len(self.feature_info), indices))
        count = max(chosen) + 1
        shortened = count < len(self.feature_info)
        if shortened:
            self._keep_stages(count)
            self.feature_info = self.feature_info[:count]
            self.num_features = self.head_hidden_size = self.feature_info[-1]["num_chs"]
        if prune_norm or shortened:
            self.norm = nn.Identity()
        if prune_head or shortened:
            self.reset_classifier(0, "")
        return chosen

    def get_classifier(self) -> nn.Module:
        """Return the classifier: a linear layer, or the identity for 0 classes."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new one on the same device and dtype; 0 classes remove it."""
        changes: dict[str, Any] = {"num_classes": num_classes}
        if global_pool is not None:
            changes["global_pool"] = global_pool
        self.config = self.config.replace(**changes)
        self.num_classes, self.global_pool = num_classes, self.config.global_pool
        like = next(self.parameters())
        self.head = self._new_head().to(device=like.device, dtype=like.dtype).train(self.training)
        self.pretrained_cfg = {**self.pretrained_cfg, "num_classes": num_classes}

    def _new_head(self) -> nn.Module:
        if self.num_classes == 0:
            return nn.Identity()
        head = nn.Linear(self.num_features, self.num_classes)
        _init_linear(head)
        return head

    def set_input_size(self, img_size: int | tuple[int, int]) -> None:
        """Fit the model, in place, to images of `img_size` pixels (a side, or height and width).

        Raises:
            ConfigError: no such size.
            InputError: a family whose mixers take one size only.
        """
        self._resize(self.config.replace(img_size=img_size))
        self.pretrained_cfg = {**self.pretrained_cfg, "input_size": (self.in_chans, *self.config.img_size)}

    def _resize(self, config: PeerConfig) -> None:
        """Change what depends on the image's size. Families that run at any size have nothing to change."""
        self.config = config

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute every block in backward instead of keeping its activations."""
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Return the parameters besides norms and biases that weight decay leaves out, as in the authors' code."""
        return set(self.undecayed)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return the regular expressions by which timm groups parameters by depth (layer-wise learning rates)."""
        return {"stem": self.stem, "blocks": [*self.layers, (r"^norm|^cls_token", LAST)]}


def check_size(x_BCHW: Tensor, size: tuple[int, int], remedy: str) -> None:
    """Raise `InputError` unless images (B, C, H, W) have `size` pixels, (height, width)."""
    given = tuple(x_BCHW.shape[2:])
    if given != size:
        raise InputError(f"images of {given[0]}×{given[1]} pixels; this model takes {size[0]}×{size[1]} only: {remedy}")


def resample_positions(
    positions_1NC: Tensor, old: tuple[int, int], new: tuple[int, int], *, prefix: int, mode: str
) -> Tensor:
    """Fit positions (1, N, C) of one grid to another (rows, columns); those of `prefix` tokens before the grid stay.

    `mode` is "bicubic" or "bilinear".
    """
    if old == new:
        return positions_1NC
    first, grid = positions_1NC[:, :prefix], positions_1NC[:, prefix:].unflatten(1, old)
    return torch.cat((first, resample_grid(grid, *new, mode=mode).flatten(1, 2)), dim=1)


def _init_linear(layer: nn.Linear) -> None:
    """Truncated normal weight (std 0.02), zero bias."""
    nn.init.trunc_normal_(layer.weight, std=INIT_STD)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
