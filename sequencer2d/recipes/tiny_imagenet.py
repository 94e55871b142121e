"""Tiny-ImageNet from scratch, in minutes on one GPU: the runs that docs/analysis.md looks into."""

import dataclasses
from typing import Any

from sequencer2d.data.config import DataConfig
from sequencer2d.recipes.parts import minutes_on_a_gpu, per_step_cosine
from sequencer2d.training.config import ModelSpec, OptimizerConfig, RegularizationConfig, ScheduleConfig, TrainConfig


def tiny_imagenet() -> TrainConfig:
    """Sequencer2D-N on Tiny-ImageNet (200 classes, 64² pixels) from scratch, 30 epochs.

    The stem has stride 4 and the second stage 2 more: 16×16 tokens, then 8×8. data.root holds train/<class>/* and
    val/<class>/*; the images are decoded once and kept in memory (1.4 GB).

    Command: sequencer2d train tiny_imagenet data.root=/data/tiny-imagenet
    Hardware: 1 GPU of the H100's kind, 16 CPU cores. Expected: 39.4 % top-1 in 3.1 minutes
    (H200). Seeds: one run.
    """
    return TrainConfig(
        model=_OURS,
        data=_images(
            crop="random-resized",
            crop_scale=(0.25, 1.0),
            auto_augment="",
            batch_policy="rand",
            erasing=0.0,
            mixup=0.2,
            cutmix=1.0,
            mixup_prob=0.5,
        ),
        optimizer=OptimizerConfig(lr=1.5e-3, lr_reference_batch=512, weight_decay=0.05, clip_grad_norm=1.0),
        schedule=per_step_cosine(warmup=3, cooldown=1, min_lr=1e-5),
        regularization=RegularizationConfig(label_smoothing=0.1, ema_decay=0.999),
        precision="bf16",
        run=minutes_on_a_gpu("tiny_imagenet", epochs=30, eval_interval=10),
    )


def tiny_imagenet_convnext() -> TrainConfig:
    """timm's ConvNeXt-Atto on Tiny-ImageNet by the recipe of `tiny_imagenet`, with a stem of stride 2.

    timm halves the map again before the first stage, whose maps are 16×16 as ours; those of the others are 8×8, 4×4 and
    2×2. An image takes 46 M multiplications and additions, a sixth of Sequencer2D-N's 294 M.

    Command: sequencer2d train tiny_imagenet_convnext data.root=/data/tiny-imagenet
    Hardware: 1 GPU of the H100's kind, 16 CPU cores. Expected: 27.1 % top-1 in 3.2 minutes
    (H200). Seeds: one run.
    """
    return _peer("tiny_imagenet_convnext", "timm:convnext_atto", {"patch_size": 2})


def tiny_imagenet_vit() -> TrainConfig:
    """timm's ViT-Tiny on Tiny-ImageNet by the recipe of `tiny_imagenet`: patches of 8 pixels, 8 of its 12 blocks.

    Command: sequencer2d train tiny_imagenet_vit data.root=/data/tiny-imagenet
    Hardware: 1 GPU of the H100's kind, 16 CPU cores. Expected: within 5 minutes. Seeds: not yet run.
    """
    return _peer("tiny_imagenet_vit", "timm:vit_tiny_patch16_224", {"patch_size": 8, "depth": 8})


def tiny_imagenet_paper() -> TrainConfig:
    """Sequencer2D-N on Tiny-ImageNet by the paper's ImageNet recipe, shortened: for comparisons under one recipe.

    Kept from `imagenet_s`: RandAugment, random erasing, mixup, cutmix, label smoothing, AdamW and its weight decay, the
    cosine, stochastic depth 0.1, no gradient clipping, no averaged weights. Changed, because a run sees 4 million
    images instead of 384 million: 40 epochs instead of 300, with the same share of warm-up and no cool-down; batches of
    512 at a learning rate of 1e-3, twice the paper's for each image. The images have 64² pixels. The stem has stride 4,
    which makes 16×16 tokens, and 8×8 after the first stage. All images lie on the GPU and are augmented there.

    Command: sequencer2d train tiny_imagenet_paper data.root=/data/tiny-imagenet
    Hardware: 1 GPU of the H100's kind. Expected: docs/evidence.md. Seeds: not yet run.
    """
    return TrainConfig(
        model=_OURS,
        data=_images(workers=3, augment_on="device"),
        optimizer=OptimizerConfig(lr=1e-3, lr_reference_batch=None, weight_decay=0.05),
        schedule=per_step_cosine(warmup=8 / 3, cooldown=0, min_lr=1e-6),
        regularization=RegularizationConfig(label_smoothing=0.1),
        precision="bf16",
        run=minutes_on_a_gpu("tiny_imagenet_paper", epochs=40, eval_interval=10),
    )


