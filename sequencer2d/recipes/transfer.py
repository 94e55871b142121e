"""The paper's transfer of ImageNet-1K weights to small data sets (section 4.4, Table 3, appendix B.4): a recipe a cell.

`parts.papers` says what all runs of the paper share.
"""

from collections.abc import Callable
from typing import NamedTuple

from sequencer2d.data.config import DataConfig
from sequencer2d.recipes.parts import papers
from sequencer2d.training.config import ModelSpec, OptimizerConfig, TrainConfig


class DataSet(NamedTuple):
    """A data set of Table 3: its title, how it is read, and the paper's top-1 (%) with S, M and L."""

    title: str
    source: str
    train_split: str
    options: str
    paper: dict[str, float]
    remark: str = ""


DATA_SETS = {
    "cifar10": DataSet("CIFAR-10", "torch:cifar10", "train", " data.download=true", {"s": 99.0, "m": 99.1, "l": 99.1}),
    "cifar100": DataSet(
        "CIFAR-100", "torch:cifar100", "train", " data.download=true", {"s": 90.6, "m": 90.8, "l": 91.2}
    ),
    "flowers102": DataSet(
        "Flowers-102",
        "torch:flowers102",
        "train+val",
        " data.download=true",
        {"s": 98.2, "m": 98.2, "l": 98.6},
        "Trained on the splits train and val together, 2,040 images, as the authors did.",
    ),
    "cars": DataSet(
        "Stanford Cars",
        "torch:stanford_cars",
        "train",
        "",
        {"s": 93.1, "m": 93.3, "l": 93.1},
        "data.root holds stanford_cars/ as its authors distributed it; nobody offers it for download any more.",
    ),
}

DROP_PATH = {"s": 0.1, "m": 0.2, "l": 0.4}
"""Stochastic depth of each size. The authors give S's; M and L take the rates that they were trained with."""


def _transfer(name: str, data_set: str, size: str) -> TrainConfig:
    about = DATA_SETS[data_set]
    return papers(
        name,
        ModelSpec(name=f"sequencer2d_{size}", pretrained=True, drop_path_rate=DROP_PATH[size]),
        DataConfig(
            source=about.source,
            train_split=about.train_split,
            val_split="test",
            image_size=224,
            batch_size=512,
            erasing=0.0,
            mixup_group=128,
        ),
        OptimizerConfig(lr=1e-4, lr_reference_batch=None, weight_decay=1e-4, clip_grad_norm=1.0),
        epochs=210,
        warmup=5,
        cooldown=10,
    )


def _recipe(data_set: str, size: str) -> Callable[[], TrainConfig]:
    """The function of one cell of Table 3. S, which the authors' example trains, has no letter in its recipe's name."""
    about = DATA_SETS[data_set]
    name = f"transfer_{data_set}" + ("" if size == "s" else f"_{size}")

    def recipe() -> TrainConfig:
        return _transfer(name, data_set, size)

    recipe.__name__ = recipe.__qualname__ = name
    recipe.__doc__ = f"""Sequencer2D-{size.upper()} from ImageNet-1K to {about.title}, 200 epochs at 224².

    {about.remark or "Official splits: trained on train, tested on test."}

    Command: sequencer2d train {name} data.root=/data{about.options}
    Hardware: 1 GPU or more; total batch 512. Hours: not measured. Expected: top-1 {about.paper[size]} % (paper).
    Seeds: not yet run.
    """
    return recipe


TRANSFER = tuple(_recipe(data_set, size) for data_set in DATA_SETS for size in DROP_PATH)
"""The recipes, data set by data set: transfer_cifar10, transfer_cifar10_m, transfer_cifar10_l, …"""
