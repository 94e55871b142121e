"""Segmentation: ADE20K as PVT and PoolFormer train on it, and CamVid, road scenes."""

from sequencer2d.recipes.parts import per_step_cosine, whole_images
from sequencer2d.training.config import (
    DistributedConfig,
    ModelSpec,
    OptimizerConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)


def ade20k_fpn_s() -> TrainConfig:
    """Sequencer2D-S with Semantic FPN on ADE20K, 150 classes, 40,000 iterations, from published ImageNet-1K weights.

    PVT's and PoolFormer's recipe: AdamW of 2e-4 that decays all parameters, a polynomial schedule of power 0.9 without
    warm-up, 32 images a step, scales of 0.5 to 2, crops of 512 × 512 in which no class takes more than three quarters,
    flips, photometric distortion, stochastic depth of 0.1, batch norm over all processes. Theirs has 40,000 iterations,
    63.4 epochs; this one has 63 whole ones, 39,753 iterations.

    Command: torchrun --nproc-per-node 8 -m sequencer2d segment train ade20k_fpn_s data.root=/data/ADEChallengeData2016
    Hardware: 8 GPUs. Expected: not yet run; the paper has mIoU 46.1, PoolFormer-S24 has 40.3. Seeds: none yet.
    """
    return _ade20k("s")


def ade20k_fpn_m() -> TrainConfig:
    """Sequencer2D-M with Semantic FPN on ADE20K; otherwise as `ade20k_fpn_s`.

    Command: torchrun --nproc-per-node 8 -m sequencer2d segment train ade20k_fpn_m data.root=/data/ADEChallengeData2016
    Hardware: 8 GPUs. Expected: not yet run; the paper has mIoU 47.3. Seeds: none yet.
    """
    return _ade20k("m")


def ade20k_fpn_l() -> TrainConfig:
    """Sequencer2D-L with Semantic FPN on ADE20K; otherwise as `ade20k_fpn_s`.

    Command: torchrun --nproc-per-node 8 -m sequencer2d segment train ade20k_fpn_l data.root=/data/ADEChallengeData2016
    Hardware: 8 GPUs. Expected: not yet run; the paper has mIoU 48.6. Seeds: none yet.
    """
    return _ade20k("l")


def camvid() -> TrainConfig:
    """Sequencer2D-S with Semantic FPN on CamVid, 11 classes, 100 epochs at 360 × 480, from scratch.

    This is the size of the images, in which mIoU is measured. PVT's optimizer for Semantic FPN, its scale jitter, class
    limit and flip, under a cosine. `model.pretrained=true` starts from the published ImageNet-1K weights instead.

    Command: sequencer2d segment train camvid data.root=/data/camvid
    Hardware: one GPU, 5 GiB. Expected: mIoU 43.8 % on the split test and 51.2 % on val after
    run.epochs=60 (ResNet-50: 41.9 % and 48.7 %). Seeds: one run.
    """
    return TrainConfig(
        task="segmentation",
        model=ModelSpec(name="sequencer2d_s", drop_path_rate=0.1),
        data=whole_images(source="camvid", image_size=(360, 480), batch_size=16, color_jitter=0.4),
        optimizer=OptimizerConfig(lr=2e-4, lr_reference_batch=None, weight_decay=1e-4),
        schedule=per_step_cosine(warmup=2, cooldown=0, min_lr=1e-6),
        precision="bf16",
        run=RunConfig(output="runs/camvid", epochs=100, log_interval=22, eval_interval=5),
    )


def _ade20k(size: str) -> TrainConfig:
    return TrainConfig(
        task="segmentation",
        model=ModelSpec(name=f"sequencer2d_{size}", drop_path_rate=0.1, pretrained=True),
        data=whole_images(source="ade20k", image_size=512, batch_size=32, photometric_distortion=True),
        optimizer=OptimizerConfig(lr=2e-4, lr_reference_batch=None, weight_decay=1e-4, decay_all=True),
        schedule=ScheduleConfig(poly_power=0.9, min_lr=0.0, update="step"),
        precision="bf16",
        distributed=DistributedConfig(sync_batch_norm=True),
        run=RunConfig(output=f"runs/ade20k_fpn_{size}", epochs=63, eval_interval=7),
    )
