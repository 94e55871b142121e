"""timm's models beside ours: the same call creates them, and the same files hold their weights.

A peer is written `timm:NAME`, NAME being one of timm's model names.
"""

import copy
from typing import Any

from torch import nn

from sequencer2d.errors import CheckpointError, ConfigError
from sequencer2d.models.config import did_you_mean

PREFIX = "timm:"


def is_peer(name: str) -> bool:
    """Whether `name` asks for one of timm's models."""
    return name.startswith(PREFIX)


def create_peer(name: str, *, pretrained: bool = False, download: bool = True, **options: Any) -> nn.Module:
    """Create timm's model `timm:NAME`.

    Args:
        name: with the prefix.
        pretrained: load timm's published weights.
        download: fetch them from the Hugging Face hub. Otherwise they are read from the hub's cache, without network.
        **options: for `timm.create_model`. Those that this model does not take are an error, except `img_size` and
            `drop_path_rate`, which models without that notion of size or depth do not need.

    Raises:
        ConfigError: no such model, or an option that it does not take.
        CheckpointError: published weights that cannot be fetched, or that are not in the cache.
    """
    import timm

    bare = name.removeprefix(PREFIX)
    if not timm.is_model(bare.split(".")[0]):
        raise ConfigError(f"timm has no model {bare!r}; {did_you_mean(bare, timm.list_models())}")
    if pretrained and not download:
        options = {**options, "pretrained_cfg_overlay": {"file": _cached_weights(bare)}}
    for dropped in ((), ("img_size",), ("drop_path_rate",), ("img_size", "drop_path_rate")):
        chosen = {key: value for key, value in options.items() if key not in dropped}
        try:
            return timm.create_model(bare, pretrained=pretrained, **copy.deepcopy(chosen))
        except TypeError as error:
            refused = error
        except (OSError, RuntimeError) as error:
            if not pretrained:
                raise ConfigError(f"timm cannot create {bare} with {options}: {error}") from error
            raise CheckpointError(
                f"cannot fetch timm's weights of {bare}: {str(error).splitlines()[0]}. Without a network, give a file "
                f"of weights ({name}=FILE) or random weights (random:{bare})"
            ) from error
    raise ConfigError(f"timm cannot create {bare} with {options}: {refused}")


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
