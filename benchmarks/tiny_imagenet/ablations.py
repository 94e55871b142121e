"""The paper's Table 2 at the size of Sequencer2D-N, in full and shortened."""

from benchmarks.tiny_imagenet.plans import STRIDE_4, Model, Plan

_WIDE = {**STRIDE_4, "hidden_dims": (48, 96, 96, 96)}
_FLAT = {"axes": "flatten", "fusion": "none"}
_VANILLA = {**_FLAT, "patch_sizes": (8, 1, 1, 1), "dims": (192,) * 4, "hidden_dims": (96,) * 4}

ABLATIONS = Plan(
    """All ablations of Table 2, 13 models of 64² images, 40 epochs.

    Expected: 6 minutes a run (4 million images at 13,000 images/s and one minute besides), 78 GPU minutes a seed.
    """,
    {
        "sequencer2d_n": Model("2a: BiLSTM2D", STRIDE_4),
        "vertical": Model("2a: vertical", {**_WIDE, "axes": "vertical", "fusion": "none"}),
        "horizontal": Model("2a: horizontal", {**_WIDE, "axes": "horizontal", "fusion": "none"}),
        "nofusion": Model("2a: no channel fusion", {**STRIDE_4, "fusion": "none"}),
        "unidirectional": Model("2b: unidirectional", {**_WIDE, "bidirectional": False}),
        "unidirectional_narrow": Model("authors' code", {**STRIDE_4, "bidirectional": False}),
        "vsequencer": Model("2c: VSequencer", _VANILLA),
        "vsequencer_h": Model("2c: VSequencer(H)", {**_WIDE, **_FLAT}),
        "vsequencer_pe": Model("2c: VSequencer(PE)", {**_VANILLA, "position_embedding": True}),
        "h2x": Model("2d: hidden 2×", _WIDE),
        "gru": Model("2e: GRU", {**STRIDE_4, "cell": "gru"}),
        "rnn": Model("2e: RNN", {**STRIDE_4, "cell": "rnn"}),
        "add": Model("authors' code", {**STRIDE_4, "fusion": "add"}),
    },
)

_SHORT = ("sequencer2d_n", "vertical", "horizontal", "unidirectional", "vsequencer", "gru", "h2x")

ABLATIONS_SHORT = Plan(
    """The rows of Table 2 with the paper's largest gaps, and its first row, for 10 epochs only.

    A seventh of the images of `ablations`, for where minutes are all there is. So short a run does not overfit: it sees
    crops of at least a quarter of the image and flips, no RandAugment, mixup, cutmix or erasing, and no stochastic
    depth. The rate is the recipe's, with one epoch of warm-up.

    Expected: 1 minute a run with three side by side (1 million images at 20,000 images/s in all, and the starts beside
    each other), 7 GPU minutes a seed.
    """,
    {name: ABLATIONS.models[name]._replace(minutes=1.0) for name in _SHORT},
    {
        "run.epochs": "10",
        "schedule.warmup_epochs": "1",
        "model.drop_path_rate": "0",
        "data.crop_scale": "0.25,1",
        "data.auto_augment": "",
        "data.mixup": "0",
        "data.cutmix": "0",
        "data.erasing": "0",
    },
)
