"""Other models beside Sequencer: the same call creates them, and the same files hold their weights.

A peer is written `timm:NAME`, NAME being one of timm's model names, or by a name of the table in `sequencer2d.peers`.
"""

import copy
import logging
import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sequencer2d.errors import CheckpointError, ConfigError, did_you_mean, first_line
from sequencer2d.models.checkpoints import read_checkpoint
from sequencer2d.models.description import is_number, is_text
from sequencer2d.models.features import OF_CLASSIFIER
from sequencer2d.models.specs import PREFIX
from sequencer2d.nn.maps import check_layout, take_indices
from sequencer2d.peers import PEERS

logger = logging.getLogger("sequencer2d")

LARGEST_OPTION = 20_000
FETCHING = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "device", "dtype")
"""Arguments of `timm.create_model` by which it reads files or the network, or does not build for the CPU."""


def create_peer(name: str, *, pretrained: bool = False, download: bool = True, **options: Any) -> nn.Module:
    """Create a peer.

    Args:
        name: `timm:NAME`, or a name of the table of peers.
        pretrained: load timm's published weights.
        download: fetch them from the Hugging Face hub. Otherwise they are read from the hub's cache, without network.
        **options: for `timm.create_model`. Those that this model does not take are an error, except `img_size` and
            `drop_path_rate`, which models without that notion of size or depth do not need. For the table's models the
            fields of their configuration.

    Raises:
        ConfigError: no such model, or an option that it does not take.
        CheckpointError: published weights that cannot be fetched, or that are not in the cache.
    """
    if name in PEERS:
        if pretrained:
            raise CheckpointError(
                f"the weights of {name} are not fetched: download its authors' file (docs/peers.md says where) and "
                f"give it as {name}=FILE, or as checkpoint= in Python"
            )
        from sequencer2d.peers import build_peer

        return build_peer(name, **options)
    import timm

    bare = name.removeprefix(PREFIX)
    if not timm.is_model(bare.split(".")[0]):
        raise ConfigError(f"timm has no model {bare!r}; {did_you_mean(bare, timm.list_models())}")
    if pretrained and not download:
        options = {**options, "pretrained_cfg_overlay": {"file": _cached_weights(bare)}}
    for dropped in ((), ("img_size",), ("drop_path_rate",), ("img_size", "drop_path_rate")):
        chosen = {key: value for key, value in options.items() if key not in dropped}
        try:
            return _create_with_timm(bare, pretrained=pretrained, **copy.deepcopy(chosen))
        except TypeError as error:
            refused = error
        except (OSError, RuntimeError) as error:
            if not pretrained:
                raise ConfigError(f"timm cannot create {bare} with {options}: {error}") from error
            raise CheckpointError(
                f"cannot fetch timm's weights of {bare}: {first_line(error)}. Without a network, give a file "
                f"of weights ({name}=FILE) or random weights (random:{bare})"
            ) from error
    raise ConfigError(f"timm cannot create {bare} with {options}: {refused}")


def _create_with_timm(name: str, **options: Any) -> nn.Module:
    """timm's `create_model`, also under `torch.device("meta")`.

    RegNet computes its widths with tensors of the default device, and `torch.unique` has no outline in PyTorch 2.11:
    such a model is made on the CPU and its weights are dropped.
    """
    import timm

    try:
        return timm.create_model(name, **options)
    except NotImplementedError:
        if torch.get_default_device().type != "meta":
            raise
    with torch.device("cpu"):
        return timm.create_model(name, **options).to("meta")


