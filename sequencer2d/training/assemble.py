"""From a configuration to the parts of a run: data, model, step."""

import dataclasses
import functools
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sequencer2d import tasks
from sequencer2d.data.batch_loader import BatchLoader
from sequencer2d.data.batches import BatchTransform
from sequencer2d.data.device_loader import build_device_loader
from sequencer2d.data.loader import Loader, build_loader
from sequencer2d.data.parts import PartOfSource
from sequencer2d.data.sources import Source, check_same_classes
from sequencer2d.data.words import class_words
from sequencer2d.errors import ConfigError
from sequencer2d.models import Sequencer2D, create_model, describe_model
from sequencer2d.models.compiled_training import compile_for_training
from sequencer2d.models.description import FORMAT
from sequencer2d.models.specs import is_peer
from sequencer2d.models.variants import changed_options, model_config
from sequencer2d.seeds import seed_step
from sequencer2d.training.config import TrainConfig
from sequencer2d.training.distributed import Processes
from sequencer2d.training.numerics import compile_mode
from sequencer2d.training.optim import WeightAverage, build_optimizer, train_head_only
from sequencer2d.training.step import TrainStep

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Data:
    """The loaders of one process."""

    train: BatchLoader
    val: Loader
    class_names: tuple[str, ...]
    class_words: list[str] | None = None
    """Words for classes that are named by identifiers of WordNet."""

    def __enter__(self) -> "Data":
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the processes that read images."""
        self.train.close()
        self.val.close()

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        return len(self.train)


def build_data(config: TrainConfig, processes: Processes) -> Data:
    """Open both splits. Raises `DataError`."""
    samples = tasks.get(config.task).samples
    shared: dict[str, Any] = {"rank": processes.rank, "world_size": processes.world_size, "seed": config.run.seed}
    pinned = processes.device.type == "cuda"
    if config.data.augment_on != "workers":
        train: BatchLoader = build_device_loader(config.data, device=processes.device, **shared)
    else:
        train = build_loader(config.data, train=True, samples=samples, pin_memory=pinned, **shared)
    val = build_loader(config.data, train=False, samples=samples, pin_memory=pinned, **shared)
    check_same_classes(train.source, val.source)
    names = tuple(train.source.class_names)
    return Data(train=train, val=val, class_names=names, class_words=class_words(_folders(train.source), names))


def _folders(source: Source) -> list[Path]:
    """Where a source's `words.txt` may be: in the folder of its files or the one above."""
    folder = getattr(source.source if isinstance(source, PartOfSource) else source, "folder", None)
    return [folder, folder.parent] if isinstance(folder, Path) else []


def resolve(config: TrainConfig, num_classes: int) -> TrainConfig:
    """`config` with the number of classes of the data filled in. Raises `ConfigError` if a smaller one was given."""
    given = config.model.num_classes
    if given is not None and given < num_classes:
        raise ConfigError(
            f"model.num_classes is {given}, but the data have {num_classes} classes; "
            "leave model.num_classes at none to take the data's"
        )
    model = dataclasses.replace(config.model, num_classes=given or num_classes)
    return dataclasses.replace(config, model=model)


def check_parts(config: TrainConfig) -> None:
    """Build what needs neither data nor memory: transforms, and the model without its weights. Raises `UserError`."""
    samples = tasks.get(config.task).samples
    samples.train_transform(config.data)
    samples.eval_transform(config.data)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model = build_model(
            resolve(config, config.model.num_classes or 1000), torch.device("meta"), first_weights=False
        )
        build_optimizer(model, config.optimizer)


