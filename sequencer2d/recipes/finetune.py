"""The paper's fine-tuning at a higher resolution (section 4.2; Table 1, lower part).

`parts.papers` says what all runs of the paper share.
"""

from sequencer2d.data.config import DataConfig
from sequencer2d.recipes.parts import papers
from sequencer2d.training.config import ModelSpec, OptimizerConfig, TrainConfig


def finetune_392_l() -> TrainConfig:
    """Sequencer2D-L from its 224² weights to 392² on ImageNet-1K, 30 epochs.

    Starts from the published weights; from your own with model.pretrained=false model.checkpoint=runs/imagenet_l. The
    paper fine-tunes L only; for S, model.name=sequencer2d_s model.drop_path_rate=0.1.

    Command: torchrun --nproc-per-node 8 -m sequencer2d train finetune_392_l data.root=/imagenet
    Hardware: 8 GPUs; total batch 512. Hours: not measured. Expected: top-1 84.6 % (paper). Seeds: not yet run.
    """
    return papers(
        "finetune_392_l",
        ModelSpec(name="sequencer2d_l", pretrained=True, drop_path_rate=0.4),
        DataConfig(source="folder", image_size=392, crop_pct=1.0, batch_size=512, mixup_group=64),
        OptimizerConfig(lr=5e-5, lr_reference_batch=None, weight_decay=1e-8),
        epochs=30,
        warmup=0,
        cooldown=0,
        checkpoint_interval_s=1800.0,
    )
