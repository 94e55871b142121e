"""From a configuration to the parts of a run, each looked at without a run."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sequencer2d.errors import ConfigError
from sequencer2d.models import Sequencer2D
from sequencer2d.training import assemble, trial
from sequencer2d.training.assemble import (
    build_model,
    build_step,
    check_parts,
    checkpoint_meta,
    class_weights,
    resolve,
    synchronize_batch_norms,
)
from sequencer2d.training.config import TrainConfig
from sequencer2d.training.distributed import Processes

CPU = torch.device("cpu")
ALONE = Processes(rank=0, local_rank=0, world_size=1, device=CPU)


def source_of(*targets: int) -> Any:
    return SimpleNamespace(identities=lambda: (None, np.array(targets)), class_names=["a", "b", "c"])


def test_rare_classes_weigh_more_and_the_mean_over_images_is_one(tiny) -> None:
    """4, 1 and 1 of 6 images: 6 / (3 classes · count). A class without images has the weight 1."""
    config = tiny(regularization__class_weights="balanced")
    weights = class_weights(config, source_of(0, 0, 0, 0, 1, 2))
    assert weights is not None
    assert (weights.tolist(), weights.dtype) == ([0.5, 2.0, 2.0], torch.float32)
    assert weights[torch.tensor([0, 0, 0, 0, 1, 2])].mean() == 1
    more = class_weights(resolve(config, 4), source_of(0, 0, 0, 2))
    assert more is not None
    assert more.tolist() == pytest.approx([4 / 6, 1, 2, 1])
    assert class_weights(tiny(), source_of(0, 1, 2)) is None


@pytest.mark.parametrize(("given", "found"), [(None, 10), (10, 10), (12, 12), (9, None)])
def test_a_model_has_as_many_classes_as_the_data_or_more(tiny, given: int | None, found: int | None) -> None:
    config = tiny(model__num_classes=given)
    if found is None:
        with pytest.raises(ConfigError, match=r"model\.num_classes is 9, but the data have 10 classes"):
            resolve(config, 10)
    else:
        assert resolve(config, 10) == dataclasses.replace(
            config, model=dataclasses.replace(config.model, num_classes=found)
        )


def test_words_for_classes_lie_beside_the_files_or_above(tmp_path: Path) -> None:
    plain: Any = SimpleNamespace(folder=tmp_path / "train")
    assert assemble._folders(plain) == [tmp_path / "train", tmp_path]
    for none in (SimpleNamespace(folder="train"), SimpleNamespace()):
        without: Any = none
        assert assemble._folders(without) == []


def test_parts_are_checked_without_first_weights_and_without_memory(
    tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    monkeypatch.setattr(assemble, "build_optimizer", lambda model, config: made.append(model))
    before = torch.get_rng_state()
    check_parts(tiny(model__checkpoint=str(tmp_path / "not-there.pt"), model__num_classes=None))
    check_parts(tiny(model__num_classes=7))
    assert torch.equal(torch.get_rng_state(), before)
    assert [model.num_classes for model in made] == [1000, 7]
    assert {parameter.device.type for model in made for parameter in model.parameters()} == {"meta"}


def test_first_weights_are_drawn_from_the_runs_seed_and_options_reach_the_model(tiny) -> None:
    config = resolve(tiny(model__drop_path_rate=0.25), 10)
    first, again = build_model(config, CPU), build_model(config, CPU)
    other = build_model(dataclasses.replace(config, run=dataclasses.replace(config.run, seed=1)), CPU)
    name = "stem.proj.weight"
    assert torch.equal(first.get_parameter(name), again.get_parameter(name))
    assert not torch.equal(first.get_parameter(name), other.get_parameter(name))
    assert (first.in_chans, first.num_classes, first.config.drop_path_rate) == (3, 10, 0.25)
    assert first.pretrained_cfg["input_size"][-2:] == (8, 8)
    assert all(parameter.requires_grad for parameter in first.parameters())
    head = build_model(dataclasses.replace(config, model=dataclasses.replace(config.model, train="head")), CPU)
    assert {name for name, value in head.named_parameters() if value.requires_grad} == {
        "head.fc.weight",
        "head.fc.bias",
    }


def test_batch_norms_work_together_on_several_gpus_alone(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    converted: list[nn.Module] = []
    monkeypatch.setattr(nn.SyncBatchNorm, "convert_sync_batchnorm", converted.append)
    model = nn.BatchNorm2d(2)
    for asked in (True, False):
        config = tiny(distributed__sync_batch_norm=asked)
        for size, device in ((1, "cuda"), (2, "cpu"), (2, "cuda")):
            here = Processes(rank=0, local_rank=0, world_size=size, device=torch.device(device))
            synchronize_batch_norms(config, model, here)
            assert converted == ([model] if asked and (size, device) == (2, "cuda") else [])
        converted.clear()


@pytest.mark.parametrize(("precision", "scales"), [("fp32", False), ("bf16", False), ("fp16", True)])
@pytest.mark.parametrize("decay", [None, 0.75])
def test_a_step_has_what_the_configuration_asks_for(tiny, precision: str, scales: bool, decay: float | None) -> None:
    config = resolve(tiny(precision=precision, regularization__ema_decay=decay), 10)
    model = build_model(config, CPU)
    here = Processes(rank=3, local_rank=0, world_size=1, device=CPU)
    step = build_step(config, model, here)
    assert step.model is step.wrapped is model
    assert step.scaler.is_enabled() == scales
    assert (step.average and step.average.decay) == decay
    assert step.evaluated is (step.average.module if step.average else model)
    assert (step.rank, step.device) == (3, CPU)
    assert ("model_ema" in step.state_dicts()) == (decay is not None)


def test_a_checkpoint_of_ours_describes_its_model_and_names_its_classes(tiny) -> None:
    config = resolve(tiny(), 3)
    meta = checkpoint_meta(config, build_model(config, CPU), ("a", "b", "c"), ["ant", "bee", "cat"])
    assert (meta["model"], meta["num_classes"], meta["in_chans"]) == ("sequencer2d_n", 3, 3)
    assert (meta["class_names"], meta["class_descriptions"]) == (["a", "b", "c"], ["ant", "bee", "cat"])
    assert meta["input"]["size"] == [8, 8]
    assert not {"task", "decoder"} & set(meta)
    more = resolve(tiny(model__num_classes=4), 3)
    meta = checkpoint_meta(more, build_model(more, CPU), ("a", "b", "c"), ["ant", "bee", "cat"])
    assert meta["class_names"] is None  # a class has no name
    assert "class_descriptions" not in meta
    assert "class_descriptions" not in checkpoint_meta(config, build_model(config, CPU), ("a", "b", "c"))


def test_a_checkpoint_of_another_model_holds_the_options_it_was_made_with(tiny) -> None:
    config = resolve(tiny(), 2)
    model_spec = dataclasses.replace(config.model, decoder="upernet")
    config = dataclasses.replace(config, task="segmentation", model=model_spec)
    meta = checkpoint_meta(config, nn.Linear(2, 2), ("a", "b"))
    assert not isinstance(nn.Linear(2, 2), Sequencer2D)
    assert (meta["task"], meta["decoder"], meta["num_classes"], meta["in_chans"]) == ("segmentation", "upernet", 2, 3)
    assert meta["class_names"] == ["a", "b"]
    assert meta["overrides"]["depths"] == [1, 1]  # lists, as JSON gives them back
    assert meta["overrides"]["pad"] == "crop"
    peer = dataclasses.replace(config, model=dataclasses.replace(model_spec, name="timm:resnet10t", overrides={}))
    assert checkpoint_meta(peer, nn.Linear(2, 2), ("a", "b"))["overrides"] == {"img_size": [8, 8]}


def timed(config: TrainConfig, durations: list[float], monkeypatch: pytest.MonkeyPatch) -> tuple[float, list[Any]]:
    """The rate of steps that take so long, and what they are given."""
    now, given = [0.0], list[Any]()

    def step(images: torch.Tensor, targets: torch.Tensor, number: int, lr: float) -> tuple[torch.Tensor, None]:
        given.append((tuple(images.shape), images.dtype, targets.tolist(), number, lr))
        now[0] += durations[min(number, len(durations) - 1)]
        return torch.zeros(()), None

    monkeypatch.setattr(trial.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(assemble, "build_model", lambda config, device, first_weights: None)
    monkeypatch.setattr(assemble, "build_step", lambda config, model, here: step)
    return trial.images_per_s(config), given


def test_a_trials_rate_is_the_median_without_the_first_step(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    config = resolve(tiny(data__batch_size=12), 10)
    rate, given = timed(config, [9.0, 0.25], monkeypatch)
    assert rate == 12 / 0.25
    assert len(given) == 11  # ten are timed
    assert given[1] == ((12, 3, 8, 8), torch.uint8, [*range(10), 0, 1], 1, 0.0)
    rate, given = timed(config, [0.5, 2.0, 2.0, 1.0, 1.0], monkeypatch)
    assert (rate, len(given)) == (12 / 2.0, 4)  # five seconds are over after three
    rate, given = timed(config, [0.5, 64.0], monkeypatch)
    assert (rate, len(given)) == (12 / 64, 2)
