"""Handwritten digits on a CPU, in minutes: the run that shows that everything works."""

from sequencer2d.data.config import DataConfig
from sequencer2d.recipes.parts import per_step_cosine
from sequencer2d.training.config import ModelSpec, OptimizerConfig, RegularizationConfig, RunConfig, TrainConfig


def digits() -> TrainConfig:
    """A small Sequencer2D on scikit-learn's digits, 60 epochs at 8², on a CPU.

    The model has 0.27 M parameters: one block on 8×8 tokens, a pixel each, and two on 4×4. One thread is about as
    fast as two on work this small, and stays so on a busy machine. Nothing is downloaded.

    Command: sequencer2d train digits
    Hardware: 2 CPU cores, 2 to 3 minutes. Expected: top-1 ≥ 98 % of 355 test images. Seeds: 0: 99.2 %, 1: 99.4 % after
    the last epoch (with mixup of every second batch and an average of half the length 98.3 % and 98.6 %).
    """
    return TrainConfig(
        model=ModelSpec(
            name="sequencer2d_n",
            drop_path_rate=0.05,
            overrides={
                "depths": (1, 2),
                "dims": (48, 96),
                "hidden_dims": (12, 24),
                "patch_sizes": (1, 2),
                "implementation": "reference",
            },
        ),
        data=DataConfig(
            source="digits",
            image_size=8,
            mean=(0.3054, 0.3054, 0.3054),
            std=(0.3763, 0.3763, 0.3763),
            batch_size=64,
            workers=1,
            crop="pad",
            crop_padding=1,
            hflip=0.0,
            auto_augment="",
            erasing=0.0,
            mixup=0.4,
            mixup_prob=1.0,
            cutmix=0.0,
            crop_pct=1.0,
        ),
        optimizer=OptimizerConfig(lr=3e-3, lr_reference_batch=None, weight_decay=0.05, clip_grad_norm=1.0),
        schedule=per_step_cosine(warmup=3, cooldown=0, min_lr=1e-5),
        regularization=RegularizationConfig(label_smoothing=0.1, ema_decay=0.995),
        precision="fp32",
        run=RunConfig(output="runs/digits", epochs=60, device="cpu", cpu_threads=1, log_interval=22, eval_interval=2),
    )
