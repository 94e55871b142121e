import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from sequencer2d.cli.train import resolve
from sequencer2d.errors import CheckpointError, ConfigError, DeviceError, Interrupted, NumericalError, RunError
from sequencer2d.training import step as step_module
from sequencer2d.training.checkpoint import list_checkpoints, load_last
from sequencer2d.training.fields import with_overrides
from sequencer2d.training.history import read_config
from sequencer2d.training.loop import train
from tests.training.conftest import equal, logged


def test_a_run_leaves_what_the_design_promises(tiny):
    config = tiny(run__tensorboard=True)
    summary = train(config)
    folder = config.run.output
    entries = logged(folder)
    assert [entry["step"] for entry in entries if entry["kind"] == "step"] == list(range(1, 21))
    assert [entry["epoch"] for entry in entries if entry["kind"] == "epoch"] == [1, 2]
    assert all(math.isfinite(entry["loss"]) and entry["grad_norm"] > 0 for entry in entries if entry["kind"] == "step")
    assert summary == json.loads(Path(folder, "summary.json").read_text())
    assert summary["best"]["top1"] == max(entry["top1"] for entry in entries if entry["kind"] == "epoch")
    assert (summary["steps"], summary["config"]["model"]["num_classes"]) == (20, 10)
    with safe_open(f"{folder}/best.safetensors", "pt") as file:
        meta = json.loads(file.metadata()["sequencer2d"])
    assert meta["class_names"] == [str(digit) for digit in range(10)]
    for name in ("config.json", "curves.png", "checkpoints/last.pt", "tensorboard"):
        assert (Path(folder) / name).exists(), name


def test_training_learns(tiny):
    config = tiny(
        run__epochs=12,
        data__mixup=0,
        data__cutmix=0,
        data__erasing=0,
        optimizer__lr=8e-2,
        run__eval_interval=12,
        schedule__update="epoch",
        regularization__ema_decay=None,
    )
    final = train(config)["final"]
    assert final["top1"] > 30, "10 is chance"
    assert final["train_loss"] < 1.8


@pytest.mark.parametrize("stop", [5, 10, 13])
def test_resumed_in_mid_epoch_the_losses_are_those_of_an_uninterrupted_run(tiny, stop):
    fields = {"run__log_interval": 2, "data__erasing": 0.5, "data__auto_augment": "rand-m5-mstd0.5"}
    whole = tiny("whole", **fields)
    train(whole)
    with pytest.raises(Interrupted, match="--resume"):
        train(tiny("parts", run__max_steps=stop, **fields))
    train(tiny("parts", run__resume=True, **fields))
    parts = tiny("parts").run.output
    assert logged(parts) == logged(whole.run.output)
    last = [torch.load(f"{folder}/checkpoints/last.pt", weights_only=True) for folder in (whole.run.output, parts)]
    for part in ("model", "model_ema"):
        for name, value in last[0][part].items():
            assert torch.equal(value, last[1][part][name]), name


def test_accumulation_gives_the_gradient_of_the_whole_batch(tiny):
    fields = {"model__drop_path_rate": 0.0, "run__max_steps": 3, "run__epochs": 1}
    losses = []
    for parts in (1, 3):
        config = tiny(f"parts-{parts}", optimizer__accumulation=parts, **fields)
        with pytest.raises(Interrupted):
            train(config)
        losses.append([entry["loss"] for entry in logged(config.run.output)])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_checkpoints_are_pruned_and_last_is_the_newest(tiny, tmp_path):
    train(tiny(run__epochs=1, run__checkpoint_interval_steps=2, run__keep=2))
    kept = list_checkpoints(tmp_path / "run")
    assert [path.name for path in kept] == ["step-00000008.pt", "step-00000010.pt"]
    entries = torch.load(tmp_path / "run/checkpoints/last.pt", weights_only=True)
    assert entries["progress"]["step"] == 10
    assert not list((tmp_path / "run/checkpoints").glob(".*"))


