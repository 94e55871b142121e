"""A run goes on with its own data, configuration and checkpoint, wherever they lie now, and with no other."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sequencer2d.errors import CheckpointError, ConfigError, DataError, Interrupted
from sequencer2d.training.loop import train
from tests.training.conftest import configuration, equal, logged

FOLDER = {
    "data__source": "folder",
    "data__batch_size": 4,
    "data__image_size": 8,
    "run__epochs": 2,
    "model__num_classes": None,
}
"""3 steps an epoch."""


def pictures(root: Path, classes=("cat", "dog", "owl"), split_sizes=(("train", 4), ("val", 2)), seed=0) -> Path:
    random = np.random.default_rng(seed)
    for split, count in split_sizes:
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 255, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


@pytest.fixture
def stopped(tiny, tmp_path):
    """A run on pictures of three classes, stopped after two steps; call it to go on."""
    root = pictures(tmp_path / "pictures")
    with pytest.raises(Interrupted):
        train(tiny(**FOLDER, data__root=str(root), run__max_steps=2))

    def go_on(**fields):
        return train(tiny(**{**FOLDER, "data__root": str(root), "run__resume": True, **fields}))

    return go_on


def test_the_same_data_go_on(stopped):
    assert stopped()["steps"] == 6


def test_a_moved_folder_goes_on_by_root_or_by_source(tiny, stopped, tmp_path):
    (tmp_path / "pictures").rename(tmp_path / "moved")
    with pytest.raises(Interrupted):
        stopped(data__root=str(tmp_path / "moved"), run__max_steps=4)
    assert stopped(data__root="", data__source=str(tmp_path / "moved"))["steps"] == 6
    train(tiny("whole", **FOLDER, data__root=str(tmp_path / "moved")))
    assert logged(tmp_path / "run") == logged(tmp_path / "whole")


def rename_class(root: Path) -> None:
    for split in ("train", "val"):
        (root / split / "dog").rename(root / split / "wolf")


def move_image(root: Path) -> None:
    (root / "train/cat/0.png").rename(root / "train/dog/zero.png")


def rename_image(root: Path) -> None:
    (root / "train/owl/0.png").rename(root / "train/owl/zero.png")


def replace_image(root: Path) -> None:
    Image.new("RGB", (9, 9)).save(root / "train/cat/1.png")


def remove_from_validation(root: Path) -> None:
    (root / "val/owl/0.png").unlink()


@pytest.mark.parametrize(
    "change, says",
    [
        (rename_class, "3 classes then, 3 now; only then: dog; only now: wolf"),
        (move_image, "cat 4 → 3, dog 4 → 5|as many images, but others in 2 of 3 classes: cat, dog"),
        (rename_image, "as many images, but others in 1 of 3 classes: owl"),
        (replace_image, "images of the same names with other contents"),
        (remove_from_validation, r"val data: 6 images then, 5 now \(owl 2 → 1\)"),
    ],
)
def test_other_data_are_refused_and_the_difference_is_named(stopped, tmp_path, change, says):
    change(tmp_path / "pictures")
    before = (tmp_path / "run/checkpoints/last.pt").read_bytes()
    with pytest.raises(DataError, match=says):
        stopped()
    assert (tmp_path / "run/checkpoints/last.pt").read_bytes() == before


def test_another_kind_of_source_is_another_configuration(stopped):
    with pytest.raises(ConfigError, match=r"data\.source was folder, now digits"):
        stopped(data__source="digits")


def test_a_checkpoint_of_an_earlier_version_is_compared_by_its_names(stopped, tmp_path, caplog):
    last = tmp_path / "run/checkpoints/last.pt"
    entries = torch.load(last, weights_only=True)
    del entries["data"]
    torch.save(entries, last)
    with pytest.raises(Interrupted):
        stopped(run__max_steps=3)
    assert "does not say which images" in caplog.text
    entries["meta"]["class_names"] = ["cat", "wolf", "owl"]
    torch.save(entries, last)
    with pytest.raises(DataError, match=r"cat, wolf, owl; now: cat, dog, owl"):
        stopped()


def test_first_weights_that_are_gone_do_not_keep_a_run_from_going_on(tiny, tmp_path):
    with pytest.raises(Interrupted):
        train(tiny("first", run__max_steps=1))
    fields = {"model__checkpoint": str(tmp_path / "first/checkpoints/last.pt"), "run__epochs": 1}
    with pytest.raises(Interrupted):
        train(tiny(run__max_steps=1, **fields))
    (tmp_path / "first").rename(tmp_path / "elsewhere")
    assert train(tiny(run__resume=True, **fields))["steps"] == 10


STRANGE = {
    "a_list": lambda content: [content],
    "nothing": lambda content: {},
    "no_progress": lambda content: {**content, "progress": None},
    "a_missing_number": lambda content: {**content, "progress": {"step": 2}},
    "text_for_a_number": lambda content: with_progress(content, step="two"),
    "a_negative_step": lambda content: with_progress(content, step=-1),
    "a_step_beyond_the_epoch": lambda content: with_progress(content, step=25),
    "a_step_beyond_the_run": lambda content: with_progress(content, step=1000, evaluated_epochs=100),
    "no_steps_in_an_epoch": lambda content: with_progress(content, steps_per_epoch=0),
    "infinite_time": lambda content: with_progress(content, time_s=math.inf),
    "losses_of_text": lambda content: with_progress(content, window={"losses": ["a"]}),
    "a_window_that_is_a_number": lambda content: with_progress(content, window=3),
    "a_best_without_accuracy": lambda content: with_progress(content, best={"step": 1, "epoch": 1, "train_loss": 1.0}),
    "a_final_of_text": lambda content: with_progress(content, final={"step": "a"}),
    "weights_of_text": lambda content: {**content, "model": dict.fromkeys(content["model"], "a")},
    "weights_missing": lambda content: {**content, "model": {}},
    "weights_of_another_shape": lambda content: {
        **content,
        "model": first_changed(content["model"]),
    },
    "weights_that_are_nan": lambda content: {**content, "model": first_filled(content["model"], math.nan)},
    "no_average": lambda content: {key: value for key, value in content.items() if key != "model_ema"},
    "no_groups": lambda content: {**content, "optimizer": {"state": {}, "param_groups": []}},
    "groups_of_text": lambda content: with_optimizer(content, param_groups="ab"),
    "a_state_of_text": lambda content: with_optimizer(content, state={0: "a"}),
    "a_state_of_no_parameter": lambda content: with_optimizer(content, state={10_000: {}}),
    "moments_of_another_shape": lambda content: with_moments(content, torch.zeros(2)),
    "moments_that_are_nan": lambda content: with_moments(content, None),
    "a_scaler_of_text": lambda content: {**content, "scaler": {"scale": "a"}},
    "data_of_text": lambda content: {**content, "data": "a"},
    "data_of_nothing": lambda content: {**content, "data": {"train": {}, "val": 3}},
    "classes_of_numbers": lambda content: {**content, "data": {"train": {"classes": {"0": 3}}}},
}


def with_progress(content, **changes):
    return {**content, "progress": {**content["progress"], **changes}}


def with_optimizer(content, **changes):
    return {**content, "optimizer": {**content["optimizer"], **changes}}


def with_moments(content, value):
    state = dict(content["optimizer"]["state"])
    moment = torch.full_like(state[0]["exp_avg"], math.nan) if value is None else value
    return with_optimizer(content, state={**state, 0: {**state[0], "exp_avg": moment}})


def first_changed(state):
    return {**state, next(iter(state)): torch.zeros(3, 3)}


def first_filled(state, value):
    name, tensor = next(iter(state.items()))
    return {**state, name: torch.full_like(tensor, value)}


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strange")
    config = configuration(folder / "run", {"run.max_steps": 2})
    with pytest.raises(Interrupted):
        train(config)
    return folder / "run"


@pytest.mark.parametrize("name", STRANGE)
def test_a_last_pt_of_strange_content_is_one_line(digits_run, name):
    last = digits_run / "checkpoints/last.pt"
    content = last.read_bytes()
    strange = STRANGE[name](torch.load(last, weights_only=True))
    try:
        last.unlink()
        torch.save(strange, last)
        with pytest.raises((CheckpointError, DataError)) as error:
            train(configuration(digits_run, {"run.resume": True}))
        assert "last.pt" in str(error.value) or "steps per epoch" in str(error.value)
        assert len(str(error.value)) < 2500
    finally:
        last.unlink()
        last.write_bytes(content)


def test_hyperparameters_are_those_of_the_configuration_not_of_the_file(tiny, tmp_path):
    whole, parts = tiny("whole", run__epochs=1), tiny(run__epochs=1, run__resume=True)
    train(whole)
    with pytest.raises(Interrupted):
        train(tiny(run__epochs=1, run__max_steps=5))
    last = tmp_path / "run/checkpoints/last.pt"
    content = torch.load(last, weights_only=True)
    for group in content["optimizer"]["param_groups"]:
        group["weight_decay"] = 10.0
    last.unlink()
    torch.save(content, last)
    train(parts)
    final = [torch.load(f"{config.run.output}/checkpoints/last.pt", weights_only=True) for config in (whole, parts)]
    assert equal(final[0]["model"], final[1]["model"])


DAMAGED_LINES = {
    "no_json": "what?",
    "a_list": "[1]",
    "no_kind": '{"step": 1}',
    "no_step": '{"kind": "step", "epoch": 1, "loss": 1, "lr": 1}',
    "text": '{"kind": "step", "step": "one", "epoch": 1, "loss": 1, "lr": 1}',
    "nan": '{"kind": "step", "step": 1, "epoch": 1, "loss": NaN, "lr": 1}',
    "deep": "[" * 50_000,
    "huge": '{"kind": "epoch", "step": 1, "epoch": 1, "train_loss": 1e999}',
}


@pytest.mark.parametrize("name", DAMAGED_LINES)
def test_a_damaged_log_keeps_its_other_lines_and_a_copy(digits_run, name, caplog):
    log = digits_run / "log.jsonl"
    whole = log.read_text()
    lines = whole.splitlines()
    damaged = "\n".join([lines[0], DAMAGED_LINES[name], *lines[1:]]) + "\n"
    log.write_text(damaged)
    with pytest.raises(Interrupted, match="was reached before"):
        train(configuration(digits_run, {"run.resume": True, "run.max_steps": 2}))
    assert [json.loads(line) for line in log.read_text().splitlines()] == [json.loads(line) for line in lines]
    assert "line 2 first" in caplog.text
    assert (digits_run / "log.damaged.jsonl").read_text() == damaged
