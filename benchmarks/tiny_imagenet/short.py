"""The other plans in short: 10 epochs each, for where minutes are all there is.

Measured on one H200 that is used alone: N-P4 at 96² trains at 19,000 images/s; a start takes 57 s with cold caches of
the compiler, 25 s with warm ones, of which some 10 s decode the images. Expected from it: 25,000 images/s of N at 64²,
all processes together, so a run of 1 million images takes 40 s of the GPU. A call of 300 s with four runs side by side
waits 75 s until the first of them trains, then it finishes 5 to 6 runs, whose starts lie beside the others' training.
In this order:

1. `ablations_short`, seed 0 (7 runs, 350 s), then seeds 1 and 2 (300 s each: their models are compiled already);
2. `small_short` and `better_short`, seed 0 (8 runs, 400 s), then their other seeds;
3. `fine_tune_short` of the runs of 2 on the same machine (each 20 s of training and a start of 40 s);
4. `transfer_shipped`, which needs no Tiny-ImageNet (4 runs, 180 s) and can ride on any call.

    python -m benchmarks.tiny_imagenet small_short,better_short --data /data/tiny --per-gpu 4 --time-limit 300

All plans of a call share the GPU's places: one's last runs train beside the next one's first. Whatever the time limit
stops goes on with the same command.
"""

from benchmarks.tiny_imagenet.ablations import ABLATIONS_SHORT
from benchmarks.tiny_imagenet.comparisons import BETTER, SMALL
from benchmarks.tiny_imagenet.derived import FINE_TUNE, TRANSFER, TRANSFER_OPTIMIZER, larger
from benchmarks.tiny_imagenet.plans import Model, Plan

_RECIPE = ABLATIONS_SHORT.fields
_OURS = "ablations_short/sequencer2d_n"
_AS_N = ("vit_tiny_10", "convnext_femto", "regnety_008", "poolformer_s12", "mambaout_femto")


def _short(model: Model) -> Model:
    return model._replace(minutes=1.0)


SMALL_SHORT = Plan(
    """Sequencer2D-N against peers that take as many multiplications, under the recipe of `ablations_short`.

    The lines of `small` that cost as much as N, for a tenth of its images. N's own runs are those of
    `ablations_short`.

    Expected: 1 minute a run, four side by side; 5 GPU minutes a seed.
    """,
    {
        "sequencer2d_n": _short(SMALL.models["sequencer2d_n"])._replace(run=_OURS),
        **{name: _short(SMALL.models[name]) for name in _AS_N},
    },
    _RECIPE,
)

BETTER_SHORT = Plan(
    """The variants of `better` under the recipe of `ablations_short`, against N as it is.

    Expected: 1 minute a run, four side by side.
    """,
    {
        name: _short(model)._replace(run=_OURS if name == "sequencer2d_n" else None)
        for name, model in BETTER.models.items()
    },
    _RECIPE,
)

FINE_TUNE_SHORT = Plan(
    """The runs of `small_short` go on at 1.75 × their resolution, as in `fine_tune`.

    2 epochs; the augmentation is that of the runs from which they start.

    Expected: 1 minute a run, four side by side; the runs from which they start must lie in `--runs`.
    """,
    {name: larger("small_short", SMALL_SHORT, name, 2, 1.0) for name in SMALL_SHORT.models if name != "vit_tiny_10"},
    {**_RECIPE, **FINE_TUNE.fields},
)

_CIFAR10 = {"run.epochs": "10", "schedule.warmup_epochs": "0.5"}
_FLOWERS102 = {
    "run.epochs": "100",
    "run.eval_interval": "50",
    "schedule.warmup_epochs": "5",
    "data.train_split": "train+val",
}
_SETS = {"cifar10": ("cifar10-jpeg", _CIFAR10), "flowers102": ("flowers102-64px", _FLOWERS102)}


def _shipped(data: str, folder: str, fields: dict[str, str]) -> dict[str, Model]:
    """From the shipped weights, and from scratch."""
    scratch = Model(f"3: {data}, from scratch", model="sequencer2d_n_p4", minutes=1.0, fields=fields, data=folder)
    pretrained = {**fields, **TRANSFER_OPTIMIZER, "model.pretrained": "true"}
    return {
        f"{data}-shipped": scratch._replace(row=f"3: {data}", fields=pretrained),
        f"{data}-scratch": scratch,
    }


TRANSFER_SHIPPED = Plan(
    """From the weights that come with the package to CIFAR-10 and Flowers-102, against the same model from scratch.

    `--data` holds cifar10-jpeg/ and flowers102-64px/. The optimizer is that of `transfer`, the augmentation that of
    `ablations_short`, the images have 96², as those of the weights' own training. CIFAR-10 for 10 epochs, Flowers-102
    for 100.

    Expected: 1 minute a run, four side by side; 4 GPU minutes a seed.
    """,
    {name: line for data, (folder, fields) in _SETS.items() for name, line in _shipped(data, folder, fields).items()},
    {**_RECIPE, **TRANSFER.fields, "data.image_size": "96"},
)
