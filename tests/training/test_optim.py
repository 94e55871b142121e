import copy
import itertools
from dataclasses import replace

import pytest
import torch
from timm.optim import param_groups_weight_decay
from timm.scheduler import CosineLRScheduler

from sequencer2d import create_model, recipes
from sequencer2d.errors import ConfigError
from sequencer2d.training.config import OptimizerConfig, RunConfig, ScheduleConfig, TrainConfig, validate
from sequencer2d.training.fields import with_overrides
from sequencer2d.training.optim import (
    WeightAverage,
    build_optimizer,
    clip_gradients,
    learning_rate,
    load_optimizer_state,
    parameter_groups,
    set_learning_rate,
    train_head_only,
)

STEPS = 10
"""Steps per epoch."""


def test_every_parameter_is_in_one_group_and_only_matrices_decay():
    model = create_model("sequencer2d_n", depths=(1, 1), dims=(16, 16), hidden_dims=(4, 4), patch_sizes=(2, 1))
    decayed, free = parameter_groups(model, 0.05)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.05, 0.0)
    ids = [id(parameter) for group in (decayed, free) for parameter in group["params"]]
    assert sorted(ids) == sorted(id(parameter) for parameter in model.parameters())
    exempt = {id(parameter) for parameter in free["params"]}
    for name, parameter in model.named_parameters():
        is_exempt = ".norm" in name or name.startswith("norm") or "bias" in name
        assert (id(parameter) in exempt) == is_exempt, name


SMALL = {"depths": (1,), "dims": (16,), "hidden_dims": (8,), "patch_sizes": (14,), "num_classes": 2}


def names_of(model, group):
    ids = {id(parameter) for parameter in group["params"]}
    return {name for name, parameter in model.named_parameters() if id(parameter) in ids}


@pytest.mark.parametrize("variant", ["vsequencer_pe_s", "vsequencer_s", "sequencer2d_s"])
def test_weight_decay_is_that_of_timms_optimizer_as_the_authors_use_it(variant):
    hidden = (8,) if variant.startswith("v") else (4,)
    model = create_model(variant, **{**SMALL, "hidden_dims": hidden})
    assert not hasattr(model, "no_weight_decay") or not model.no_weight_decay(), "the authors' models name nothing"
    timms = {group["weight_decay"]: names_of(model, group) for group in param_groups_weight_decay(model, 0.05)}
    ours = {group["weight_decay"]: names_of(model, group) for group in parameter_groups(model, 0.05)}
    assert ours == timms
    assert ("pos_embed.weight" in ours[0.05]) == (variant == "vsequencer_pe_s")


def test_more_parameters_may_be_left_out_of_weight_decay():
    model = create_model("vsequencer_pe_s", **SMALL)
    groups = build_optimizer(model, OptimizerConfig(no_decay=("pos_embed.weight",))).param_groups
    assert "pos_embed.weight" in names_of(model, groups[1])
    with pytest.raises(ConfigError, match=r"no_decay names pos_embed, .* did you mean pos_embed\.weight"):
        build_optimizer(model, OptimizerConfig(no_decay=("pos_embed",)))


@pytest.mark.parametrize("recipe, peak", [("imagenet_s", 2e-3), ("imagenet_m", 1.5e-3), ("imagenet_l", 1e-3)])
def test_schedule_of_the_papers_runs(recipe, peak):
    config = recipes.get(recipe)
    rates = [learning_rate(config, epoch * STEPS, STEPS) for epoch in range(config.run.epochs)]
    assert len(rates) == 310
    assert rates[0] == 1e-6
    assert rates[10] == pytest.approx(1e-6 + (peak - 1e-6) / 2)
    assert rates[20] == pytest.approx(peak, rel=0.02), "the cosine runs under the warm-up"
    assert rates[150] == pytest.approx(1e-6 + (peak - 1e-6) / 2)
    assert rates[300:] == [1e-6] * 10
    assert learning_rate(config, 20 * STEPS + STEPS - 1, STEPS) == rates[20], "constant within an epoch"


@pytest.mark.parametrize("recipe", ["imagenet_s", "finetune_392_l", "transfer_cifar10"])
def test_schedule_equals_timms(recipe):
    config = recipes.get(recipe)
    schedule = config.schedule
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=config.peak_lr)
    timms = CosineLRScheduler(
        optimizer,
        t_initial=config.cosine_epochs,
        lr_min=schedule.min_lr,
        warmup_t=int(schedule.warmup_epochs),
        warmup_lr_init=schedule.warmup_lr,
    )
    for epoch in range(config.run.epochs):
        timms.step(epoch)
        assert learning_rate(config, epoch * STEPS, STEPS) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)