def test_a_loss_that_is_not_finite_stops_with_its_step_and_keeps_the_last_good_checkpoint(tiny, tmp_path, monkeypatch):
    real, calls = torch.nn.functional.cross_entropy, []

    def explodes(*args, **kwargs):
        calls.append(1)
        return real(*args, **kwargs) * (math.nan if len(calls) == 6 else 1)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", explodes)
    config = tiny(run__checkpoint_interval_steps=2, run__log_interval=100, regularization__ema_decay=None)
    with pytest.raises(NumericalError, match=r"step 6 .*step-00000004\.pt"):
        train(config)
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["step-00000002.pt", "step-00000004.pt"]
    kept = torch.load(tmp_path / "run/checkpoints/last.pt", weights_only=True)
    assert all(value.isfinite().all() for value in kept["model"].values())


def test_weights_that_are_not_finite_are_not_saved(tiny, tmp_path, monkeypatch):
    def spoil(parameters, largest_norm):
        for parameter in parameters:
            parameter.grad.fill_(math.inf)

    monkeypatch.setattr(step_module, "clip_gradients", spoil)
    with pytest.raises(NumericalError, match="weights after step 1"):
        train(tiny(run__checkpoint_interval_steps=1))
    assert not list_checkpoints(tmp_path / "run")


def test_time_limit_saves_and_stops(tiny, tmp_path):
    with pytest.raises(Interrupted, match="time_limit_s"):
        train(tiny(run__time_limit_s=1e-6))
    assert torch.load(tmp_path / "run/checkpoints/last.pt", weights_only=True)["progress"]["step"] == 1


def test_a_folder_with_another_run_is_refused(tiny):
    with pytest.raises(Interrupted):
        train(tiny(run__max_steps=1))
    with pytest.raises(ConfigError, match="already holds a run"):
        train(tiny(run__max_steps=1))


def test_resuming_with_another_learning_rate_is_refused(tiny):
    with pytest.raises(Interrupted):
        train(tiny(run__max_steps=1))
    with pytest.raises(ConfigError, match=r"optimizer\.lr"):
        train(tiny(run__resume=True, optimizer__lr=1.0))


@pytest.mark.parametrize("mixes", [True, False])
def test_a_run_of_an_earlier_version_goes_on_and_says_what_changed(tiny, tmp_path, caplog, mixes):
    fields = {} if mixes else {"data__mixup": 0.0, "data__cutmix": 0.0}
    with pytest.raises(Interrupted):
        train(tiny(run__max_steps=2, **fields))
    path = tmp_path / "run/config.json"
    stored = json.loads(path.read_text())
    del stored["data"]["mixup_group"]
    path.write_text(json.dumps(stored))
    for started_before in (True, False):
        caplog.clear()
        steps = 3 if started_before else 4
        with pytest.raises(Interrupted, match=f"after step {steps}"):
            train(tiny(run__max_steps=steps, run__resume=True, data__mixup_group=64, **fields))
        assert ("was started by an earlier version" in caplog.text) == (mixes and started_before)


def test_a_run_of_an_earlier_version_keeps_its_position_embedding_out_of_weight_decay(tiny, tmp_path):
    """Its optimizer's state is for these two groups of parameters: with others it could not go on."""
    start = tiny(run__max_steps=2, optimizer__no_decay="pos_embed.weight")
    start = with_overrides(start, {"model.overrides.position_embedding": True})
    with pytest.raises(Interrupted):
        train(start)
    path = tmp_path / "run/config.json"
    stored = json.loads(path.read_text())
    del stored["optimizer"]["no_decay"]
    path.write_text(json.dumps(stored))
    config = resolve(None, ["run.max_steps=3"], str(tmp_path / "run"))
    assert config.optimizer.no_decay == ("pos_embed.weight",)
    with pytest.raises(Interrupted, match="after step 3"):
        train(config)
    assert json.loads(path.read_text())["optimizer"]["no_decay"] == ["pos_embed.weight"]
    del stored["model"]["overrides"]["position_embedding"]
    assert read_config(stored).optimizer.no_decay == ()


@pytest.mark.parametrize("size, pad", [(8, None), (9, "zeros")])
def test_a_run_of_an_earlier_version_goes_on_padding_images_that_do_not_fit(tiny, tmp_path, size, pad):
    with pytest.raises(Interrupted):
        train(tiny(run__max_steps=2, data__image_size=size))
    path = tmp_path / "run/config.json"
    stored = json.loads(path.read_text())
    del stored["optimizer"]["no_decay"]
    path.write_text(json.dumps(stored))
    config = resolve(None, ["run.max_steps=3"], str(tmp_path / "run"))
    assert config.model.overrides.get("pad") == pad
    with pytest.raises(Interrupted, match="after step 3"):
        train(config)
    assert resolve(None, [], str(tmp_path / "run")).model.overrides.get("pad") == pad


