"""A run that an earlier version left in its middle is read, goes on, and ends as it ended there.

`old_run/` was written by 0.1.0 before its modules were rearranged: two epochs of the digits, stopped in the second one.
`end.json` is what that version logged after the last epoch when it went on itself.
"""

import json
import shutil
from pathlib import Path

import pytest

from sequencer2d.cli.main import main
from sequencer2d.training.logfile import read_log
from sequencer2d.training.runfiles import read_config

FOLDER = Path(__file__).parent / "old_run"
END = json.loads((FOLDER / "end.json").read_text())


@pytest.fixture
def run(tmp_path):
    return shutil.copytree(FOLDER, tmp_path / "run", ignore=shutil.ignore_patterns("end.json"))


def test_it_goes_on_and_ends_as_it_did(run):
    assert main(["train", "--resume", str(run), "run.tensorboard=false"]) == 0
    last = [entry for entry in read_log(run) if entry["kind"] == "epoch"][-1]
    assert {name: last[name] for name in END} == {
        name: pytest.approx(value, rel=1e-3) if isinstance(value, float) else value for name, value in END.items()
    }
    summary = json.loads((run / "summary.json").read_text())
    assert summary["final"]["top1"] == pytest.approx(END["top1"], rel=1e-3)


def test_its_weights_are_evaluated_as_in_the_run(run, capsys):
    evaluated = [entry for entry in read_log(run) if entry["kind"] == "epoch"][-1]
    assert main(["eval", str(run), "--device", "cpu", "--json", "data.workers=0"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["top1"] == pytest.approx(evaluated["top1"])
    assert measured["cross_entropy"] == pytest.approx(evaluated["val_loss"], rel=1e-5)


def test_its_configuration_means_what_it_meant(run):
    config = read_config(run)
    assert (config.model.name, config.task, config.run.epochs) == ("sequencer2d_n", "classification", 2)
    assert (config.data.source, config.data.mixup, config.optimizer.lr) == ("digits", 0.4, 0.02)
    assert config.run.max_steps is None, "a limit holds for the call that it was given to"