def test_schedule_by_step_is_smooth():
    config = with_overrides(TrainConfig(), {"schedule.update": "step", "schedule.warmup_epochs": 2, "run.epochs": 10})
    rates = [learning_rate(config, step, STEPS) for step in range(10 * STEPS)]
    top = rates.index(max(rates))
    assert top == 2 * STEPS - 1, "the cosine starts a little below the peak"
    assert all(a < b for a, b in itertools.pairwise(rates[: top + 1]))
    assert all(a > b for a, b in itertools.pairwise(rates[top:]))


def test_average_forgets_the_first_weights_and_keeps_buffers():
    model = torch.nn.BatchNorm1d(1)
    average = WeightAverage(model, 0.9)
    torch.nn.init.constant_(model.weight, 2.0)
    model.num_batches_tracked += 5
    average.update(step=0)
    assert average.module.weight.item() == pytest.approx(0.1 * 1 + 0.9 * 2)
    average.update(step=10_000)
    assert average.module.weight.item() == pytest.approx(0.9 * 1.9 + 0.1 * 2)
    assert average.module.num_batches_tracked == 5
    assert not average.module.weight.requires_grad


def test_optimizer_follows_the_configuration():
    model = torch.nn.Linear(2, 2)
    before = copy.deepcopy(model)
    config = with_overrides(
        TrainConfig(), {"optimizer.lr": 0.5, "optimizer.weight_decay": 0.1, "optimizer.betas": "0,0"}
    )
    optimizer = build_optimizer(model, config.optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    torch.testing.assert_close(model.weight, before.weight * (1 - 0.5 * 0.1) - 0.5, atol=1e-6, rtol=0)
    torch.testing.assert_close(model.bias, before.bias - 0.5, atol=1e-6, rtol=0)


def test_milestones_take_the_place_of_the_cosine():
    config = TrainConfig(
        optimizer=OptimizerConfig(lr=1e-4, lr_reference_batch=None),
        schedule=ScheduleConfig(warmup_epochs=0.5, warmup_lr=0.0, milestones=(8, 11), update="step"),
        run=RunConfig(epochs=12),
    )
    rates = [learning_rate(config, step, 10) for step in (0, 4, 5, 79, 80, 109, 110, 119)]
    assert rates == pytest.approx([0, 8e-5, 1e-4, 1e-4, 1e-5, 1e-5, 1e-6, 1e-6])
    for wrong in ((11, 8), (8, 8), (0.5, 8), (8, 12)):  # descending, twice, during the warm-up, after the end
        with pytest.raises(ConfigError, match=r"schedule\.milestones=.* must ascend"):
            validate(replace(config, schedule=replace(config.schedule, milestones=wrong)))


def test_the_learning_rate_falls_from_layer_to_layer():
    model = create_model("sequencer2d_n", depths=(1, 2), dims=(16, 16), hidden_dims=(4, 4), patch_sizes=(2, 2))
    optimizer = build_optimizer(model, OptimizerConfig(layer_decay=0.5))
    set_learning_rate(optimizer, 8.0)
    rates = {name: group["lr"] for group in optimizer.param_groups for name in names_of(model, group)}
    assert rates.keys() == dict(model.named_parameters()).keys()
    assert rates["head.fc.weight"] == 8.0
    order = (
        "stem.proj.weight",
        *(f"stages.{block}.norm1.weight" for block in ("0.blocks.0", "1.blocks.0", "1.blocks.1")),
    )
    values = [rates[name] for name in order]
    assert all(later == 2 * earlier for earlier, later in itertools.pairwise(values)), values
    with pytest.raises(ConfigError, match=r"layer_decay needs a model that states its layers, and Linear does not"):
        build_optimizer(torch.nn.Linear(2, 2), OptimizerConfig(layer_decay=0.5))


def test_the_classifier_alone_is_trained():
    model = create_model("sequencer2d_n", **SMALL | {"hidden_dims": (4,)})
    train_head_only(model)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"head.fc.weight", "head.fc.bias"}
    assert [name for name, module in model.named_modules() if module.training] == ["head.fc"]
    with pytest.raises(ConfigError, match="needs a model with a classifier, and Linear has none"):
        train_head_only(torch.nn.Linear(2, 2))


def test_the_optimizer_is_one_fused_kernel_with_the_settings_of_the_configuration():
    model = create_model("sequencer2d_n", **SMALL)
    config = OptimizerConfig(lr=0.25, betas=(0.5, 0.75), eps=0.125, weight_decay=0.375)
    optimizer = build_optimizer(model, config)
    assert type(optimizer) is torch.optim.AdamW
    found = {name: optimizer.defaults[name] for name in ("lr", "betas", "eps", "fused", "amsgrad", "maximize")}
    assert found == {
        "lr": 0.25, "betas": (0.5, 0.75), "eps": 0.125, "fused": True, "amsgrad": False, "maximize": False,
    }  # fmt: skip
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.375, 0.0]


