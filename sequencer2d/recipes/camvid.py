"""Segmentation of road scenes: CamVid."""

from sequencer2d.recipes.parts import per_step_cosine, whole_images
from sequencer2d.training.config import ModelSpec, OptimizerConfig, RunConfig, TrainConfig


def camvid() -> TrainConfig:
    """Sequencer2D-S with Semantic FPN on CamVid, 11 classes, 100 epochs at 360 × 480, from scratch.

    This is the size of the images, in which mIoU is measured. PVT's optimizer for Semantic FPN, its scale jitter, class
    limit and flip, under a cosine. `model.pretrained=true` starts from the published ImageNet-1K weights instead.

    Command: sequencer2d train camvid data.root=/data/camvid
    Hardware: one GPU. Expected: not yet run. Seeds: none yet.
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
