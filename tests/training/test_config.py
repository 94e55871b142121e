import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sequencer2d.errors import ConfigError
from sequencer2d.ranges import describe, leaves
from sequencer2d.training import config as config_module
from sequencer2d.training.config import TrainConfig, validate
from sequencer2d.training.fields import show_value, value_at, with_overrides
from sequencer2d.training.numerics import check_precision
from sequencer2d.training.values import convert

FIELDS = json.loads((Path(__file__).parent / "fields.json").read_text())
"""Every field's default and what it takes. A stored configuration that lacks a field means its default."""


def test_defaults_and_ranges_are_those_that_stored_configurations_rely_on():
    default = TrainConfig()
    found = {path: [show_value(value_at(default, path)), describe(hint)] for path, hint in leaves(TrainConfig)}
    assert found == FIELDS


@pytest.mark.parametrize(
    "path, value",
    [
        ("optimizer.lr", -1e-3),
        ("optimizer.weight_decay", -0.1),
        ("optimizer.clip_grad_norm", 0.0),
        ("optimizer.betas", (0.9, 1.0)),
        ("run.epochs", 0),
        ("run.keep", 0),
        ("run.log_interval", 0),
        ("run.memory_budget", 0.0),
        ("run.memory_budget", 1.1),
        ("schedule.warmup_epochs", -1),
        ("regularization.label_smoothing", 1.0),
        ("regularization.ema_decay", -0.1),
        ("model.drop_path_rate", 1.0),
    ],
)
def test_a_value_out_of_range_names_the_field(path, value):
    with pytest.raises(ConfigError, match=path):
        validate(with_overrides(TrainConfig(), {path: value}))


def test_batch_must_split_into_processes_and_micro_batches():
    config = with_overrides(TrainConfig(), {"data.batch_size": 100, "optimizer.accumulation": 3})
    with pytest.raises(ConfigError, match="96 or 102"):
        validate(config, world_size=2)
    validate(with_overrides(config, {"data.batch_size": 96}), world_size=2)


def test_two_sources_of_first_weights_are_refused():
    with pytest.raises(ConfigError, match=r"model\.checkpoint"):
        validate(with_overrides(TrainConfig(), {"model.pretrained": True, "model.checkpoint": "a.pth"}))


def test_learning_rate_scales_with_the_batch_unless_absolute():
    config = with_overrides(TrainConfig(), {"optimizer.lr": 5e-4, "data.batch_size": 2048})
    assert config.peak_lr == pytest.approx(2e-3)
    assert with_overrides(config, {"optimizer.lr_reference_batch": None}).peak_lr == 5e-4


def test_a_memory_budget_is_for_the_compiler():
    config = with_overrides(TrainConfig(), {"run.memory_budget": 0.5})
    with pytest.raises(ConfigError, match=r"run\.compile=true"):
        validate(config)
    validate(with_overrides(config, {"run.compile": True}))


def test_gradients_in_a_graphs_memory_cannot_be_accumulated():
    config = with_overrides(TrainConfig(), {"run.compile": "reduce-overhead", "optimizer.accumulation": 2})
    with pytest.raises(ConfigError, match=r"optimizer\.accumulation=2"):
        validate(config)
    validate(with_overrides(config, {"run.compile": "default"}))


def test_fp16_without_a_gpu_names_what_runs_there():
    """Both before a run, where the device is named, and where it turns out."""
    with pytest.raises(ConfigError, match=r"^precision=fp16 needs a CUDA device; on the CPU use fp32 or bf16$"):
        validate(with_overrides(TrainConfig(), {"precision": "fp16", "run.device": "cpu"}))
    with pytest.raises(ConfigError, match=r"^precision=fp16 needs a CUDA device"):
        check_precision("fp16", torch.device("cpu"))
    check_precision("bf16", torch.device("cpu"))
    check_precision("fp32", torch.device("cpu"))


