"""The paper's transfer of ImageNet-1K weights to small data sets (section 4.4, table 3), here with Sequencer2D-S.

Images are decoded as the authors' code and timm decode them: EXIF orientation and transparency are ignored.
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


def transfer_cifar10() -> TrainConfig:
    """Sequencer2D-S from ImageNet-1K to CIFAR-10, 200 epochs at 224².

    Command: sequencer2d train transfer_cifar10 data.root=/data data.download=true
    Hardware: 1 GPU or more; total batch 512. Hours: not measured. Expected: top-1 99.0 % (paper). Seeds: not yet run.
    """
    return _transfer("cifar10", "torch:cifar10")


def transfer_cifar100() -> TrainConfig:
    """Sequencer2D-S from ImageNet-1K to CIFAR-100, 200 epochs at 224².

    Command: sequencer2d train transfer_cifar100 data.root=/data data.download=true
    Hardware: 1 GPU or more; total batch 512. Hours: not measured. Expected: top-1 90.6 % (paper). Seeds: not yet run.
    """
    return _transfer("cifar100", "torch:cifar100")


def transfer_flowers102() -> TrainConfig:
    """Sequencer2D-S from ImageNet-1K to Flowers-102, 200 epochs at 224².

    The images are read from folders: data.root with train/<class> and val/<class>.

    Command: sequencer2d train transfer_flowers102 data.root=/data/flowers102
    Hardware: 1 GPU or more; total batch 512. Hours: not measured. Expected: top-1 98.2 % (paper). Seeds: not yet run.
    """
    return _transfer("flowers102", "folder")


def transfer_cars() -> TrainConfig:
    """Sequencer2D-S from ImageNet-1K to Stanford Cars, 200 epochs at 224².

    The images are read from folders: data.root with train/<class> and val/<class>.

    Command: sequencer2d train transfer_cars data.root=/data/cars
    Hardware: 1 GPU or more; total batch 512. Hours: not measured. Expected: top-1 93.1 % (paper). Seeds: not yet run.
    """
    return _transfer("cars", "folder")


def _transfer(name: str, source: str) -> TrainConfig:
    return TrainConfig(
        model=ModelSpec(name="sequencer2d_s", pretrained=True, drop_path_rate=0.1),
        data=DataConfig(
            source=source,
            orientation="stored",
            background="none",
            image_size=224,
            batch_size=512,
            erasing=0.0,
            mixup_group=128,
        ),
        optimizer=OptimizerConfig(lr=1e-4, lr_reference_batch=None, weight_decay=1e-4, clip_grad_norm=1.0),
        schedule=ScheduleConfig(warmup_epochs=5, warmup_lr=1e-6, cooldown_epochs=10, min_lr=1e-6, update="epoch"),
        regularization=RegularizationConfig(label_smoothing=0.1),
        precision="bf16",
        run=RunConfig(output=f"runs/transfer_{name}", epochs=210),
    )