def test_a_damaged_checkpoint_is_a_clear_error(tiny, tmp_path):
    with pytest.raises(Interrupted):
        train(tiny(run__max_steps=2))
    last = tmp_path / "run/checkpoints/last.pt"
    content = last.read_bytes()
    last.unlink()
    last.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        train(tiny(run__resume=True))


def test_resuming_needs_a_run_and_auto_starts_one(tiny, tmp_path):
    with pytest.raises(RunError, match=r"no run in .*nowhere.*run\.resume=auto"):
        train(tiny("nowhere", run__resume=True, run__epochs=1))
    assert not (tmp_path / "nowhere").exists()
    assert train(tiny("new", run__resume="auto", run__epochs=1))["steps"] == 10
    shutil.rmtree(tmp_path / "new/checkpoints")  # as if it was killed before its first checkpoint
    assert train(tiny("new", run__resume=True, run__epochs=1))["steps"] == 10
    assert len(logged(tmp_path / "new")) == 11


def test_a_place_that_cannot_be_written_is_found_before_the_first_step(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        train(tiny(run__output=str(tmp_path / "file" / "run")))


def test_a_full_disk_is_found_before_the_first_step(tiny, tmp_path, monkeypatch):
    from sequencer2d.training import checkpoint

    usage = checkpoint.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ConfigError, match="MiB free"):
        train(tiny())
    assert not (tmp_path / "run/log.jsonl").exists()


def test_more_classes_in_the_data_than_asked_for_is_refused(tiny):
    with pytest.raises(ConfigError, match="10 classes"):
        train(tiny(model__num_classes=3))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_where_there_is_none(tiny):
    with pytest.raises(DeviceError, match=r"run\.device=cpu"):
        train(tiny(run__device="cuda"))


def test_fp16_on_the_cpu_is_refused(tiny):
    with pytest.raises(ConfigError, match="fp16"):
        train(tiny(precision="fp16"))


def test_bf16_trains(tiny):
    assert math.isfinite(train(tiny(precision="bf16", run__epochs=1))["final"]["train_loss"])


def test_signal_handlers_and_threads_are_put_back(tiny):
    import signal

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT), torch.get_num_threads()
    with pytest.raises(Interrupted):
        train(tiny(run__max_steps=1))
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT), torch.get_num_threads()) == before


def test_resuming_at_the_limit_of_steps_changes_nothing(tiny, tmp_path):
    for resume, says in (
        (False, r"run\.max_steps after step 2"),
        (True, "go on without run.max_steps, or with a higher"),
    ):
        with pytest.raises(Interrupted, match=says):
            train(tiny(run__max_steps=2, run__resume=resume))
    assert [entry["step"] for entry in logged(tmp_path / "run")] == [1, 2]


def test_a_disk_that_fills_up_leaves_the_checkpoints_before(tiny, tmp_path, monkeypatch):
    from sequencer2d.training import checkpoint

    real = checkpoint.torch.save

    def fills_up(entries, file):
        if entries["progress"]["step"] == 4:
            raise OSError(28, "No space left on device")
        real(entries, file)

    monkeypatch.setattr(checkpoint.torch, "save", fills_up)
    with pytest.raises(CheckpointError, match="No space left"):
        train(tiny(run__checkpoint_interval_steps=2))
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["step-00000002.pt"]
    assert torch.load(tmp_path / "run/checkpoints/last.pt", weights_only=True)["progress"]["step"] == 2


def test_a_flipped_bit_in_last_pt_is_refused_or_changes_nothing(tiny, tmp_path):
    with pytest.raises(Interrupted):
        train(tiny(run__max_steps=2))
    last = tmp_path / "run/checkpoints/last.pt"
    content = last.read_bytes()
    expected = vars(load_last(tmp_path / "run"))
    random, refused = np.random.default_rng(0), 0
    for position in random.integers(0, 8 * len(content), 100):
        spoiled = bytearray(content)
        spoiled[position // 8] ^= 1 << (position % 8)
        last.unlink()
        last.write_bytes(spoiled)
        try:
            assert equal(vars(load_last(tmp_path / "run")), expected)
        except CheckpointError:
            refused += 1
    assert refused > 50, "most of the file is weights"