def check_options(options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Options of a model as a file gives them, for `create_peer`: numbers, names, and lists of those (as tuples).

    Raises:
        CheckpointError: values of another kind or size, or an option by which timm reads another file or the network.
    """
    checked = {}
    for key, value in options.items():
        values = value if isinstance(value, list | tuple) else [value]
        plain = all(v is None or is_text(v, 100) or is_number(v, -LARGEST_OPTION, LARGEST_OPTION) for v in values)
        if key in FETCHING or not key.isidentifier() or len(values) > 100 or not (plain or isinstance(value, bool)):
            raise CheckpointError(
                f"{where}: in its description the option {key[:40]!r} of timm's model cannot be set so"
            )
        checked[key] = tuple(value) if isinstance(value, list) else value
    return checked


def _cached_weights(name: str) -> str:
    """The file of timm's published weights in the hub's cache. Raises `CheckpointError` if it is not there."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    config = timm.get_pretrained_cfg(name)
    repository = str(config.hf_hub_id) if config and config.hf_hub_id else ""
    for file in ("model.safetensors", "pytorch_model.bin") if repository else ():
        path = try_to_load_from_cache(repository, file)
        if isinstance(path, str):
            return path
    raise CheckpointError(
        f"timm's weights of {name} are not on this machine: allow the download with --download, or give a file of "
        f"weights ({PREFIX}{name}=FILE)"
    )


def load_peer(name: str, source: str | os.PathLike[str], **options: Any) -> nn.Module:
    """Create a peer with weights from a file.

    A model of the table of peers is built for the image size that the file states, otherwise for its own; the option
    `img_size` then resamples what depends on it.

    Args:
        name: as for `create_peer`.
        source: as for `read_checkpoint`: the authors' file, or one of a run of ours.
        **options: as for `create_peer`. Another number of classes than the file's leaves its classifier out.

    Raises:
        ConfigError: no such model, or an option that it does not take.
        CheckpointError: a file that is missing, damaged or does not fit.
        InputError: an image size that the model does not take.
    """
    checkpoint = read_checkpoint(source)
    size = options.pop("img_size", None) if name in PEERS else None
    stated = checkpoint.meta.get("input", {}).get("size")
    if name in PEERS and stated:
        options["img_size"] = tuple(stated)
    model: Any = create_peer(name, **options)
    fit_peer(model, checkpoint.state_dict, str(checkpoint.path))
    if size is not None:
        model.set_input_size(img_size=size)
    return model


def fit_peer(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load weights into a peer, strictly, in place. A classifier for another number of classes is left out.

    Args:
        model: of timm or of the table of peers; it names its classifier in `pretrained_cfg`.
        state: the weights under the model's names.
        source: the file, for messages.

    Raises:
        CheckpointError: weights that do not fit, naming the first parameters.
    """
    fitted = dict(state)
    classifier = str((getattr(model, "pretrained_cfg", None) or {}).get("classifier", ""))
    own = model.state_dict()
    head = [key for key in (f"{classifier}.weight", f"{classifier}.bias") if key in fitted]
    if any(key not in own or own[key].shape != fitted[key].shape for key in head):
        fitted = {key: tensor for key, tensor in fitted.items() if key not in head}
        fitted |= {key: own[key] for key in head if key in own}
        logger.info("%s: its classifier is for other classes and is left out", source)
    load_strictly(model, fitted, source)


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load `state` into any model, in place. Raises `CheckpointError` in one line for weights that do not fit."""
    try:
        model.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        # One line of these names every parameter of the model.
        lines = [textwrap.shorten(line, 200, placeholder=" …") for line in str(error).splitlines()[1:4]]
        raise CheckpointError(f"{source} does not fit {type(model).__name__}: {'; '.join(lines)}") from error


def peer_features(model: Any, out_indices: int | Sequence[int] | None = None, output_fmt: str = "NCHW") -> nn.Module:
    """A model's extractor of feature maps: images → a list of maps, NCHW or NHWC; what they do not need is removed.

    Args:
        model: with timm's `forward_intermediates`; it is taken apart.
        out_indices: maps, in the order of `model.feature_info`; None for all.
        output_fmt: layout of the maps.

    Raises:
        ConfigError: an index or a layout that does not exist, or a model without feature maps.
    """
    from timm.models._features import FeatureGetterNet

    if not hasattr(model, "forward_intermediates"):
        raise ConfigError(f"{type(model).__name__} has no feature maps (timm's forward_intermediates)")
    check_layout(output_fmt)
    chosen = tuple(sorted(take_indices(len(model.feature_info), out_indices)))  # as the maps come
    features = FeatureGetterNet(model, chosen, output_fmt=output_fmt)
    features.in_chans = getattr(model, "in_chans", 3)
    features.pretrained_cfg = {k: v for k, v in model.pretrained_cfg.items() if k not in OF_CLASSIFIER}
    return features
