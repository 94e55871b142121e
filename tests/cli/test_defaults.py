"""What eval and predict do unless they are told otherwise."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sequencer2d import tasks
from sequencer2d.cli import common
from sequencer2d.cli.evaluate import data_config
from sequencer2d.cli.main import parse
from sequencer2d.errors import CheckpointError, ConfigError, DeviceError
from sequencer2d.evaluation.subject import load_checkpoint
from sequencer2d.training.runfiles import write_config
from tests.cli.conftest import save_tiny
from tests.training.conftest import configuration


def test_predict_leaves_how_much_it_shows_to_the_task_and_takes_32_images_at_a_time() -> None:
    arguments = parse(["predict", "m", "photo.jpg"])
    assert (arguments.top, arguments.threshold, arguments.batch_size, arguments.image_size) == (None, None, 32, None)
    assert [(task.name, task.top_k, task.threshold) for task in tasks.TASKS.values()] == [
        ("classification", 5, 0.0), ("segmentation", 5, 0.0), ("detection", 100, 0.5),
    ]  # fmt: skip
    assert (arguments.device, arguments.precision, arguments.trust, arguments.json) == ("auto", "fp32", False, False)
    assert (arguments.orientation, arguments.background, arguments.pictures) == ("upright", "white", None)
    assert common.decoding_fields(arguments) == {"orientation": "upright", "background": "white"}


def test_eval_leaves_precision_and_data_to_the_run() -> None:
    arguments = parse(["eval", "m"])
    assert (arguments.precision, arguments.data, arguments.split, arguments.batch_size) == (None,) * 4
    assert (arguments.per_class, arguments.download, arguments.image_size) == (False, False, None)


def test_eval_takes_the_models_input_and_64_images_at_a_time(tiny: Path) -> None:
    input_ = {**load_checkpoint(tiny).input_fields, "crop_pct": 0.5}
    config = data_config(parse(["eval", str(tiny), "--data", "digits"]), input_)
    assert (config.source, config.root, config.batch_size, config.workers) == ("digits", "", 64, 2)
    assert (config.size, config.crop_pct, config.val_split) == ((8, 8), 0.5, "val")
    told = ("--split", "test", "--batch-size", "3", "--image-size", "9", "data.workers=1", "data.crop_pct=0.75")
    config = data_config(parse(["eval", str(tiny), "--data", "digits", *told]), input_)
    assert (config.val_split, config.batch_size, config.size, config.workers) == ("test", 3, (9, 9), 1)
    assert config.crop_pct == 0.75
    with pytest.raises(ConfigError, match="give --data SOURCE"):
        data_config(parse(["eval", str(tiny)]), input_)
    with pytest.raises(ConfigError, match=r"optimizer\.lr is no field of the data configuration"):
        data_config(parse(["eval", str(tiny), "--data", "digits", "optimizer.lr=1"]), input_)


def test_eval_of_a_run_keeps_the_runs_data(tmp_path: Path) -> None:
    save_tiny(tmp_path / "best.safetensors")
    write_config(tmp_path, configuration(tmp_path, {"data.batch_size": 18, "data.workers": 0}))
    config = data_config(parse(["eval", str(tmp_path)]), {"image_size": (8, 8)})
    assert (config.source, config.batch_size, config.workers) == ("digits", 18, 0)
    other = data_config(parse(["eval", str(tmp_path), "--data", "/images"]), {"image_size": (8, 8)})
    assert (other.source, other.root, other.batch_size) == ("/images", "", 18)


@pytest.mark.parametrize(("text", "expected"), [("1", 1), ("32", 32), ("0", None), ("-1", None), ("1.5", None)])
def test_counts_start_at_1(text: str, expected: int | None, mistake: Callable[..., str]) -> None:
    if expected is not None:
        assert common.positive(text) == expected
        return
    for option in ("--top", "--batch-size", "--image-size"):
        assert "expected an integer of at least 1" in mistake("predict", "m", "x.png", f"{option}={text}")


def test_devices_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert common.resolve_device("auto") == common.resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(DeviceError, match="PyTorch sees none here"):
        common.resolve_device("cuda")
    for name in ("mps", "gpu", ""):
        with pytest.raises(DeviceError, match="expected auto, cpu, cuda or cuda:INDEX"):
            common.resolve_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert common.resolve_device("cuda") == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert common.resolve_device("auto") == torch.device("cuda")
    assert common.resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(DeviceError, match="there are 2 GPUs, numbered from 0"):
        common.resolve_device("cuda:2")


def test_fields_are_split_at_the_first_sign() -> None:
    assert common.field_values(["a.b=1", "c=x=y", "d="]) == {"a.b": "1", "c": "x=y", "d": ""}
    with pytest.raises(ConfigError, match="expected field=value"):
        common.field_values(["a.b"])


def test_checkpoints_are_looked_for_before_anything_is_loaded_but_not_on_the_hub(tmp_path: Path) -> None:
    arguments = parse(["predict", "hf-hub:owner/name", "photo.jpg"])
    common._check_checkpoint(arguments)
    arguments.checkpoint = str(tmp_path / "nowhere.safetensors")
    with pytest.raises(CheckpointError, match="nowhere"):
        common._check_checkpoint(arguments)
