"""What a run writes and reads again, of known content: its log, checkpoints, summary, and older files."""

import json
import math
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from torch import nn

import sequencer2d
from sequencer2d.errors import CheckpointError, ConfigError, RunError
from sequencer2d.tasks import CLASSIFICATION
from sequencer2d.training import checkpoint, folder, history, logfile, resume, runfiles, summary
from sequencer2d.training.checkpoint import list_checkpoints, save_checkpoint
from sequencer2d.training.config import TrainConfig
from sequencer2d.training.distributed import Processes
from sequencer2d.training.fields import to_dict
from sequencer2d.training.folder import RunFolder
from sequencer2d.training.logfile import check_entry, keep_until, read_log
from sequencer2d.training.messages import announcement
from sequencer2d.training.progress import read_progress
from sequencer2d.training.speed import Speedometer
from sequencer2d.training.state import RunState
from sequencer2d.training.window import LossWindow

CPU = torch.device("cpu")
EPOCH = {"step": 10, "epoch": 1, "train_loss": 2.0}
Build = Callable[..., TrainConfig]


def state_at(step: int) -> RunState:
    """Of 2 epochs of 10 steps."""
    return RunState(10, 2, LossWindow(lambda values: values), Speedometer(8), started=0.0, step=step)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"train_loss": None}, "log: train_loss must be a finite number, got 'None'"),
        ({"train_loss": math.nan}, "train_loss must be"),
        ({"train_loss": 1e300}, "train_loss must be"),
        ({"train_loss": True}, "train_loss must be"),
        ({"top1": "high"}, "log: top1 must be a finite number or null, got 'high'"),
        ({"step": -1}, "log: step must be a whole number, got -1"),
        ({"step": 1.5}, "log: step must be a whole number, got 1.5"),
        ({"step": 0, "train_loss": -1e299, "top1": None, "kind": "epoch"}, ""),
        ({"step": 3.0, "train_loss": 0}, ""),
    ],
)
def test_entries_of_the_log_are_finite_numbers(entry: dict[str, Any], says: str) -> None:
    if says:
        with pytest.raises(ConfigError, match=says):
            check_entry("epoch", EPOCH | entry, "log")
    else:
        check_entry("epoch", EPOCH | entry, "log")
        with pytest.raises(ConfigError, match="log: top5 must be a finite number, got 'None'"):
            check_entry("epoch", EPOCH | entry, "log", ("top5",))


def test_the_log_is_kept_until_the_step_of_the_checkpoint_and_the_epoch_that_it_knows(tmp_path: Path) -> None:
    steps = [{"kind": "step", "step": step, "epoch": step / 10, "loss": 1.0, "lr": 0.1} for step in (9, 10, 11)]
    lines = [*steps[:2], {"kind": "epoch", **EPOCH}, steps[2]]
    path = tmp_path / "log.jsonl"
    for step, epochs, kept in (
        (10, 1, [0, 1, 2]),
        (10, 0, [0, 1]),
        (10, None, [0, 1, 2]),
        (9, 1, [0]),
        (11, 1, [0, 1, 2, 3]),
    ):
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        expected = [lines[number] for number in kept]
        assert keep_until(path, step, epochs) == expected
        assert read_log(tmp_path) == expected


def test_a_line_that_is_too_long_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = json.dumps({"kind": "epoch", **EPOCH})
    (tmp_path / "log.jsonl").write_text(f"{line}\n{line}\n")
    monkeypatch.setattr(logfile, "_LONGEST_LINE", len(line) + 1)
    assert len(read_log(tmp_path)) == 2
    monkeypatch.setattr(logfile, "_LONGEST_LINE", len(line))
    assert read_log(tmp_path) == []
    assert read_log(tmp_path / "nowhere") == []