def test_a_polynomial_schedule_is_mmcvs():
    config = with_overrides(
        TrainConfig(),
        {"optimizer.lr": 2e-4, "optimizer.lr_reference_batch": "none", "schedule.poly_power": 0.9,
         "schedule.min_lr": 0, "schedule.update": "step", "run.epochs": 10},
    )  # fmt: skip
    rates = [learning_rate(config, step, STEPS) for step in range(10 * STEPS)]
    assert rates == pytest.approx([2e-4 * (1 - step / (10 * STEPS)) ** 0.9 for step in range(10 * STEPS)])
    with pytest.raises(ConfigError, match=r"schedule\.milestones and schedule\.poly_power both"):
        validate(with_overrides(config, {"schedule.milestones": "3"}))


def test_norms_and_biases_decay_if_all_shall():
    model = torch.nn.LayerNorm(2)
    for decay_all, expected in ((True, [(0.1, 0), (0.1, 2)]), (False, [(0.1, 0), (0.0, 2)])):
        optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0.1, decay_all=decay_all))
        assert [(group["weight_decay"], len(group["params"])) for group in optimizer.param_groups] == expected


def test_gradients_are_scaled_together_to_the_largest_norm_and_left_alone_without_one():
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    for largest, left in ((None, [3.0, 4.0]), (10.0, [3.0, 4.0]), (2.5, [1.5, 2.0])):
        for parameter, value in zip(parameters, (3.0, 4.0), strict=True):
            parameter.grad = torch.tensor([value])
        norm = clip_gradients(parameters, largest)
        assert (None if norm is None else norm.item()) == (None if largest is None else 5.0)
        assert [parameter.grad.item() for parameter in parameters] == pytest.approx(left, rel=1e-5)


def test_the_averages_decay_rises_from_step_to_step():
    """(1 + n) / (10 + n) for update n: a quarter for the third."""
    model = torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(model.weight)
    average = WeightAverage(model, 0.9)
    torch.nn.init.ones_(model.weight)
    average.update(step=2)
    assert average.module.weight.item() == pytest.approx(0.75)
    assert not average.module.training
    assert model.weight.requires_grad


def test_names_that_end_in_bias_do_not_decay_whatever_their_shape():
    model = torch.nn.Linear(2, 3)
    model.bias_hh = torch.nn.Parameter(torch.zeros(2, 3))
    model.unbiased = torch.nn.Parameter(torch.zeros(2, 3))
    model.frozen = torch.nn.Parameter(torch.zeros(2, 3), requires_grad=False)
    decayed, free = parameter_groups(model, 0.1)
    assert names_of(model, decayed) == {"weight", "unbiased"}
    assert names_of(model, free) == {"bias", "bias_hh"}
    assert "lr_scale" not in decayed


def test_a_state_of_the_optimizer_fits_its_parameters_or_is_refused():
    model = torch.nn.Linear(2, 3)
    optimizer = build_optimizer(model, OptimizerConfig(lr=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    stored = copy.deepcopy(optimizer.state_dict())
    stored["param_groups"][0]["lr"] = 9.0
    fresh = build_optimizer(model, OptimizerConfig(lr=0.25))
    load_optimizer_state(fresh, stored)
    assert fresh.state_dict()["state"][1]["exp_avg"].tolist() == pytest.approx([0.1] * 3)
    assert fresh.param_groups[0]["lr"] == 0.25, "the configuration's"
    states, groups = stored["state"], stored["param_groups"]
    for state, says in (
        ({**states, 2: states[0]}, "has no parameter 2"),
        ({**states, -1: states[0]}, "has no parameter -1"),
        ({"0": states[0]}, "has no parameter 0"),
        ({0: states[1]}, "exp_avg of parameter 0 does not fit"),
        ({0: {**states[0], "step": torch.zeros(1)}}, "step of parameter 0"),
        ({0: {**states[0], "exp_avg_sq": torch.full((3, 2), torch.inf)}}, "exp_avg_sq of parameter 0"),
    ):
        with pytest.raises(ValueError, match=says):
            load_optimizer_state(fresh, {"state": state, "param_groups": groups})
    for other in (groups[:1], [groups[0], {**groups[1], "params": [5]}], [groups[0], 3], "ab", None):
        with pytest.raises(ValueError, match="groups of parameters are others"):
            load_optimizer_state(fresh, {"state": states, "param_groups": other})
