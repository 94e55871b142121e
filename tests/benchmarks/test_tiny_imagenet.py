"""The Tiny-ImageNet benchmark trains a plan's models, keeps finished rows and goes on with the others."""

import json
from pathlib import Path

import pytest

from benchmarks import tiny_imagenet
from sequencer2d.models import Sequencer2D, create_model
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
        "--result",
        str(tmp_path / "result.json"),
    ]


def test_models_become_rows_in_the_plans_order_and_are_not_trained_again(arguments, tmp_path, capsys):
    result = tmp_path / "result.json"
    assert tiny_imagenet.main([*arguments, "--models", "add", "vertical", "--per-gpu", "2"]) == 0
    rows = json.loads(result.read_text(encoding="utf-8"))["rows"]
    assert [(row["model"], row["seed"], row["epochs"]) for row in rows] == [("vertical", 0, 1), ("add", 0, 1)]
    assert [point[0] for point in rows[0]["curve"]] == [1]
    assert rows[0]["curve"][-1][2] == rows[0]["top1_percent"]
    before = result.read_bytes()
    capsys.readouterr()
    assert tiny_imagenet.main([*arguments, "--models", "add"]) == 0
    assert (result.read_bytes(), capsys.readouterr().out) == (before, "")


def test_a_run_that_fails_is_named_and_the_time_limit_leaves_runs_out(arguments, capsys):
    assert tiny_imagenet.main([*arguments, "data.batch_size=64", "--models", "add"]) == 1
    assert "add seed 0: ended with code 1" in capsys.readouterr().out
    assert tiny_imagenet.main([*arguments, "--models", "add", "--time-limit", "10"]) == 0
    assert "not started, the time limit had passed: add seed 0" in capsys.readouterr().out


def test_a_model_that_the_plan_lacks_is_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        tiny_imagenet.main([*arguments, "--models", "ad"])
    assert "no model 'ad' in the plan ablations" in capsys.readouterr().err


def test_ablations_have_the_paper_models_relations(tmp_path):
    """Parameters of the variants relate to each other as those of S do in the paper's table 2."""
    parameters = {}
    for model in tiny_imagenet.ABLATIONS:
        config = tiny_imagenet.configuration(
            "ablations", model, 0, data=tmp_path, output=tmp_path / "run", fields=["model.num_classes=200"]
        )
        built = create_model(config.model.name, num_classes=200, img_size=(64, 64), **config.model.overrides)
        assert isinstance(built, Sequencer2D)
        parameters[model] = sum(parameter.numel() for parameter in built.parameters())
    assert parameters["vertical"] == parameters["horizontal"] == parameters["vsequencer_h"]
    assert parameters["rnn"] < parameters["gru"] < parameters["nofusion"] < parameters["vertical"]
    assert parameters["vertical"] < parameters["sequencer2d_n"] < parameters["unidirectional"] < parameters["h2x"]
    assert parameters["vsequencer_pe"] == parameters["vsequencer"] + 8 * 8 * 192
