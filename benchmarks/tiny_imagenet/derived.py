"""Plans whose runs start from the weights of finished runs: fine-tuning at a higher resolution, and transfer."""

from benchmarks.tiny_imagenet.comparisons import SMALL, TABLE1
from benchmarks.tiny_imagenet.plans import Model, Plan

# Their weights depend on the size of the images, and those of a run are not resampled.
_FIXED_SIZE = ("swin_tiny", "deit_small", "vit_tiny_10", "vit_small_8")


def larger(plan: str, source: Plan, name: str, epochs: int, minutes: float) -> Model:
    """The line of fine-tuning a line of `source`, whose name is `plan`, at 1.75 × its resolution."""
    model = source.models[name]
    size = int(model.fields.get("data.image_size", source.fields.get("data.image_size", "64")))
    fields = {"data.image_size": str(size * 7 // 4), "run.epochs": str(epochs)}
    return model._replace(start=f"{plan}/{name}", run=None, fields=fields, minutes=minutes)


FINE_TUNE = Plan(
    """Each finished run goes on at 1.75 × its resolution: 196² after `table1`, 112² after `small`.

    The paper's fine-tuning: AdamW at 5e-5 for 512 images, weight decay 1e-8, no warm-up, a tenth of the epochs. Models
    whose weights depend on the size (Swin, DeiT, ViT) are left out: weights of a run are not resampled for them.

    Expected: 2 to 3 minutes a run (2 epochs of 100,000 images at 3,000 images/s, or 4 at 5,000, and one minute
    besides), 22 GPU minutes a seed.
    """,
    {
        **{name: larger("table1", TABLE1, name, 2, 2) for name in TABLE1.models if name not in _FIXED_SIZE},
        **{name: larger("small", SMALL, name, 4, 2.5) for name in ("sequencer2d_n", "sequencer2d_t")},
        "convnext_nano": larger("small", SMALL, "convnext_nano", 4, 3),
    },
    {"optimizer.lr": "5e-5", "optimizer.weight_decay": "1e-8", "schedule.warmup_epochs": "0"},
)

TRANSFER_OPTIMIZER = {
    "optimizer.lr": "1e-4",
    "optimizer.weight_decay": "1e-4",
    "optimizer.clip_grad_norm": "1.0",
}
_SETS = {
    "cifar10": ("cifar10-jpeg", {"run.epochs": "20", "schedule.warmup_epochs": "0.5"}, 3.0),
    "flowers102": (
        "flowers102-64px",
        {"run.epochs": "200", "schedule.warmup_epochs": "5", "data.train_split": "train+val"},
        2.0,
    ),
}
_STARTS = ("sequencer2d_n", "vit_tiny_10", "convnext_femto", "sequencer2d_t", "convnext_nano")


def _transfers() -> dict[str, Model]:
    models = {}
    for data, (folder, fields, minutes) in _SETS.items():
        for name in _STARTS:
            model = SMALL.models[name]._replace(data=folder, run=None, minutes=minutes, row=f"3: {data}")
            own = {**SMALL.models[name].fields, **fields}
            models[f"{data}-{name}"] = model._replace(start=f"small/{name}", fields={**own, **TRANSFER_OPTIMIZER})
            models[f"{data}-{name}-scratch"] = model._replace(row=f"3: {data}, from scratch", fields=own)
    return models


TRANSFER = Plan(
    """The checkpoints of `small`, ours and peers', to CIFAR-10 and Flowers-102, against the same models from scratch.

    `--data` holds cifar10-jpeg/ and flowers102-64px/. The paper's transfer (AdamW at 1e-4 for 512 images, weight decay
    1e-4, gradients clipped at 1, no erasing), CIFAR-10 for 20 epochs instead of 210, Flowers-102 for 200. From scratch
    the recipe's own learning rate and weight decay are kept, since 1e-4 is for weights that were trained before.

    Expected: 3 minutes a run on CIFAR-10 (1 million images at 10,000 images/s and one minute besides), 2 on
    Flowers-102 (408,000 images), 50 GPU minutes a seed.
    """,
    _transfers(),
    {"data.erasing": "0", "data.val_split": "test"},
)
