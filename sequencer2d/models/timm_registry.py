"""Our models and the peers under timm's registry, for those who ask for it."""

import contextlib
import dataclasses
import functools
import pickle
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from sequencer2d.errors import CheckpointError, ConfigError, did_you_mean
from sequencer2d.input_spec import InputSpec
from sequencer2d.models.config import ModelConfig
from sequencer2d.models.fit import fit_positions
from sequencer2d.models.names import StateDict, from_authors, is_authors, strip_wrappers
from sequencer2d.models.pyramid import STRIDES, check_pyramid, feature_pyramid
from sequencer2d.models.restriding import restride, stem_for
from sequencer2d.models.sequencer2d import Sequencer2D, data_config
from sequencer2d.models.shipped import SHIPPED, shipped_file
from sequencer2d.models.variants import HUB_WEIGHTS, TIMM_PREFIX, VARIANTS, model_config
from sequencer2d.models.weight_files import HOLDS_OBJECTS, read_safetensors_description
from sequencer2d.nn.maps import take_indices
from sequencer2d.peers import PEERS, build_peer
from sequencer2d.peers.base import Peer, peer_data_config
from sequencer2d.peers.config import PeerConfig, count_maps

PYRAMID = "_pyramid"
"""After a Sequencer's name: its strides are those that decoders expect, without further options."""
default_cfgs: dict[str, Any] = {}
"""Descriptions of weights by registered name. timm looks for them under this name in the module that registers."""


def register_timm(prefix: str = TIMM_PREFIX) -> list[str]:
    """Register every variant and every peer with timm: `timm.create_model("s2d_sequencer2d_s", ...)` creates ours.

    timm has models named sequencer2d_s, _m and _l of its own; the prefix keeps them as they are. Calling it again
    changes nothing. Published weights go by timm's tags: `s2d_sequencer2d_s.in1k`.

    Every Sequencer also has a name for libraries that know a backbone by its name alone: with `features_only=True`
    `s2d_sequencer2d_s_pyramid` returns maps of strides 4, 8, 16 and 32 (`feature_pyramid`), otherwise it is the
    classifier whose stem has the stride that this pyramid needs (`restride`).

    Returns:
        The registered names.

    Raises:
        ConfigError: a prefix that makes a name which timm already has, or one with a dot (timm's mark of a tag).
    """
    import timm.models

    names: dict[str, tuple[str, Sequence[float] | None]]
    names = {f"{prefix}{name}": (name, None) for name in (*VARIANTS, *PEERS)}
    names |= {f"{prefix}{name}{PYRAMID}": (name, STRIDES) for name in VARIANTS}
    if "." in prefix:
        raise ConfigError(f"prefix={prefix!r}: timm takes what follows a dot as the name of weights; leave it out")
    for registered, (name, strides) in names.items():
        if not timm.models.is_model(registered):
            default_cfgs.update(timm.models.generate_default_cfgs(_weights(registered, name)))
            timm.models.register_model(_entrypoint(registered, name, strides))
        elif timm.models.model_entrypoint(registered).__module__ != __name__:
            raise ConfigError(f"prefix={prefix!r}: timm has a model {registered!r} already; choose another prefix")
    return list(names)


def _weights(registered: str, name: str) -> dict[str, dict[str, Any]]:
    """timm's descriptions of the weights of a variant, by registered name and tag."""
    cfg = _data_config(_row(name), name) | {"architecture": registered}
    tag = HUB_WEIGHTS[name].partition(".")[2] if name in HUB_WEIGHTS else ""
    if name in SHIPPED:
        tag = SHIPPED[name].tag
        cfg |= _shipped_config(name)
    return {f"{registered}.{tag}" if tag else registered: cfg}


def _shipped_config(name: str) -> dict[str, Any]:
    """What timm's description says of weights that come with the package: their file, their input, their classes."""
    path = shipped_file(name)
    meta = read_safetensors_description(path)
    spec = InputSpec.for_images(3, (224, 224)).updated(meta).with_classes(meta)
    return {"file": str(path), "num_classes": SHIPPED[name].num_classes, **spec.to_timm()}


def _row(name: str) -> ModelConfig | PeerConfig:
    return VARIANTS[name] if name in VARIANTS else PEERS[name]


def _data_config(config: ModelConfig | PeerConfig, name: str) -> dict[str, Any]:
    return data_config(config, name) if isinstance(config, ModelConfig) else peer_data_config(config, name)


