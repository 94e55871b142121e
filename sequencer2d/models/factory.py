"""From a name, or a checkpoint, to a model."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from sequencer2d.errors import CheckpointError, ConfigError, did_you_mean
from sequencer2d.models.checkpoints import read_checkpoint
from sequencer2d.models.describing import take_over_input
from sequencer2d.models.features import Sequencer2DFeatures
from sequencer2d.models.loading import load_weights, restore
from sequencer2d.models.peers import create_peer, load_peer, peer_features
from sequencer2d.models.pyramid import FeaturePyramid, check_pyramid, feature_pyramid
from sequencer2d.models.sequencer2d import Sequencer2D
from sequencer2d.models.shipped import SHIPPED, shipped_file
from sequencer2d.models.specs import is_peer
from sequencer2d.models.variants import HUB_WEIGHTS, VARIANTS, model_config
from sequencer2d.peers import PEERS


def create_model(
    name: str,
    *,
    pretrained: bool = False,
    checkpoint: str | None = None,
    num_classes: int | None = None,
    in_chans: int = 3,
    drop_path_rate: float = 0.0,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    output_fmt: str = "NCHW",
    pyramid: Sequence[float] | None = None,
    pyramid_dim: int | None = None,
    **overrides: Any,
) -> "Sequencer2D | Sequencer2DFeatures | FeaturePyramid | nn.Module":
    """Create a model by the name of its variant.

    Args:
        name: one of `list_models()`, a peer (`list_peers()`), or `timm:NAME` for one of timm's models.
        pretrained: load published weights: those that come with the package (`models.shipped.SHIPPED`) need no network;
            the others, for ImageNet-1K, are fetched from the Hugging Face hub (Sequencer2D-S, -M, -L; timm's).
        checkpoint: load these weights instead; any source that `read_checkpoint` takes.
        num_classes: outputs of the classifier; 0 for none. Another number than the weights' drops their classifier.
            None: as many as weights that come with the package have, otherwise 1000.
        in_chans: channels of the images. Weights for 3 channels are adapted.
        drop_path_rate: stochastic depth of the last block.
        features_only: return a `Sequencer2DFeatures`, whose output is the list of the stages' maps.
        out_indices: the stages of those maps, or levels of the pyramid; None for all.
        output_fmt: layout of those maps, "NCHW" or "NHWC".
        pyramid: strides, in pixels, of the maps that a decoder expects, such as (4, 8, 16, 32): return a
            `FeaturePyramid` over the stages instead, NCHW (`feature_pyramid`). It needs `features_only`.
        pyramid_dim: channels of all its maps; None keeps those of the stages.
        **overrides: any other field of `ModelConfig`, such as `patch_sizes=(2, 2, 1, 1)` for 32² images; of a peer's
            configuration, or arguments of timm's.

    Returns:
        A `Sequencer2D`, or with `features_only` a `Sequencer2DFeatures` or `FeaturePyramid`, in training mode on the
        CPU. A peer is a `Peer` or timm's class, its extractor of features timm's.

    Raises:
        ConfigError: an unknown name or override, or a value that does not fit.
        CheckpointError: weights that are missing, damaged or don't fit the model.
    """
    if out_indices is not None and not features_only:
        raise ConfigError("out_indices chooses feature maps: it needs features_only=True")
    check_pyramid(features_only, pyramid, pyramid_dim, output_fmt)
    if pretrained and checkpoint is not None:
        raise ConfigError(f"pretrained=True and checkpoint={checkpoint!r} were both given: choose one")
    is_shipped = pretrained and name in SHIPPED
    if num_classes is None:
        num_classes = SHIPPED[name].num_classes if is_shipped else 1000
    if is_peer(name):
        options = {"num_classes": num_classes, "in_chans": in_chans, "drop_path_rate": drop_path_rate, **overrides}
        if checkpoint is None:
            peer = create_peer(name, pretrained=pretrained, **options)
        else:
            peer = load_peer(name, checkpoint, **options)
        if pyramid is not None:
            return feature_pyramid(peer, pyramid, pyramid_dim, out_indices)
        return peer_features(peer, out_indices, output_fmt) if features_only else peer
    if name not in VARIANTS:
        raise ConfigError(f"no model {name!r}; {did_you_mean(name, (*VARIANTS, *PEERS))}")
    config = model_config(name, num_classes=num_classes, in_chans=in_chans, drop_path_rate=drop_path_rate, **overrides)
    source = _published(name) if pretrained else checkpoint
    model = Sequencer2D(config, name)
    if source is not None:
        loaded = load_weights(model, source)
        if is_shipped:
            take_over_input(model, loaded.meta, SHIPPED[name].num_classes, loaded.path)
    if pyramid is not None:
        return feature_pyramid(model, pyramid, pyramid_dim, out_indices)
    return Sequencer2DFeatures(model, out_indices, output_fmt) if features_only else model


def load_model(
    source: str | os.PathLike[str],
    *,
    name: str | None = None,
    hub_options: Mapping[str, Any] | None = None,
    **overrides: Any,
) -> Sequencer2D:
    """Rebuild a model, in eval mode on the CPU, from what its checkpoint says of itself.

    A file that says nothing is recognized by its parameters if they are those of a variant.

    Args:
        source: as for `read_checkpoint`.
        name: the variant, for files of which neither is true.
        hub_options: as for `read_checkpoint`.
        **overrides: fields of `ModelConfig` to change, `num_classes` and `in_chans` included.

    Returns:
        The model. Its `pretrained_cfg` holds the input that the checkpoint was made for, and as `label_names` its class
        names (None where they are not known).

    Raises:
        CheckpointError: as `load_weights`, or nobody says which model it is.
        ConfigError: an override that does not exist or does not fit.
    """
    return restore(Sequencer2D, read_checkpoint(source, hub_options=hub_options), name=name, **overrides)


def _published(name: str) -> str:
    if name in SHIPPED:
        return str(shipped_file(name))
    if name not in HUB_WEIGHTS:
        raise CheckpointError(
            f"no published weights for {name!r}; there are some for {', '.join((*SHIPPED, *HUB_WEIGHTS))}. "
            "Use pretrained=False, or checkpoint= with a file of your own"
        )
    return f"hf-hub:{HUB_WEIGHTS[name]}"
