"""timm's models beside ours: the same call creates them, and the same files hold their weights.

A peer is written `timm:NAME`, NAME being one of timm's model names.
"""

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from sequencer2d.errors import CheckpointError, ConfigError, did_you_mean
from sequencer2d.models.description import is_number, is_text

PREFIX = "timm:"
LARGEST_OPTION = 20_000
FETCHING = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "device", "dtype")
"""Arguments of `timm.create_model` by which it reads files or the network, or does not build for the CPU."""


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