def build_model(config: TrainConfig, device: torch.device, *, first_weights: bool = True) -> Any:
    """The model of a resolved configuration on `device`, with its first weights drawn from `run.seed`.

    Without `first_weights`, for a run that goes on, the weights of `model.pretrained` or `model.checkpoint` are not
    loaded: they need not be there any more.
    """
    seed_step(config.run.seed, 0, 0)
    if not first_weights:
        model_spec = dataclasses.replace(config.model, pretrained=False, checkpoint=None)
        config = dataclasses.replace(config, model=model_spec)
    spec = config.model
    assert spec.num_classes is not None, "resolve() fills it in"
    create = functools.partial(
        create_model,
        spec.name,
        pretrained=spec.pretrained,
        checkpoint=spec.checkpoint,
        in_chans=spec.in_chans,
        drop_path_rate=spec.drop_path_rate,
        **_model_options(config),
    )
    model = tasks.get(config.task).builder(spec.decoder)(create, spec.num_classes).to(device)
    if spec.train == "head":
        train_head_only(model)
    return model


def _model_options(config: TrainConfig) -> dict[str, Any]:
    return {"img_size": config.data.size, **config.model.overrides}


def class_weights(config: TrainConfig, source: Source) -> torch.Tensor | None:
    """float32 (classes,) factors on the loss, whose mean over the images of `source` is 1; None for no weights."""
    if config.regularization.class_weights == "none":
        return None
    _, targets = source.identities()
    classes = config.model.num_classes or len(source.class_names)
    counts = np.bincount(targets, minlength=classes)
    present = counts > 0
    weights = np.where(present, len(targets) / (present.sum() * np.maximum(counts, 1)), 1.0)
    return torch.from_numpy(weights.astype(np.float32))


def synchronize_batch_norms(config: TrainConfig, model: nn.Module, processes: Processes) -> None:
    """Let batch norms of several processes on GPUs work together, in place, if the configuration asks for it."""
    if config.distributed.sync_batch_norm and processes.world_size > 1 and processes.device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)


def build_step(
    config: TrainConfig, model: nn.Module, processes: Processes, weights: torch.Tensor | None = None
) -> TrainStep:
    """The optimizer step around `model`: compiled and distributed as the configuration says.

    Args:
        config: resolved.
        model: on the device of `processes`.
        processes: those that train together.
        weights: of the classes; see `class_weights`.
    """
    device = processes.device
    synchronize_batch_norms(config, model, processes)
    decay = config.regularization.ema_decay
    average = None if decay is None else WeightAverage(model, decay)
    optimizer = build_optimizer(model, config.optimizer)
    if form := compile_mode(config.run, device):
        compile_for_training(model, form)
    classes = config.model.num_classes
    assert classes is not None, "resolve() fills it in"
    return TrainStep(
        config,
        model,
        processes.wrap(model),
        optimizer,
        torch.amp.GradScaler(device.type, enabled=config.precision == "fp16"),
        average,
        BatchTransform(
            config.data, classes, seed=config.run.seed, rank=processes.rank, world_size=processes.world_size
        ),
        device,
        processes.rank,
        None if weights is None else weights.to(device),
    )


def checkpoint_meta(
    config: TrainConfig, model: nn.Module, class_names: tuple[str, ...], words: list[str] | None = None
) -> dict[str, Any]:
    """What the run's checkpoints say of themselves (docs/design.md, Models): the model, its classes and its input.

    A model that is no classifier of ours cannot describe itself: its options are those it was created with. The task is
    named where it is not classification.
    """
    data, spec = config.data, config.model
    names = class_names if len(class_names) == spec.num_classes else None
    if isinstance(model, Sequencer2D):
        said = describe_model(model, names)
    else:
        said = {
            "format": FORMAT,
            "model": spec.name,
            "overrides": _described_options(config),
            "num_classes": spec.num_classes,
            "in_chans": spec.in_chans,
            "class_names": list(names) if names else None,
        }
    if words and names:
        said["class_descriptions"] = words
    if config.task != tasks.CLASSIFICATION.name:
        said["task"] = config.task
    if spec.decoder:
        said["decoder"] = spec.decoder
    return said | {"input": data.input_spec.to_description()["input"]}


def _described_options(config: TrainConfig) -> dict[str, Any]:
    """The model's options as a checkpoint states them."""
    options = _model_options(config)
    if not is_peer(config.model.name):
        chosen = model_config(config.model.name, **options)
        options = changed_options(chosen, config.model.name) | {"pad": chosen.pad}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
