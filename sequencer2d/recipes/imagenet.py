"""The paper's ImageNet-1K runs from scratch (section 4.1; what its text leaves out is from the authors' runs).

"Cutout", which the text names beside random erasing, is timm's random erasing there: there is no second one.
Images are decoded as the authors' code and timm decode them: EXIF orientation and transparency are ignored. The paper's
runs computed in fp16 with a gradient scaler; the recipes take bf16, which has fp32's range and needs none.
precision=fp16 is the paper's.
"""

from sequencer2d.data.config import DataConfig
from sequencer2d.training.config import (
    ModelSpec,
    OptimizerConfig,
    RegularizationConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)


def imagenet_s() -> TrainConfig:
    """Sequencer2D-S on ImageNet-1K from scratch, 300 epochs at 224².

    Command: torchrun --nproc-per-node 8 -m sequencer2d train imagenet_s data.root=/imagenet
    Hardware: 8 GPUs; total batch 2048. Hours: not measured. Expected: top-1 82.3 % (paper). Seeds: not yet run.
    """
    return _imagenet("sequencer2d_s", batch_size=2048, drop_path_rate=0.1)


def imagenet_m() -> TrainConfig:
    """Sequencer2D-M on ImageNet-1K from scratch, 300 epochs at 224².

    Command: torchrun --nproc-per-node 8 -m sequencer2d train imagenet_m data.root=/imagenet
    Hardware: 8 GPUs; total batch 1536. Hours: not measured. Expected: top-1 82.8 % (paper). Seeds: not yet run.
    """
    return _imagenet("sequencer2d_m", batch_size=1536, drop_path_rate=0.2)


def imagenet_l() -> TrainConfig:
    """Sequencer2D-L on ImageNet-1K from scratch, 300 epochs at 224².

    Command: torchrun --nproc-per-node 8 -m sequencer2d train imagenet_l data.root=/imagenet
    Hardware: 8 GPUs; total batch 1024. Hours: not measured. Expected: top-1 83.4 % (paper). Seeds: not yet run.
    """
    return _imagenet("sequencer2d_l", batch_size=1024, drop_path_rate=0.4)


def _imagenet(model: str, *, batch_size: int, drop_path_rate: float) -> TrainConfig:
    return TrainConfig(
        model=ModelSpec(name=model, drop_path_rate=drop_path_rate),
        data=DataConfig(
            source="folder", orientation="stored", background="none", image_size=224, batch_size=batch_size
        ),
        optimizer=OptimizerConfig(lr=5e-4, lr_reference_batch=512, weight_decay=0.05),
        schedule=ScheduleConfig(warmup_epochs=20, warmup_lr=1e-6, cooldown_epochs=10, min_lr=1e-6, update="epoch"),
        regularization=RegularizationConfig(label_smoothing=0.1),
        precision="bf16",
        run=RunConfig(output=f"runs/imagenet_{model[-1]}", epochs=310, checkpoint_interval_s=1800.0),
    )