def test_the_newest_checkpoints_stay_and_last_is_the_newest(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/step-best.pt").touch()
    for step in (1, 2, 3):
        path = save_checkpoint(tmp_path, step, {"step": step}, keep=2)
    assert path.name == "step-00000003.pt"
    assert [file.name for file in list_checkpoints(tmp_path)] == ["step-00000002.pt", "step-00000003.pt"]
    last = tmp_path / "checkpoints/last.pt"
    assert last.samefile(path)
    assert torch.load(last) == {"step": 3}
    assert sorted(file.name for file in last.parent.iterdir()) == [
        "last.pt", "step-00000002.pt", "step-00000003.pt", "step-best.pt",
    ]  # fmt: skip


def test_last_is_a_copy_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    (tmp_path / "checkpoints").mkdir()
    path = save_checkpoint(tmp_path, 7, {"step": 7}, keep=1)
    last = tmp_path / "checkpoints/last.pt"
    assert not last.samefile(path)
    assert last.read_bytes() == path.read_bytes()


def test_a_run_without_checkpoints_has_no_last_and_a_strange_one_names_the_others(tmp_path: Path) -> None:
    assert checkpoint.load_last(tmp_path) is None
    assert checkpoint._other_way(tmp_path) == "start again in another run.output"
    (tmp_path / "checkpoints").mkdir()
    for step in (1, 2):
        save_checkpoint(tmp_path, step, {"meta": {}}, keep=2)
    with pytest.raises(
        CheckpointError,
        match=r"it lacks model, optimizer, progress; is it of a run\?; copy another over it "
        r"\(step-00000001\.pt, step-00000002\.pt\), or start again in another run\.output",
    ):
        checkpoint.load_last(tmp_path)


@pytest.mark.parametrize(("average", "keep"), [(False, 1), (True, 3)])
def test_the_space_of_a_run_is_that_of_its_checkpoints(
    average: bool, keep: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, two moments and perhaps an average, once more while one is written; the best weights; 64 MiB."""
    model = nn.Linear(3, 5)
    model.register_buffer("count", torch.zeros(2, dtype=torch.int64))
    weights = 4 * (15 + 5) + 8 * 2
    needed = weights * (4 if average else 3) * (keep + 1) + weights + 64 * 2**20
    free = [needed]
    monkeypatch.setattr(folder.shutil, "disk_usage", lambda path: SimpleNamespace(free=free[0]))
    RunFolder(tmp_path).require_space(model, average, keep)
    free[0] -= 1
    with pytest.raises(ConfigError, match=f"needs 64 MiB for {keep} \\+ 1 checkpoints of 0 MiB, .* 64 MiB free"):
        RunFolder(tmp_path).require_space(model, average, keep)


@pytest.mark.parametrize(
    ("content", "holder"),
    [
        ('{"process": 7, "host": "a"}', "process 7 on a"),
        ("", "an unknown process"),
        ('{"process": "x"}', "an unknown process"),
    ],
)
def test_the_holder_of_a_folder_is_named(content: str, holder: str, tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(content)
    with (tmp_path / "lock").open() as file:
        assert folder._read_holder(file.fileno()) == holder


def test_a_folder_that_was_never_opened_need_not_be_there(tmp_path: Path) -> None:
    RunFolder(tmp_path / "nowhere").require()
    with RunFolder(tmp_path / "run") as held:
        held.open(False)
        held.require()
        shutil.move(tmp_path / "run", tmp_path / "moved")
        with pytest.raises(RunError, match="was removed or replaced"):
            held.require()


@pytest.mark.parametrize(
    ("values", "changes"),
    [
        ({"data__source": "digits", "data__image_size": 8}, []),
        ({"data__source": "digits", "data__image_size": 9}, ["pad"]),
        ({"data__source": "digits", "data__image_size": (8, 9)}, ["pad"]),
        ({"data__source": "folder", "data__image_size": 8}, ["orientation", "background"]),
    ],
)
def test_runs_of_earlier_versions_mean_what_they_meant(tiny: Build, values: dict[str, Any], changes: list[str]) -> None:
    config = tiny(**values)
    assert [path.rpartition(".")[2] for change in history._since({}, config) for path in change.before] == changes
    assert history.notices({}, config) == [history.CHANGES[0].notice]
    assert history.notices({"data": {"mixup_group": 1}}, config) == []
    assert history.fields_without_past({}) == ("data.mixup_group",)
    assert history.fields_without_past({"data": {"mixup_group": None}}) == ()


def test_which_models_embed_positions_is_known_by_their_name_or_option(tiny: Build) -> None:
    def embeds(name: str, **overrides: bool) -> bool:
        return history._embeds_positions(tiny(model__name=name, model__overrides=overrides))

    assert embeds("vsequencer_pe_s")
    assert not embeds("vsequencer_s")
    assert not embeds("timm:resnet10t")
    assert embeds("vsequencer_s", position_embedding=True)
    assert not embeds("vsequencer_pe_s", position_embedding=False)
    assert not history._does_not_fit_its_stride(tiny(model__name="timm:resnet10t", model__overrides={}))


@pytest.mark.parametrize("version", [0, 3, "2", 2.0])
def test_versions_that_are_not_known_are_refused(version: object) -> None:
    with pytest.raises(ConfigError, match=r"its version is .* reads 1 to 2: update it"):
        history.read_config({"version": version})


def test_the_cool_down_of_version_1_comes_on_top() -> None:
    values = {"run": {"epochs": 5}, "schedule": {"cooldown_epochs": 2}}
    assert history._up_to_date(values) == {**values, "run": {"epochs": 7}}
    assert history._up_to_date({"version": 2, **values}) == values
    for odd in ({"run": {"epochs": 5}}, {"run": 3, "schedule": {"cooldown_epochs": 2}}, {"schedule": {}, "run": {}}):
        assert history._up_to_date(odd) == odd


def test_a_configuration_that_is_too_long_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text('{"version": 2}')
    monkeypatch.setattr(runfiles, "_MOST_BYTES", 14)
    assert runfiles.read_stored(tmp_path) == {"version": 2}
    monkeypatch.setattr(runfiles, "_MOST_BYTES", 13)
    with pytest.raises(RunError, match="is no configuration: 14 bytes"):
        runfiles.read_stored(tmp_path)


@pytest.mark.parametrize(
    ("stored", "ours"), [({"version": 2}, True), ({"schedule": {}}, True), ({"model": "resnet"}, False), ({}, False)]
)
def test_a_configuration_of_ours_has_a_version_or_one_of_our_sections(
    stored: dict[str, Any], ours: bool, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert (runfiles.find_config(tmp_path) is not None) == ours


def progress_at(step: int, **fields: Any) -> Any:
    stored = {"step": step, "steps_per_epoch": 10, "evaluated_epochs": (step - 1) // 10, **fields}
    return SimpleNamespace(path=Path("last.pt"), progress=read_progress(stored))


def test_a_checkpoint_beyond_the_run_or_of_other_epochs_is_refused() -> None:
    decides, known = CLASSIFICATION.decides, EPOCH | {"top1": 5.0}

    def check(last: Any) -> None:
        resume.check_progress(last, state_at(0), decides, Path("run"))

    check(progress_at(20))
    check(progress_at(20, best=known, final=known))
    check(progress_at(20, final=EPOCH | {"top1": None}))  # it was not finite
    check(progress_at(15, final=EPOCH))  # an epoch without evaluation
    for last in (progress_at(21), progress_at(10, steps_per_epoch=11)):
        with pytest.raises(CheckpointError, match="the data now make 10 per epoch and 20 in all"):
            check(last)
    with pytest.raises(CheckpointError, match=r"lacks the top-1 of its best epoch"):
        check(progress_at(15, best=EPOCH))
    with pytest.raises(CheckpointError, match=r"is of the run's end, but lacks its last top-1"):
        check(progress_at(20, final=EPOCH))


def test_a_scaler_holds_numbers_of_fp32() -> None:
    resume._check_scaler({"scale": torch.tensor([2.0]), "_growth_tracker": 0, "growth_factor": 2.0})
    largest = torch.finfo(torch.float32).max
    for wrong in (-1, largest, math.nan, "2", torch.zeros(2), None):
        with pytest.raises(ValueError, match="the gradient scaler's scale is no number"):
            resume._check_scaler({"scale": wrong})


def test_at_most_eight_names_are_listed() -> None:
    names = list("abcdefghi")
    assert resume._few(names[:8]) == "a, b, c, d, e, f, g, h"
    assert resume._few(names) == "a, b, c, d, e, f, g, h …"
    assert resume._few(["x" * 60]) == "x" * 50


def test_a_summary_counts_and_rounds(tiny: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "memory_mib", lambda device: 12.3456)
    monkeypatch.setattr(RunState, "time_s", property(lambda self: 1.23456))
    config, run = tiny(), state_at(20)
    run.best, run.final = EPOCH | {"top1": 5.0}, EPOCH
    here = Processes(rank=0, local_rank=0, world_size=3, device=CPU)
    found = summary.summarize(config, run, nn.Linear(3, 5), here)
    assert found["images_per_s"] is None
    run.speed.load_state_dict({"steps": 3, "seconds": 7.0})
    found = summary.summarize(config, run, nn.Linear(3, 5), here)
    assert found == {
        "model": "sequencer2d_n", "parameters": 20, "final": run.final, "best": run.best, "epochs": 2, "steps": 20,
        "duration_s": 1.235, "images_per_s": 3.4, "memory_mib": 12.3, "device": found["device"], "processes": 3,
        "versions": {
            "sequencer2d": sequencer2d.__version__, "python": platform.python_version(),
            "torch": str(torch.__version__), "cuda": torch.version.cuda, "timm": timm.__version__,
        },
        "config": to_dict(config),
    }  # fmt: skip
    assert found["device"].startswith("cpu (")


def test_the_first_lines_say_what_is_about_to_run(tiny: Build) -> None:
    here = Processes(rank=0, local_rank=0, world_size=2, device=CPU)
    model = nn.Linear(999, 20)  # 20,000 parameters
    first, second = announcement(tiny("run"), model, here, state_at(0))
    assert first.startswith("sequencer2d_n, 0.02 M parameters, on 2 × cpu (")
    assert second.startswith("20 steps (2 epochs × 10) of 144 images into ")
    assert [*announcement(tiny(run__resume=True), model, here, state_at(5))][2] == "resumed at step 5"
    assert [*announcement(tiny(run__resume=True), model, here, state_at(0))][2].startswith("no checkpoint there yet")
    assert "takes minutes" in [*announcement(tiny(run__compile=True), model, here, state_at(0))][2]