def tiny_imagenet_plateau() -> TrainConfig:
    """Sequencer2D-N-P4 on Tiny-ImageNet, enlarged to 96², at a constant learning rate for as long as there is time.

    The first part of the model that comes with the package. A run at a constant rate need not know its length: it is
    stopped by `run.time_limit_s` and goes on whenever there is time again (300 epochs at most). `tiny_imagenet_decay`
    makes a model of it at any point. The images lie on the GPU and are augmented there, less than in the paper's runs,
    which see each image ten times as often. At 96² there are 24×24 tokens, and 12×12 after the first stage. Nothing is
    evaluated on the way: an evaluation compiles the model once more, and at this rate it says little.

    Command: sequencer2d train tiny_imagenet_plateau data.root=/data/tiny-imagenet run.time_limit_s=300
    Hardware: 1 GPU of the H100's kind, 8 CPU cores. Expected: 19,000 images/s. Seeds: not yet run to a useful length.
    """
    return TrainConfig(
        model=ModelSpec(name="sequencer2d_n_p4", drop_path_rate=0.1),
        data=_images(
            workers=4,
            augment_on="device",
            image_size=96,
            crop_scale=(0.25, 1.0),
            auto_augment="rand-m7-mstd0.5-inc1",
            erasing=0.1,
            mixup=0.2,
            cutmix=1.0,
            mixup_prob=0.5,
        ),
        optimizer=OptimizerConfig(lr=1e-3, lr_reference_batch=None, weight_decay=0.05, clip_grad_norm=1.0),
        # The rate would drop before the last epoch, which no run is meant to see.
        schedule=ScheduleConfig(warmup_epochs=3, milestones=(299,), update="step"),
        regularization=RegularizationConfig(label_smoothing=0.1),
        precision="bf16",
        run=dataclasses.replace(
            minutes_on_a_gpu("tiny_imagenet_plateau", epochs=300, eval_interval=300),
            log_interval=39,
            checkpoint_interval_s=15.0,
        ),
    )


def tiny_imagenet_decay() -> TrainConfig:
    """The weights of `tiny_imagenet_plateau` at a rate that falls to 1e-5 along a cosine, on the same images.

    The second part of the model that comes with the package. Everything else is the first part's.

    Command: sequencer2d train tiny_imagenet_decay data.root=/data/tiny-imagenet
    Hardware: 1 GPU of the H100's kind, 8 CPU cores. Expected: 20 epochs in 3 minutes. Seeds: not yet run to a
    useful length.
    """
    config = tiny_imagenet_plateau()
    first = f"{config.run.output}/checkpoints/last.pt"
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, checkpoint=first),
        # Half an epoch of warm-up, because the optimizer's averages begin at zero.
        schedule=ScheduleConfig(warmup_epochs=0.5, min_lr=1e-5, update="step"),
        run=dataclasses.replace(config.run, output="runs/tiny_imagenet_decay", epochs=20, eval_interval=10),
    )


_OURS = ModelSpec(name="sequencer2d_n", drop_path_rate=0.1, overrides={"patch_sizes": (4, 2, 1, 1)})


def _images(image_size: int = 64, **options: Any) -> DataConfig:
    """Tiny-ImageNet's images, decoded once and kept in memory; `options` say how they are augmented."""
    return DataConfig(
        source="folder",
        val_split="val",
        image_size=image_size,
        batch_size=512,
        prefetch=4,
        cache=True,
        crop_pct=1.0,
        **options,
    )


def _peer(recipe: str, model: str, overrides: dict[str, int]) -> TrainConfig:
    """A model of timm's by the recipe of `tiny_imagenet`."""
    config = tiny_imagenet()
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, name=model, overrides=overrides),
        run=dataclasses.replace(config.run, output=f"runs/{recipe}"),
    )
