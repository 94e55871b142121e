"""The paper's ImageNet-1K runs from scratch (section 4.1; what its text leaves out is from the authors' runs).

"Cutout", which the text names beside random erasing, is timm's random erasing there: there is no second one.
`parts.papers` says what all runs of the paper share.
"""

from sequencer2d.data.config import DataConfig
from sequencer2d.recipes.parts import papers
from sequencer2d.training.config import ModelSpec, OptimizerConfig, TrainConfig


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
    return papers(
        f"imagenet_{model[-1]}",
        ModelSpec(name=model, drop_path_rate=drop_path_rate),
        DataConfig(source="folder", image_size=224, batch_size=batch_size),
        OptimizerConfig(lr=5e-4, lr_reference_batch=512, weight_decay=0.05),
        epochs=310,
        warmup=20,
        cooldown=10,
        checkpoint_interval_s=1800.0,
    )
