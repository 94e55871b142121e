import json
from pathlib import Path

import pytest

from sequencer2d import create_model, recipes
from sequencer2d.errors import ConfigError
from sequencer2d.training.config import TrainConfig, validate
from sequencer2d.training.fields import differences, from_dict, to_dict, value_at, with_overrides

SCRATCH = {"imagenet_s": (2048, 2e-3, 0.1), "imagenet_m": (1536, 1.5e-3, 0.2), "imagenet_l": (1024, 1e-3, 0.4)}
TABLE3 = {
    "cifar10": ("torch:cifar10", "train", (99.0, 99.1, 99.1)),
    "cifar100": ("torch:cifar100", "train", (90.6, 90.8, 91.2)),
    "flowers102": ("torch:flowers102", "train+val", (98.2, 98.2, 98.6)),
    "cars": ("torch:stanford_cars", "train", (93.1, 93.3, 93.1)),
}
"""Source, training split and the paper's top-1 (%) of S, M and L."""
TRANSFER = [(data_set, size) for data_set in TABLE3 for size in "sml"]


OWN = json.loads((Path(__file__).parent / "own.json").read_text())
"""What each recipe of ours sets beside the defaults, which the results in README and docs were made with."""
PAPERS = (*SCRATCH, "finetune_392_l", *(name for name in recipes.names() if name.startswith("transfer_")))


@pytest.mark.parametrize("name", OWN)
def test_our_recipes_are_those_that_their_results_were_made_with(name):
    default, config = TrainConfig(), recipes.get(name)
    changed = {path: value_at(config, path) for path in differences(default, config)}
    assert json.loads(json.dumps(changed)) == OWN[name]


def test_every_recipe_is_of_the_paper_or_ours():
    assert sorted([*OWN, *PAPERS]) == sorted(recipes.names())


