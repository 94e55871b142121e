"""What several recipes share."""

import dataclasses
from typing import Any

from sequencer2d.data.config import DataConfig
from sequencer2d.training.config import (
    ModelSpec,
    OptimizerConfig,
    RegularizationConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)


def papers(
    name: str,
    model: ModelSpec,
    data: DataConfig,
    optimizer: OptimizerConfig,
    *,
    epochs: int,
    warmup: int,
    cooldown: int,
    checkpoint_interval_s: float = 600.0,
) -> TrainConfig:
    """A run of the paper: its schedule, its label smoothing, and images decoded as its authors' code decodes them.

    The paper's runs computed in fp16 with a gradient scaler. The recipes take bf16, which has fp32's range and needs
    none; precision=fp16 is the paper's.

    Args:
        name: of the recipe.
        model: which model, and its stochastic depth.
        data: the images; EXIF orientation and transparency are ignored, as in the authors' code and in timm.
        optimizer: AdamW.
        epochs: of the run, warm-up and cool-down included.
        warmup: epochs of linear warm-up from 1e-6.
        cooldown: epochs at 1e-6 after the cosine.
        checkpoint_interval_s: seconds between checkpoints.
    """
    return TrainConfig(
        model=model,
        data=dataclasses.replace(data, orientation="stored", background="none"),
        optimizer=optimizer,
        schedule=ScheduleConfig(
            warmup_epochs=warmup, warmup_lr=1e-6, cooldown_epochs=cooldown, min_lr=1e-6, update="epoch"
        ),
        regularization=RegularizationConfig(label_smoothing=0.1),
        precision="bf16",
        run=RunConfig(output=f"runs/{name}", epochs=epochs, checkpoint_interval_s=checkpoint_interval_s),
    )


def whole_images(**fields: Any) -> DataConfig:
    """Images for a dense task: whole in evaluation, without the augmentations that masks and boxes cannot follow.

    `fields` are further fields of `DataConfig`.
    """
    return DataConfig(
        interpolation="bilinear",
        auto_augment="",
        erasing=0.0,
        mixup=0.0,
        cutmix=0.0,
        eval_interpolation="bilinear",
        eval_crop="squash",
        crop_pct=1.0,
        **fields,
    )


def minutes_on_a_gpu(name: str, *, epochs: int, eval_interval: int) -> RunConfig:
    """A run of minutes on small images: CUDA graphs, since its steps are shorter than launches from Python."""
    return RunConfig(
        output=f"runs/{name}",
        epochs=epochs,
        log_interval=195,
        eval_interval=eval_interval,
        checkpoint_interval_s=120.0,
        compile="reduce-overhead",
    )


def per_step_cosine(*, warmup: float, cooldown: int, min_lr: float) -> ScheduleConfig:
    """The schedule of our own short runs: warm-up from 1e-6, and a learning rate that changes with every step."""
    return ScheduleConfig(warmup_epochs=warmup, warmup_lr=1e-6, cooldown_epochs=cooldown, min_lr=min_lr, update="step")