def _entrypoint(registered: str, name: str, strides: Sequence[float] | None) -> Any:
    def create(pretrained: bool = False, features_only: bool = False, **options: Any) -> Any:
        if strides is None or (features_only and options.get("pyramid") is not None):
            return _create(registered, name, pretrained, features_only=features_only, **options)
        if features_only:
            return _create(registered, name, pretrained, features_only=True, **(options | {"pyramid": strides}))
        model = _create(registered, name, pretrained, **options)
        restride(model, stem_for(model.config, [Fraction(stride) for stride in strides]))
        return model

    create.__name__ = create.__qualname__ = registered
    create.__doc__ = f"{name} of the package sequencer2d."
    return create


def _create(
    registered: str,
    name: str,
    pretrained: bool,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: Any = None,
    features_only: bool = False,
    out_indices: Any = None,
    output_fmt: str = "NCHW",
    pyramid: Sequence[float] | None = None,
    pyramid_dim: int | None = None,
    output_stride: int | None = None,
    **options: Any,
) -> Any:
    """What timm's factory calls: timm finds, loads and adapts the weights and wraps the model for features."""
    from timm.models import build_model_with_cfg, resolve_pretrained_cfg

    cfg = resolve_pretrained_cfg(registered, pretrained_cfg, pretrained_cfg_overlay)
    options.setdefault("img_size", tuple(cfg.input_size[-2:]))
    check_pyramid(features_only, pyramid, pyramid_dim, output_fmt)
    if output_stride is not None and pyramid is None:
        raise ConfigError(f"output_stride limits a pyramid's strides: create {registered} with pyramid={STRIDES}")
    if features_only and pyramid is None:
        depths = options.get("depths", _row(name).depths)
        stages = sorted(take_indices(count_maps(depths) if name in PEERS else len(depths), out_indices))
        getter = options.setdefault("feature_cls", "getter") == "getter"
        options["features_only"] = True
        options["feature_cfg"] = {
            "out_indices": tuple(stages),  # in the order of the maps
            "flatten_sequential": True,
            **({"output_fmt": output_fmt} if getter else {}),
        }
    elif out_indices is not None and not features_only:
        raise ConfigError("out_indices chooses feature maps: it needs features_only=True")
    try:
        model = build_model_with_cfg(
            functools.partial(_build, registered, name),
            registered,
            pretrained,
            pretrained_cfg=cfg,
            pretrained_filter_fn=_adapt,
            **options,
        )
    except (pickle.UnpicklingError, RuntimeError) as error:
        # timm's reader and torch's advise to switch off what refuses the file.
        if "weights_only" not in str(error):
            raise
        raise CheckpointError(f"the weights for {registered} are not read: their file {HOLDS_OBJECTS}") from None
    if isinstance(model, Sequencer2D | Peer):
        model.pretrained_cfg = _describe_input(model)
    if pyramid is not None:
        return feature_pyramid(model, pyramid, pyramid_dim, out_indices, output_stride)
    return model


def _build(registered: str, name: str, device: Any = None, dtype: Any = None, **options: Any) -> Sequencer2D | Peer:
    """The model itself. As Python's functions do, it answers an unknown option with a TypeError."""
    known = [field.name for field in dataclasses.fields(_row(name))]
    for option in options:
        if option not in known:
            raise TypeError(f"{registered} has no option {option!r}; {did_you_mean(option, known)}")
    with torch.device(device) if device is not None else contextlib.nullcontext():
        model = build_peer(name, **options) if name in PEERS else Sequencer2D(model_config(name, **options), name)
    return model.to(dtype=dtype)


def _adapt(state: Mapping[str, Tensor], model: Sequencer2D | Peer) -> StateDict:
    """Weights under our names and for the model's grid of positions; stem and classifier are timm's to adapt."""
    state = strip_wrappers(state)
    if isinstance(model, Peer):
        return state
    state = from_authors(state) if is_authors(state) else state
    return fit_positions(state, model.state_dict(), "the checkpoint")


def _describe_input(model: Sequencer2D | Peer) -> dict[str, Any]:
    """What timm says of the weights, for the channels, the size and the classes that the model has."""
    cfg, own = model.pretrained_cfg, _data_config(model.config, model.variant)
    changed: dict[str, Any] = {"input_size": own["input_size"], "pool_size": own["pool_size"]}
    if len(cfg["mean"]) != model.in_chans:
        changed |= {"mean": own["mean"], "std": own["std"]}
    if cfg["num_classes"] != model.num_classes:
        changed |= {"num_classes": model.num_classes, "label_names": None, "label_descriptions": None}
    return {**cfg, **changed}
