"""timm's `config.json`, as repositories on the Hugging Face hub hold it, and our own description of a model.

timm, and transformers through it, build a model from three entries: `architecture`, `model_args` and, for what comes
before the model, `pretrained_cfg`. All else, a `global_pool` at the top included, they take for a remark.
"""

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sequencer2d.errors import CheckpointError
from sequencer2d.files import read_json
from sequencer2d.input_spec import FIELDS
from sequencer2d.models.description import check_description
from sequencer2d.models.variants import HUB_WEIGHTS, TIMM_PREFIX, VARIANTS, changed_options

if TYPE_CHECKING:
    from sequencer2d.models.sequencer2d import Sequencer2D

logger = logging.getLogger("sequencer2d")

CONFIG = "config.json"

# Ours and timm's names of what both have. A ratio is one number here, and one a stage there.
_TIMM_NAMES = {
    "depths": "layers",
    "patch_sizes": "patch_sizes",
    "dims": "embed_dims",
    "hidden_dims": "hidden_sizes",
    "bidirectional": "bidirectional",
    "global_pool": "global_pool",
}
# (axes, fusion) and timm's (union, with_fc).
_TIMM_UNIONS = {
    ("both", "concat"): ("cat", True),
    ("both", "add"): ("add", True),
    ("both", "none"): ("cat", False),
    ("vertical", "concat"): ("vertical", True),
    ("vertical", "none"): ("vertical", False),
    ("horizontal", "concat"): ("horizontal", True),
    ("horizontal", "none"): ("horizontal", False),
}
# Arguments of timm's that leave the function of trained weights alone, or repeat what else is said.
_WITHOUT_EFFECT = (
    "num_classes",
    "in_chans",
    "nlhb",
    "drop_rate",
    "proj_drop_rate",
    "drop_path_rate",
    "device",
    "dtype",
)
_KEPT = (
    "input_size", "fixed_input_size", "pool_size", "first_conv", "classifier", "license", *FIELDS,
)  # fmt: skip


def to_hub_config(model: "Sequencer2D") -> dict[str, Any]:
    """timm's `config.json` of a model, as plain JSON values.

    A model that timm's own Sequencer can be goes by timm's name. Any other goes by the name of `register_timm`, which
    timm refuses until that was called: it would compute something else.
    """
    cfg, arguments = model.pretrained_cfg, _timm_arguments(model)
    ours = arguments is None
    config: dict[str, Any] = {
        "architecture": f"{TIMM_PREFIX}{model.variant}" if ours else model.variant,
        "num_classes": model.num_classes,
        "num_features": model.num_features,
        "global_pool": model.global_pool,
        "model_args": _our_arguments(model) if arguments is None else arguments,
        "pretrained_cfg": {key: cfg[key] for key in _KEPT if cfg.get(key) is not None}
        | {"num_classes": model.num_classes},
    }
    if cfg.get("label_names"):
        config["label_names"] = list(cfg["label_names"])
    if cfg.get("label_descriptions"):
        config["label_descriptions"] = dict(cfg["label_descriptions"])
    return json.loads(json.dumps(config))


def read_hub_config(path: Path) -> dict[str, Any]:
    """Our description of the model that a `config.json` describes; {} where there is none, or none of timm's.

    Raises:
        CheckpointError: no JSON, fields of other types, or options that our models do not have.
    """
    if not path.is_file():
        return {}
    try:
        config = read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict) or "architecture" not in config:
        return {}
    return from_hub_config(config, path)


def from_hub_config(config: Mapping[str, Any], where: object) -> dict[str, Any]:
    """Our description of the model that timm's `config.json` describes: `model`, `overrides`, `input`, `class_names`.

    Raises:
        CheckpointError: fields of other types, or options that our models do not have.
    """
    cfg = config.get("pretrained_cfg", config)  # the first files of timm's had one level
    arguments = config.get("model_args") or {}
    for name, value in (("pretrained_cfg", cfg), ("model_args", arguments)):
        if not isinstance(value, Mapping):
            raise CheckpointError(f"{where}: {name} is a {type(value).__name__}; expected an object")
    if cfg.get("label_offset"):
        raise CheckpointError(f"{where}: label_offset shifts the classes, which is not supported: save the weights cut")
    size = cfg.get("input_size") or [3, 224, 224]
    if not isinstance(size, list) or len(size) != 3:
        raise CheckpointError(f"{where}: pretrained_cfg.input_size is no list of channels, height and width")
    description: dict[str, Any] = {
        "model": _variant(config["architecture"]),
        "overrides": {"img_size": size[1:], **_overrides(arguments, where)},
        "input": {"size": size[1:]} | {key: cfg[key] for key in FIELDS if cfg.get(key) is not None},
    }
    names = config.get("label_names", cfg.get("label_names", cfg.get("labels")))
    if names is not None:
        description["class_names"] = names = _class_names(names, where)
        words = config.get("label_descriptions", cfg.get("label_descriptions"))
        if isinstance(words, Mapping) and isinstance(names, list):
            description["class_descriptions"] = [words.get(name, name) for name in names if isinstance(name, str)]
    return check_description(description, where)


