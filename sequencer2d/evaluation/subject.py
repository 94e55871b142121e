"""The model under study, ours or timm's, with what must be known to feed it."""

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sequencer2d.data.config import DataConfig, fields_of_input
from sequencer2d.data.words import imagenet_wnids
from sequencer2d.errors import InputError, first_line
from sequencer2d.evaluation.loading import build_described, peer_from, task_of, untrained
from sequencer2d.input_spec import FIELDS, InputSpec
from sequencer2d.models import Sequencer2D, read_checkpoint
from sequencer2d.models.loading import restore
from sequencer2d.models.peers import create_peer
from sequencer2d.models.specs import PREFIX, RANDOM, is_peer, split_label
from sequencer2d.tasks import CLASSIFICATION, Task


@dataclass(frozen=True)
class Subject:
    """A model in evaluation mode with its input and its classes.

    Attributes:
        name: for tables and figures.
        model: normalized images (B, 3, H, W) → the task's outputs; logits (B, classes) for classification.
        data: size, mean, std, interpolation and crop of its evaluation.
        class_names: name of each output; `class 7` where nobody knows.
        names_known: whether `class_names` are real names.
        said: what was remarked about it already. A measurement of many cells says each remark once.
        task: what the model was trained for.
    """

    name: str
    model: nn.Module
    data: DataConfig
    class_names: tuple[str, ...]
    names_known: bool = True
    task: Task = CLASSIFICATION
    said: set[str] = field(default_factory=set, compare=False, repr=False)

    @property
    def device(self) -> torch.device:
        """Where the model's parameters are."""
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> "Subject":
        """The same, with the model moved (in place) to `device`."""
        self.model.to(device)
        return self

    @property
    def architecture(self) -> str:
        """The name of the model in our table of variants or in timm's; "" where it does not say."""
        said = getattr(self.model, "pretrained_cfg", None) or {}
        return str(getattr(self.model, "variant", "") or said.get("architecture", ""))

    @property
    def input_fields(self) -> dict[str, Any]:
        """The fields of a `DataConfig` that feed the model as its own evaluation does."""
        return fields_of_input(self.data.input_spec)

    def resized(self, size: int | tuple[int, int]) -> "Subject":
        """The same for images of `size` pixels (side, or height and width)."""
        return replace(self, data=replace(self.data, image_size=size))

    def adapted(self, size: int | tuple[int, int]) -> "Subject":
        """The same for images of `size` pixels, the model fit to it.

        A model of timm that was built for one size is copied and resized by its `set_input_size`, which interpolates
        position embeddings and bias tables.

        Raises:
            InputError: a size that the model does not take.
        """
        resized = self.resized(size)
        height, width = resized.data.size
        if resized.data.size == self.data.size:
            return resized
        model: Any = self.model
        if hasattr(model, "set_input_size"):
            model = copy.deepcopy(model)
            model.set_input_size(img_size=(height, width))
        try:
            with torch.inference_mode():
                model.eval()(torch.zeros(1, 3, height, width, device=self.device))
        except InputError:
            raise
        except (AssertionError, RuntimeError, ValueError) as error:
            raise InputError(f"{self.name} refuses images of {height}×{width} pixels: {first_line(error)}") from error
        return replace(resized, model=model)


def load_subject(
    spec: str | os.PathLike[str],
    *,
    name: str | None = None,
    num_classes: int | None = None,
    variant: str | None = None,
    download: bool = False,
) -> Subject:
    """Load a model, ours or timm's.

    Args:
        spec: a checkpoint of ours (file, run folder, `hf-hub:owner/name`); `timm:NAME` with timm's published weights;
            `timm:NAME=FILE` or `PEER=FILE`, a name of the table of peers, with weights from a file; `random:NAME`,
            untrained (for trials: its classifier is random).
            `LABEL@…` in front of any of them sets the name.
        name: for tables and figures; by default what `spec` ends in.
        num_classes: of a `random:` model.
        variant: of ours, for a checkpoint that does not say which one it is.
        download: fetch the weights of `timm:NAME` if they are not in the Hugging Face hub's cache.

    Raises:
        ConfigError: no such model.
        CheckpointError: weights that are missing, damaged or do not fit.
        InputError: the model takes no RGB images.
    """
    label, spec = split_label(spec)
    name = name or label or None
    if spec.startswith(RANDOM):
        model = untrained(spec.removeprefix(RANDOM), num_classes or 1000)
        return subject_of(model, name=name or spec.removeprefix(RANDOM))
    bare, _, file = spec.partition("=")
    if is_peer(bare) and (file or not Path(spec).exists()):
        model = peer_from(bare, file) if file else create_peer(bare, pretrained=True, download=download)
        return subject_of(model, name=name or bare.removeprefix(PREFIX))
    return load_checkpoint(spec, name=name, variant=variant)


def load_checkpoint(source: str | os.PathLike[str], *, name: str | None = None, variant: str | None = None) -> Subject:
    """Load the model of a checkpoint, whatever its task; the arguments and errors are those of `load_subject`."""
    checkpoint = read_checkpoint(source)
    task = task_of(checkpoint)
    if task is CLASSIFICATION and (variant or not is_peer(str(checkpoint.meta.get("model", "")))):
        model: nn.Module = restore(Sequencer2D, checkpoint, name=variant)
    else:
        model = build_described(checkpoint, task)
    return subject_of(model, name=name or _short_name(source, model), task=task)


def subject_of(
    model: nn.Module, *, name: str, class_names: Sequence[str] | None = None, task: Task = CLASSIFICATION
) -> Subject:
    """A model that is already there, with the input that its `pretrained_cfg` states (timm's and ours have one).

    Raises:
        InputError: the model takes no RGB images.
    """
    names = class_names or (getattr(model, "pretrained_cfg", None) or {}).get("label_names")
    count = int(getattr(model, "num_classes", 0))
    known = bool(names) and len(names or ()) == count
    if not known and count == 1000:
        names, known = imagenet_wnids(), True
    return Subject(
        name=name,
        model=model.eval(),
        data=DataConfig(**input_fields(model)),
        class_names=tuple(names) if known and names else tuple(f"class {i}" for i in range(count)),
        names_known=known,
        task=task,
    )


def input_fields(model: nn.Module) -> dict[str, Any]:
    """Fields of a `DataConfig` for the images that a model was made for: size, mean, std, interpolation, crop.

    Args:
        model: ours, timm's or an exported one; its `pretrained_cfg` states them.

    Raises:
        InputError: the model takes no RGB images.
    """
    stated: dict[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    if any(stated.get(name) is None for name in ("input_size", *FIELDS)):
        from timm.data import resolve_model_data_config  # imported only where timm's defaults are needed: it is slow

        stated = resolve_model_data_config(model)
    return fields_of_input(InputSpec.from_timm(stated))


def _short_name(spec: str | os.PathLike[str], model: nn.Module) -> str:
    path = Path(spec)
    return path.name if path.is_dir() else str(getattr(model, "variant", "") or path.stem)
