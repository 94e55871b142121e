"""Detection: COCO under the schedules of its detectors, and BCCD, blood cells."""

import dataclasses

from sequencer2d.recipes.parts import per_step_cosine, whole_images
from sequencer2d.training.config import ModelSpec, OptimizerConfig, RunConfig, ScheduleConfig, TrainConfig


def coco_retinanet_s() -> TrainConfig:
    """Sequencer2D-S with RetinaNet on COCO, 12 epochs (1x), from the published ImageNet-1K weights.

    PVT's and PoolFormer's recipe: AdamW, shorter side 800 and longer side up to 1333, flips, the learning rate a tenth
    after 8 and after 11 epochs, 500 steps of warm-up.

    Command: torchrun --nproc-per-node 8 -m sequencer2d detect train coco_retinanet_s data.root=/data/coco
    Hardware: 8 GPUs. Expected: not yet run; PVT-Small has AP 40.4, PoolFormer-S24 38.9. Seeds: none yet.
    """
    return TrainConfig(
        task="detection",
        model=ModelSpec(name="sequencer2d_s", drop_path_rate=0.1, pretrained=True),
        data=whole_images(image_size=(800, 1333), batch_size=16),
        optimizer=OptimizerConfig(lr=1e-4, lr_reference_batch=None, weight_decay=1e-4, decay_all=True),
        schedule=ScheduleConfig(
            warmup_epochs=500 / 7330, warmup_lr=1e-7, min_lr=1e-7, milestones=(8, 11), update="step"
        ),
        precision="bf16",
        run=RunConfig(output="runs/coco_retinanet_s", epochs=12),
    )


def coco_retinanet_s_3x() -> TrainConfig:
    """Sequencer2D-S with RetinaNet on COCO, 36 epochs (3x), shorter sides of 640 to 800 pixels.

    Command: torchrun --nproc-per-node 8 -m sequencer2d detect train coco_retinanet_s_3x data.root=/data/coco
    Hardware: 8 GPUs. Expected: not yet run. Seeds: none yet.
    """
    once = coco_retinanet_s()
    return dataclasses.replace(
        once,
        data=dataclasses.replace(once.data, short_sides=tuple(range(640, 801, 32))),
        schedule=dataclasses.replace(once.schedule, milestones=(27, 33)),
        run=dataclasses.replace(once.run, output="runs/coco_retinanet_s_3x", epochs=36),
    )


def bccd() -> TrainConfig:
    """Sequencer2D-S with RetinaNet on BCCD, 3 kinds of blood cells, 100 epochs at 384 × 512, from scratch.

    Command: sequencer2d detect train bccd data.root=/data/bccd
    Hardware: one GPU, 5 GiB. Expected: AP 50.5 %, AP50 84.5 % on the split test after run.epochs=40
    (ResNet-50: 50.0 % and 85.9 %). Seeds: one run.
    """
    return TrainConfig(
        task="detection",
        model=ModelSpec(name="sequencer2d_s", drop_path_rate=0.1),
        data=whole_images(image_size=(384, 512), batch_size=16, short_sides=(288, 320, 352, 384), color_jitter=0.4),
        optimizer=OptimizerConfig(lr=3e-4, lr_reference_batch=None, weight_decay=0.05, clip_grad_norm=10.0),
        schedule=per_step_cosine(warmup=5, cooldown=0, min_lr=1e-6),
        precision="bf16",
        run=RunConfig(output="runs/bccd", epochs=100, log_interval=12, eval_interval=10),
    )