def merge_descriptions(own: dict[str, Any], beside: dict[str, Any], where: object) -> dict[str, Any]:
    """What a file says and what `config.json` beside it says, as one; the latter, which people edit, has precedence.

    Raises:
        CheckpointError: they are of different models.
    """
    if own.get("model") and beside.get("model") and own["model"] != beside["model"]:
        raise CheckpointError(
            f"{where} holds a {own['model']}, and {CONFIG} beside it describes a {beside['model']}: "
            "remove the one that is wrong"
        )
    merged = own | beside
    for part in ("overrides", "input"):
        if part in own and part in beside:
            merged[part] = own[part] | beside[part]
            changed = [key for key, value in beside[part].items() if key in own[part] and own[part][key] != value]
            if changed:
                logger.warning("%s: %s is taken from %s beside it", where, ", ".join(changed), CONFIG)
    return merged


def _timm_arguments(model: "Sequencer2D") -> dict[str, Any] | None:
    """timm's `model_args` of a model that timm's Sequencer can be, otherwise None."""
    config, union = model.config, _TIMM_UNIONS.get((model.config.axes, model.config.fusion))
    # timm cuts off what this model pads.
    padded = config.pad == "zeros" and any(size % config.total_stride for size in config.img_size)
    if (
        model.variant not in HUB_WEIGHTS
        or config.cell != "lstm"
        or config.position_embedding
        or config.stem_overlap
        or union is None
        or padded
    ):
        return None
    values = dataclasses.asdict(config)
    return {
        **{theirs: values[ours] for ours, theirs in _TIMM_NAMES.items()},
        "mlp_ratios": [config.mlp_ratio] * len(config.depths),
        "union": union[0],
        "with_fc": union[1],
        "in_chans": config.in_chans,
    }


def _our_arguments(model: "Sequencer2D") -> dict[str, Any]:
    """`model_args` for our registered name: what differs from the variant, and what transformers does not pass on."""
    config = model.config
    return {
        **changed_options(config, model.variant),
        "global_pool": config.global_pool,
        "in_chans": config.in_chans,
        "img_size": list(config.img_size),
    }


def _variant(architecture: Any) -> Any:
    """Our name for an architecture of timm's, whatever prefix ours were registered with."""
    known = [name for name in VARIANTS if isinstance(architecture, str) and architecture.endswith(name)]
    return max(known, key=len) if known else architecture


def _overrides(arguments: Mapping[str, Any], where: object) -> dict[str, Any]:
    """Fields of `ModelConfig` from `model_args` in timm's terms or ours."""
    rest = {key: value for key, value in arguments.items() if key not in _WITHOUT_EFFECT and value is not None}
    overrides: dict[str, Any] = {}
    for ours, theirs in _TIMM_NAMES.items():
        if theirs in rest:
            overrides[ours] = rest.pop(theirs)
    if "union" in rest or "with_fc" in rest:
        union = (rest.pop("union", "cat"), rest.pop("with_fc", True))
        found = [ours for ours, theirs in _TIMM_UNIONS.items() if theirs == union]
        if not found:
            raise CheckpointError(
                f"{where}: model_args say union={union[0]!r}, with_fc={union[1]!r}, which is not ours"
            )
        overrides["axes"], overrides["fusion"] = found[0]
    if (ratios := rest.pop("mlp_ratios", None)) is not None:
        if not isinstance(ratios, list) or not ratios or any(ratio != ratios[0] for ratio in ratios):
            raise CheckpointError(f"{where}: model_args.mlp_ratios differ between stages; our models have one ratio")
        overrides["mlp_ratio"] = ratios[0]
    for name, plain in (("num_rnn_layers", 1), ("stem_norm", False)):
        if rest.pop(name, plain) != plain:
            raise CheckpointError(f"{where}: model_args.{name} is {arguments[name]!r}; our models have {plain!r} alone")
    return overrides | rest


def _class_names(names: Any, where: object) -> Any:
    """A list of names, also where the file gives them by number."""
    if not isinstance(names, dict):
        return names
    try:
        numbers = {int(key): name for key, name in names.items() if len(key) < 20}
    except ValueError:
        numbers = {}
    if sorted(numbers) != list(range(len(names))):
        raise CheckpointError(f"{where}: label_names are not numbered from 0 without gaps")
    return [numbers[index] for index in range(len(names))]
