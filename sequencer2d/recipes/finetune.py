"""The paper's fine-tuning at a higher resolution (section 4.2; Table 1, lower part).

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


def finetune_392_l() -> TrainConfig:
    """Sequencer2D-L from its 224² weights to 392² on ImageNet-1K, 30 epochs.

    Starts from the published weights; from your own with model.pretrained=false model.checkpoint=runs/imagenet_l. The
    paper fine-tunes L only; for S, model.name=sequencer2d_s model.drop_path_rate=0.1.

    Command: torchrun --nproc-per-node 8 -m sequencer2d train finetune_392_l data.root=/imagenet
    Hardware: 8 GPUs; total batch 512. Hours: not measured. Expected: top-1 84.6 % (paper). Seeds: not yet run.
    """
    return TrainConfig(
        model=ModelSpec(name="sequencer2d_l", pretrained=True, drop_path_rate=0.4),
        data=DataConfig(
            source="folder",
            orientation="stored",
            background="none",
            image_size=392,
            crop_pct=1.0,
            batch_size=512,
            mixup_group=64,
        ),
        optimizer=OptimizerConfig(lr=5e-5, lr_reference_batch=None, weight_decay=1e-8),
        schedule=ScheduleConfig(warmup_epochs=0, cooldown_epochs=0, min_lr=1e-6, update="epoch"),
        regularization=RegularizationConfig(label_smoothing=0.1),
        precision="bf16",
        run=RunConfig(output="runs/finetune_392_l", epochs=30, checkpoint_interval_s=1800.0),
    )
