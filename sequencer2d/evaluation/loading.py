"""Models that cannot describe themselves, built from what the run that trained them wrote, and untrained ones."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sequencer2d import tasks
from sequencer2d.errors import CheckpointError, ConfigError
from sequencer2d.input_spec import InputSpec
from sequencer2d.models import create_model, list_models, read_checkpoint
from sequencer2d.models.checkpoints import Checkpoint
from sequencer2d.models.description import check_description
from sequencer2d.models.peers import check_options, create_peer, load_strictly
from sequencer2d.models.specs import PREFIX, is_peer
from sequencer2d.tasks import Task

DESCRIBED = (
    "num_classes",
    "in_chans",
    "input",
    *(f"input.{name}" for name in ("size", "mean", "std", "interpolation", "crop_pct")),
)
"""What a file must say of a model that cannot describe itself."""


def task_of(checkpoint: Checkpoint) -> Task:
    """The task that a checkpoint's model was trained for. Raises `CheckpointError` for one that is not known here."""
    try:
        return tasks.get(checkpoint.meta.get("task", tasks.CLASSIFICATION.name))
    except ConfigError as error:
        raise CheckpointError(f"{checkpoint.path}: {error}") from error


def build_described(checkpoint: Checkpoint, task: Task) -> nn.Module:
    """The model of a run's checkpoint: a peer, or a task's model around one of ours or a peer.

    Its `pretrained_cfg` holds its input and, as `label_names`, its class names.

    Raises:
        CheckpointError: a description that is incomplete or of no model, or weights that do not fit it.
    """
    path, meta = str(checkpoint.path), checkpoint.meta
    check_description(meta, path, required=DESCRIBED)
    try:
        build = functools.partial(task.builder(str(meta.get("decoder", ""))), _creator(meta, path), meta["num_classes"])
        # Without memory first: only a model that the tensors fit is built.
        with torch.device("meta"):
            outline = build()
        load_strictly(outline, {key: tensor.to("meta") for key, tensor in checkpoint.state_dict.items()}, path)
        model: Any = build()
    except ConfigError as error:
        raise CheckpointError(f"{path}: its description is of no model: {error}") from error
    load_strictly(model, checkpoint.state_dict, path)
    spec = InputSpec(in_chans=meta["in_chans"]).with_classes(meta).updated(meta)
    model.pretrained_cfg = {**getattr(model, "pretrained_cfg", {}), **spec.to_timm()}
    model.num_classes = meta["num_classes"]
    return model.eval()


def peer_from(name: str, file: str) -> nn.Module:
    """A peer with weights from any file that holds them."""
    checkpoint = read_checkpoint(file)
    if is_peer(str(checkpoint.meta.get("model", ""))):
        return build_described(checkpoint, task_of(checkpoint))
    model = create_peer(name)
    classifier = str((getattr(model, "pretrained_cfg", None) or {}).get("classifier", ""))
    head = checkpoint.state_dict.get(f"{classifier}.weight")
    if head is not None and head.shape[0] != getattr(model, "num_classes", None):
        model = create_peer(name, num_classes=head.shape[0])
    load_strictly(model, checkpoint.state_dict, file)
    return model


def untrained(name: str, num_classes: int) -> nn.Module:
    """A model of ours or a peer with random weights, always the same; its classifier is random too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if name in list_models() or is_peer(name):
            model = create_model(name, num_classes=num_classes)
        else:
            try:
                model = create_peer(PREFIX + name, num_classes=num_classes)
            except ConfigError as error:
                raise ConfigError(
                    f"neither a variant of ours ({', '.join(list_models())}), nor a peer, nor timm's: {error}"
                ) from error
        randomize_head(model)
    return model


def randomize_head(model: nn.Module) -> None:
    """Give a classifier that starts at zero (ours, timm's Sequencer) small random weights, in place."""
    find: Any = getattr(model, "get_classifier", None)
    head = find() if find else None
    weight = getattr(head, "weight", None)
    if isinstance(weight, Tensor) and not weight.any():
        with torch.no_grad():
            weight.normal_(std=0.02)


def _creator(meta: Mapping[str, Any], path: str) -> Callable[..., nn.Module]:
    """What makes the backbone that a description names; see `Task.build`."""
    name, overrides = str(meta.get("model", "")), meta.get("overrides", {})
    if is_peer(name):
        options: dict[str, Any] = check_options(overrides, path)
    elif name in list_models():
        options = {key: tuple(value) if isinstance(value, list) else value for key, value in overrides.items()}
    else:
        raise CheckpointError(f"{path} names the unknown model {name[:50]!r}; known are {', '.join(list_models())}")
    return functools.partial(create_model, name, in_chans=meta["in_chans"], **options)