@pytest.mark.parametrize("name", PAPERS)
def test_what_all_runs_of_the_paper_share(name):
    config = recipes.get(name)
    assert (config.data.orientation, config.data.background) == ("stored", "none")
    assert (config.optimizer.betas, config.optimizer.eps) == ((0.9, 0.999), 1e-8)
    assert (config.optimizer.accumulation, config.optimizer.no_decay) == (1, ())
    schedule = config.schedule
    assert (schedule.warmup_lr, schedule.min_lr, schedule.update) == (1e-6, 1e-6, "epoch")
    assert config.regularization.ema_decay is None
    assert (config.data.augment_on, config.data.batch_policy, config.data.color_jitter) == ("workers", "", 0.0)
    assert config.data.crop_ratio == (3 / 4, 4 / 3)
    assert (config.data.mean, config.data.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (config.data.eval_interpolation, config.data.eval_crop) == ("bicubic", "center")
    assert config.run.checkpoint_interval_s == (600.0 if name.startswith("transfer_") else 1800.0)
    assert config.model.overrides == {}


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_is_valid_and_states_how_it_runs(name):
    config = recipes.get(name)
    validate(config, world_size=8)
    assert from_dict(TrainConfig, to_dict(config)) == config
    documentation = next(recipe.__doc__ for recipe in recipes._RECIPES if recipe.__name__ == name)
    for word in (f"train {name}", "Hardware", "Expected", "Seeds"):
        assert word in documentation
    assert recipes.summary(name).endswith(".")
    assert config.run.output == f"runs/{name}"


@pytest.mark.parametrize("name", SCRATCH)
def test_imagenet_from_scratch_is_the_papers(name):
    config = recipes.get(name)
    batch, peak, drop_path = SCRATCH[name]
    assert config.model.name == f"sequencer2d_{name[-1]}"
    assert (config.data.batch_size, config.model.drop_path_rate) == (batch, drop_path)
    assert config.peak_lr == pytest.approx(peak)
    assert (config.optimizer.weight_decay, config.optimizer.clip_grad_norm) == (0.05, None)
    assert (config.run.epochs, config.schedule.warmup_epochs, config.schedule.cooldown_epochs) == (310, 20, 10)
    assert (config.schedule.warmup_lr, config.schedule.min_lr) == (1e-6, 1e-6)
    assert config.data.mixup_group == 256
    check_augmentation(config, size=224, crop_pct=0.875, erasing=0.25)


def test_fine_tuning_is_the_papers():
    config = recipes.get("finetune_392_l")
    assert (config.model.name, config.model.drop_path_rate, config.data.batch_size) == ("sequencer2d_l", 0.4, 512)
    assert config.peak_lr == 5e-5
    assert (config.optimizer.weight_decay, config.optimizer.clip_grad_norm) == (1e-8, None)
    assert (config.run.epochs, config.schedule.warmup_epochs, config.schedule.cooldown_epochs) == (30, 0, 0)
    assert config.model.pretrained
    assert config.data.mixup_group == 64, "8 processes of 64 images"
    check_augmentation(config, size=392, crop_pct=1.0, erasing=0.25)


@pytest.mark.parametrize("data_set, size", TRANSFER)
def test_transfer_is_the_papers(data_set, size):
    name = f"transfer_{data_set}" + {"s": "", "m": "_m", "l": "_l"}[size]
    config = recipes.get(name)
    source, train_split, expected = TABLE3[data_set]
    assert (config.data.source, config.data.train_split, config.data.val_split) == (source, train_split, "test")
    documentation = recipes._find(name).__doc__
    assert f"Expected: top-1 {expected['sml'.index(size)]} % (paper)" in documentation
    drop_path = {"s": 0.1, "m": 0.2, "l": 0.4}[size]
    assert (config.model.name, config.model.drop_path_rate) == (f"sequencer2d_{size}", drop_path)
    assert config.data.batch_size == 512
    assert config.peak_lr == 1e-4
    assert (config.optimizer.weight_decay, config.optimizer.clip_grad_norm) == (1e-4, 1.0)
    assert (config.run.epochs, config.schedule.warmup_epochs, config.schedule.cooldown_epochs) == (210, 5, 10)
    assert config.schedule.warmup_lr == 1e-6
    assert config.model.pretrained
    assert config.data.mixup_group == 128, "4 processes of 128 images"
    check_augmentation(config, size=224, crop_pct=0.875, erasing=0.0)


@pytest.mark.parametrize("size", "sml")
def test_ade20k_is_poolformers(size):
    config = recipes.get(f"ade20k_fpn_{size}")
    assert (config.data.source, config.data.size, config.data.batch_size) == ("ade20k", (512, 512), 32)
    assert (config.data.scale_jitter, config.data.class_limit, config.data.hflip) == ((0.5, 2.0), 0.75, 0.5)
    assert (config.data.photometric_distortion, config.data.color_jitter) == (True, 0.0)
    assert (config.peak_lr, config.optimizer.weight_decay, config.optimizer.decay_all) == (2e-4, 1e-4, True)
    schedule = config.schedule
    assert (schedule.poly_power, schedule.min_lr, schedule.warmup_epochs, schedule.update) == (0.9, 0.0, 0.0, "step")
    assert (config.model.name, config.model.pretrained) == (f"sequencer2d_{size}", True)
    assert config.run.epochs == 40_000 * 32 // 20_210


def test_cifar10_model_is_small_enough():
    config = recipes.get("cifar10")
    model = create_model(config.model.name, num_classes=10, **config.model.overrides)
    assert sum(parameter.numel() for parameter in model.parameters()) <= 12e6


def test_digits_runs_on_the_cpu_without_downloads():
    config = recipes.get("digits")
    assert (config.run.device, config.data.source, config.data.hflip) == ("cpu", "digits", 0.0)
    assert not config.data.download


def test_an_unknown_recipe_suggests_close_ones():
    with pytest.raises(ConfigError, match="cifar10"):
        recipes.get("cifar")


def test_epochs_are_set_by_their_path():
    assert with_overrides(recipes.get("cifar10"), {"run.epochs": "30"}).run.epochs == 30


def check_augmentation(config, *, size, crop_pct, erasing):
    data = config.data
    assert (data.size, data.crop_pct) == ((size, size), crop_pct)
    assert (data.crop, data.crop_scale, data.hflip, data.interpolation) == (
        "random-resized",
        (0.08, 1.0),
        0.5,
        "random",
    )
    assert (data.auto_augment, data.erasing, data.erasing_mode) == ("rand-m9-mstd0.5-inc1", erasing, "pixel")
    assert (data.mixup, data.cutmix, data.mixup_switch_prob, data.mixup_prob) == (0.8, 1.0, 0.5, 1.0)
    assert config.regularization.label_smoothing == 0.1
    assert config.precision in ("bf16", "fp16"), "mixed"