def test_keys_of_a_mapping_are_text_as_in_json():
    assert convert("{1: 'a', 'b': (2, 3)}", dict[str, Any], "model.overrides") == {"1": "a", "b": (2, 3)}
    assert convert('{"depths": [1, 2]}', dict[str, Any], "model.overrides") == {"depths": [1, 2]}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"schedule.cooldown_epochs": 9, "schedule.warmup_epochs": 1}, ""),
        (
            {"schedule.cooldown_epochs": 10, "schedule.warmup_epochs": 0},
            "cooldown_epochs=10 must be below run.epochs=10",
        ),
        ({"schedule.cooldown_epochs": 4, "schedule.warmup_epochs": 6}, ""),
        (
            {"schedule.cooldown_epochs": 4, "schedule.warmup_epochs": 6.5},
            "longer than the 6 epochs before the cool-down",
        ),
        ({"schedule.warmup_epochs": 1, "schedule.milestones": "2,5"}, ""),
        ({"schedule.warmup_epochs": 2, "schedule.milestones": "2,5"}, r"milestones=2,5 must ascend"),
        ({"schedule.warmup_epochs": 1, "schedule.milestones": "2,10"}, r"milestones=2,10 must ascend"),
        ({"schedule.warmup_epochs": 1, "schedule.milestones": "2,9", "schedule.cooldown_epochs": 1}, "must ascend"),
        ({"schedule.min_lr": 1e-3}, ""),
        ({"schedule.min_lr": 1.1e-3}, "min_lr=0.0011 is above the highest learning rate, 0.001"),
        ({"schedule.warmup_epochs": 1, "schedule.warmup_lr": 1.1e-3}, "warmup_lr=0.0011 is above"),
        ({"schedule.warmup_epochs": 0, "schedule.warmup_lr": 1.1e-3}, ""),
    ],
)
def test_a_schedule_fits_its_run(fields, says):
    plain = {"run.epochs": 10, "optimizer.lr": 1e-3, "optimizer.lr_reference_batch": None, "schedule.warmup_epochs": 1}
    config = with_overrides(TrainConfig(), {"schedule.cooldown_epochs": 0, **plain, **fields})
    if says:
        with pytest.raises(ConfigError, match=says):
            validate(config)
    else:
        validate(config)


@pytest.mark.parametrize(
    ("fields", "instead"),
    [
        ({"data.mixup": 0.2}, "data.mixup=0 data.cutmix=0"),
        ({"data.resampler": "torch"}, "data.resampler=pillow"),
        ({"data.val_fraction": 0.1}, "data.val_fraction=0"),
        ({"run.mistakes": True}, "run.mistakes=false"),
        ({"regularization.class_weights": "balanced"}, "regularization.class_weights=none"),
        ({"data.augment_on": "device"}, "data.augment_on=workers"),
        ({}, ""),
    ],
)
def test_what_is_for_images_of_one_class_is_refused_for_other_tasks(fields, instead):
    plain = {
        "task": "segmentation", "model.decoder": "semantic_fpn", "data.mixup": 0, "data.cutmix": 0,
        "run.mistakes": False, "data.val_fraction": 0, "data.augment_on": "workers", "data.batch_policy": "",
    }  # fmt: skip
    config = with_overrides(TrainConfig(), plain | fields)
    if instead:
        with pytest.raises(ConfigError, match=f"not for task=segmentation: set {instead}"):
            config_module._check_task(config)
    else:
        config_module._check_task(config)


@pytest.mark.parametrize(
    ("batch", "world", "accumulation", "says"),
    [(6, 2, 3, ""), (7, 2, 3, "take 6 or 12"), (5, 2, 3, "take 6$"), (13, 1, 4, "take 12 or 16"), (12, 1, 1, "")],
)
def test_a_batch_that_does_not_split_names_its_neighbors(batch, world, accumulation, says):
    if says:
        with pytest.raises(ConfigError, match=says):
            config_module._check_batch(batch, world, accumulation)
    else:
        config_module._check_batch(batch, world, accumulation)


def test_a_classifier_alone_needs_weights_that_are_there():
    head = {"model.train": "head"}
    with pytest.raises(ConfigError, match=r"model\.train=head trains a classifier on weights"):
        validate(with_overrides(TrainConfig(), head))
    for there in ({"model.pretrained": True}, {"model.checkpoint": "a.pth"}):
        validate(with_overrides(TrainConfig(), head | there))


def test_nccl_is_for_gpus():
    nccl = {"distributed.backend": "nccl"}
    with pytest.raises(ConfigError, match=r"distributed\.backend=nccl needs CUDA"):
        validate(with_overrides(TrainConfig(), nccl | {"run.device": "cpu"}))
    validate(with_overrides(TrainConfig(), nccl | {"run.device": "auto"}))
    validate(with_overrides(TrainConfig(), {"distributed.backend": "gloo", "run.device": "cpu"}))
