"""The Tiny-ImageNet benchmark trains a plan's models, keeps finished rows and goes on with the others."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.tiny_imagenet.running import main
from benchmarks.tiny_imagenet.runs import PLANS, configuration, run_name
from sequencer2d.benchmark.cost import count_macs
from sequencer2d.cli.main import EXIT_INTERRUPTED
from sequencer2d.models import Sequencer2D, create_model
from sequencer2d.training.loop import train
from tests.data.images import make_folder

SMALL = (
    "run.epochs=1",
    "schedule.warmup_epochs=0",
    "data.batch_size=4",
    "data.image_size=16",
    "data.workers=0",
    "run.compile=false",
    "run.device=cpu",
    "precision=fp32",
    "model.overrides.depths=1,1,1,1",
)


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    make_folder(tmp_path / "data", {"train": {"a": 4, "b": 4}, "val": {"a": 2, "b": 2}})
    return [
        "ablations",
        *SMALL,
        "--data",
        str(tmp_path / "data"),
        "--runs",
        str(tmp_path / "runs"),
        "--results",
        str(tmp_path),
    ]


def result_of(folder: Path, plan: str = "ablations") -> Path:
    return folder / f"tiny-imagenet-{plan}.json"


def test_models_become_rows_in_the_plans_order_and_are_not_trained_again(arguments, tmp_path, capsys):
    result = result_of(tmp_path)
    assert main([*arguments, "--models", "add", "vertical", "--per-gpu", "2"]) == 0
    rows = json.loads(result.read_text(encoding="utf-8"))["rows"]
    assert [(row["model"], row["seed"], row["epochs"]) for row in rows] == [("vertical", 0, 1), ("add", 0, 1)]
    assert [point[0] for point in rows[0]["curve"]] == [1]
    assert rows[0]["curve"][-1][2] == rows[0]["top1_percent"]
    before = result.read_bytes()
    capsys.readouterr()
    assert main([*arguments, "--models", "add"]) == 0
    assert (result.read_bytes(), capsys.readouterr().out) == (before, "")


def test_a_run_that_fails_is_named_and_the_time_limit_leaves_runs_out(arguments, capsys):
    assert main([*arguments, "data.batch_size=64", "--models", "add"]) == 1
    assert "add seed 0: failed: ended with code 1" in capsys.readouterr().out
    assert main([*arguments, "--models", "add", "--time-limit", "10"]) == EXIT_INTERRUPTED
    assert "add seed 0: not started, the time limit had passed" in capsys.readouterr().out


def wait_for(path: Path, pattern: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not list(path.glob(pattern)):
        assert time.monotonic() < end, f"no {pattern} in {path}"
        time.sleep(0.05)


def test_a_signal_stops_all_runs_saved_and_the_same_command_goes_on_without_a_seam(arguments, tmp_path, capsys):
    fields = ["run.epochs=3", "data.batch_size=2", "run.checkpoint_interval_steps=1"]
    arguments = [arguments[0], *SMALL, *fields, *arguments[1 + len(SMALL) :], "--models", "add"]
    command = [sys.executable, "-m", "benchmarks.tiny_imagenet", *arguments]
    run = tmp_path / "runs" / run_name("ablations", "add", 0)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as scheduler:
        wait_for(run / "checkpoints", "step-*.pt")
        scheduler.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        scheduler.send_signal(signal.SIGTERM)  # `timeout` sends its signal twice
        output, _ = scheduler.communicate(timeout=60)
    assert scheduler.returncode == EXIT_INTERRUPTED
    assert "add seed 0: stopped at step " in output
    assert not result_of(tmp_path).exists()
    before = (run / "log.jsonl").read_text(encoding="utf-8")
    assert main(arguments) == 0
    assert (run / "log.jsonl").read_text(encoding="utf-8").startswith(before)
    row = json.loads(result_of(tmp_path).read_text(encoding="utf-8"))["rows"][0]
    assert [point[0] for point in row["curve"]] == [1, 2, 3]
    states = json.loads((tmp_path / "runs" / "states.json").read_text(encoding="utf-8"))
    assert states == {"ablations add seed 0": "finished"}

    # The scheduler was killed after a run's end and before its row: the row is made without training again.
    result_of(tmp_path).unlink()
    checkpoints = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    assert main(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == checkpoints
    again = json.loads(result_of(tmp_path).read_text(encoding="utf-8"))["rows"][0]
    assert again["curve"] == row["curve"]

    # It is not made of a run of another configuration.
    result_of(tmp_path).unlink()
    capsys.readouterr()
    assert main([arguments[0], "optimizer.lr=0.5", *arguments[1:]]) == 1
    assert "add seed 0: failed: the run in" in capsys.readouterr().out
    assert not result_of(tmp_path).exists()


def test_fine_tuning_starts_from_the_finished_run_at_a_larger_size_and_states_its_gain(arguments, tmp_path, capsys):
    name, rest = "sequencer2d_n", arguments[1 + len(SMALL) :]
    larger = [*SMALL, "data.image_size=28"]
    assert main(["fine_tune", *larger, *rest, "--models", name]) == 1
    assert "holds no finished run; train that first" in capsys.readouterr().out
    for plan, fields in (("ablations", list(SMALL)), ("fine_tune", larger)):
        train(configuration(plan, name, 0, data=tmp_path / "data", runs=tmp_path / "runs", fields=fields))
    assert main(["fine_tune", *larger, *rest, "--models", name]) == 0
    row = json.loads(result_of(tmp_path, "fine_tune").read_text(encoding="utf-8"))["rows"][0]
    assert row["image_size"] == 28
    assert row["gain_points"] == row["top1_percent"] - row["start_top1_percent"]


def test_plans_of_one_call_share_runs_and_wait_for_those_they_start_from(arguments, tmp_path, capsys):
    name = "sequencer2d_n"
    assert main(["fine_tune,small,ablations", *arguments[1:], "--models", name, "--per-gpu", "2"]) == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir() if path.is_dir()) == [
        f"ablations-{name}-seed0", f"fine_tune-{name}-seed0",
    ]  # fmt: skip
    rows = {
        plan: json.loads(result_of(tmp_path, plan).read_text(encoding="utf-8"))["rows"][0]
        for plan in ("fine_tune", "small", "ablations")
    }
    assert rows["small"]["curve"] == rows["ablations"]["curve"]
    assert rows["fine_tune"]["start_top1_percent"] == rows["small"]["top1_percent"]
    assert {row["side_by_side"] for row in rows.values()} == {2}


@pytest.mark.parametrize("plan", PLANS)
def test_every_line_of_a_plan_is_a_configuration_whose_model_can_be_built(plan, tmp_path):
    """Without weights; lines that share their model with another plan are built there."""
    from sequencer2d.training.assemble import check_parts

    for model, line in PLANS[plan].models.items():
        config = configuration(plan, model, 0, data=tmp_path, runs=tmp_path, fields=["model.num_classes=200"])
        start = None if line.start is None else tmp_path / run_name(*line.start.split("/"), 0)
        assert config.model.checkpoint == (None if start is None else str(start))
        if line.start is None and plan != "ablations":
            check_parts(config)


def test_models_that_are_compared_cost_the_same(tmp_path):
    """Within 15 % of ours; in table 1, peers among each other, of which ours has twice the cost as in the paper."""
    macs = {}
    for plan in ("small", "table1", "better"):
        for model in PLANS[plan].models:
            config = configuration(plan, model, 0, data=tmp_path, runs=tmp_path, fields=[])
            with torch.device("meta"):
                built = create_model(
                    config.model.name, num_classes=200, img_size=config.data.size, **config.model.overrides
                )
            macs[plan, model] = count_macs(built, config.data.size)
    as_t = ("sequencer2d_t", "vit_small_8", "convnext_nano", "caformer_s18")
    for model in PLANS["small"].models:
        ours = macs["small", "sequencer2d_t" if model in as_t else "sequencer2d_n"]
        assert macs["small", model] == pytest.approx(ours, rel=0.15), model
    peers = [value for (plan, model), value in macs.items() if plan == "table1" and model != "sequencer2d_s"]
    assert max(peers) < 1.35 * min(peers)
    assert macs["table1", "sequencer2d_s"] < 2 * 1.1 * sorted(peers)[len(peers) // 2]
    for model in PLANS["better"].models:
        assert macs["better", model] == pytest.approx(macs["better", "sequencer2d_n"], rel=0.05), model


def test_a_model_that_the_plan_lacks_is_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        main([*arguments, "--models", "ad"])
    assert "no model 'ad' in the plan ablations" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["ablations,tables", *arguments[1:]])
    assert "no plan 'tables'; there are ablations, " in capsys.readouterr().err


def test_ablations_have_the_paper_models_relations(tmp_path):
    """Parameters of the variants relate to each other as those of S do in the paper's table 2."""
    parameters = {}
    for model in PLANS["ablations"].models:
        config = configuration("ablations", model, 0, data=tmp_path, runs=tmp_path, fields=["model.num_classes=200"])
        with torch.device("meta"):
            built = create_model(config.model.name, num_classes=200, img_size=(64, 64), **config.model.overrides)
        assert isinstance(built, Sequencer2D)
        parameters[model] = sum(parameter.numel() for parameter in built.parameters())
    assert parameters["vertical"] == parameters["horizontal"] == parameters["vsequencer_h"]
    assert parameters["rnn"] < parameters["gru"] < parameters["nofusion"] < parameters["vertical"]
    assert parameters["vertical"] < parameters["sequencer2d_n"] < parameters["unidirectional"] < parameters["h2x"]
    assert parameters["vsequencer_pe"] == parameters["vsequencer"] + 8 * 8 * 192
