"""What the clients of trackers are told. Stand-ins note it here; test_trackers runs the real clients where they are."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from sequencer2d.training import trackers
from sequencer2d.training.trackers import TRACKERS, Trackers


def module(name: str, **contents: Any) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(contents)
    return made


class Run:
    """A run of Weights & Biases that has the points before `starting_step`."""

    def __init__(self, starting_step: int) -> None:
        self.starting_step = starting_step
        self.points: list[tuple[dict[str, float], int]] = []
        self.exit_codes: list[int] = []

    def log(self, scalars: dict[str, float], step: int) -> None:
        self.points.append((scalars, step))

    def finish(self, exit_code: int) -> None:
        self.exit_codes.append(exit_code)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], tuple[Run, dict[str, Any]]]:
    for name in ("WANDB_PROJECT", "WANDB_NAME"):
        monkeypatch.delenv(name, raising=False)

    def install(starting_step: int) -> tuple[Run, dict[str, Any]]:
        run, told = Run(starting_step), dict[str, Any]()
        client = module("wandb", Settings=dict, init=lambda **options: (told.update(options), run)[1])
        monkeypatch.setitem(sys.modules, "wandb", client)
        return run, told

    return install


def test_wandb_is_told_the_run_and_only_the_points_that_it_lacks(
    wandb: Callable[[int], tuple[Run, dict[str, Any]]], tmp_path: Path
) -> None:
    run, told = wandb(3)
    opened = TRACKERS["wandb"].open(tmp_path, 7, {"optimizer.lr": 0.5})
    for step in (2, 3, 4):
        opened.log({"step/loss": 1.0}, step)
    opened.close(True)
    opened.close(False)
    assert [step for _, step in run.points] == [3, 4]
    assert run.exit_codes == [0, 1]
    run_id = told.pop("id")
    assert len(run_id) == 8
    assert told == {
        "resume": "allow", "dir": tmp_path, "project": "sequencer2d", "name": tmp_path.name,
        "config": {"optimizer.lr": 0.5},
        "settings": {"console": "off", "disable_git": True, "save_code": False, "quiet": True},
    }  # fmt: skip
    assert json.loads((tmp_path / trackers.IDS).read_text()) == {"wandb": run_id}
    _, again = wandb(0)
    TRACKERS["wandb"].open(tmp_path, 7, {})
    assert again["id"] == run_id


def test_wandb_takes_names_from_its_environment(
    wandb: Callable[[int], tuple[Run, dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setenv("WANDB_NAME", "first")
    _, told = wandb(0)
    TRACKERS["wandb"].open(tmp_path, 0, {})
    assert (told["project"], told["name"]) == ("mine", "first")


class Server:
    """In place of MLflow's client, and of what it stores."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.experiments: dict[str, Any] = {}
        self.points: dict[str, list[Any]] = {}
        self.address = ""

    def __call__(self, tracking_uri: str) -> "Server":
        self.address = tracking_uri
        return self

    def get_experiment_by_name(self, name: str) -> Any:
        return self.experiments.get(name)

    def create_experiment(self, name: str, artifacts: str | None) -> str:
        self.calls.append(("experiment", name, artifacts))
        self.experiments[name] = SimpleNamespace(experiment_id="e1")
        return "e1"

    def create_run(self, experiment: str, run_name: str) -> Any:
        self.calls.append(("run", experiment, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id="r1"))

    def update_run(self, run_id: str, status: str) -> None:
        self.calls.append((run_id, status))

    def set_terminated(self, run_id: str, status: str) -> None:
        self.calls.append((run_id, status))

    def get_run(self, run_id: str) -> Any:
        return SimpleNamespace(data=SimpleNamespace(metrics=dict.fromkeys(self.points)))

    def get_metric_history(self, run_id: str, name: str) -> list[Any]:
        return self.points[name]

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        self.calls.append((run_id, list(metrics), list(params)))


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Server:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    server = Server()
    entities = module("mlflow.entities", Metric=lambda *values: values, Param=lambda *values: values)
    for made in (module("mlflow"), module("mlflow.tracking", MlflowClient=server), entities):
        monkeypatch.setitem(sys.modules, made.__name__, made)
    monkeypatch.setattr(trackers.time, "time", lambda: 12.5)
    return server


def test_mlflow_is_told_the_run_and_only_the_points_that_it_lacks(mlflow: Server, tmp_path: Path) -> None:
    mlflow.points = {"step/loss": [SimpleNamespace(step=2), SimpleNamespace(step=4), SimpleNamespace(step=3)]}
    opened = TRACKERS["mlflow"].open(tmp_path, 0, {"model.name": "x" * 600})
    assert mlflow.address == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    assert mlflow.calls == [
        ("experiment", "sequencer2d", (tmp_path / "mlflow/artifacts").as_uri()),
        ("run", "e1", tmp_path.name),
        ("r1", [], [("model.name", "x" * 500)]),
        ("r1", "RUNNING"),
    ]
    mlflow.calls.clear()
    opened.log({"step/loss": 1.0}, 4)
    assert mlflow.calls == []
    opened.log({"step/loss": 1.0, "step/lr": 0.5}, 4)
    opened.log({"step/loss": 2.0}, 5)
    opened.log({"step/lr": 0.25}, 0)
    opened.close(True)
    opened.close(False)
    assert mlflow.calls == [
        ("r1", [("step/lr", 0.5, 12500, 4)], []),
        ("r1", [("step/loss", 2.0, 12500, 5)], []),
        ("r1", [("step/lr", 0.25, 12500, 0)], []),
        ("r1", "FINISHED"),
        ("r1", "KILLED"),
    ]
    mlflow.calls.clear()
    TRACKERS["mlflow"].open(tmp_path, 5, {})  # goes on with its id
    assert mlflow.calls == [("r1", "RUNNING")]


def test_mlflow_takes_a_server_and_an_experiment_from_its_environment(
    mlflow: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "flowers")
    mlflow.experiments["flowers"] = SimpleNamespace(experiment_id="e7")
    TRACKERS["mlflow"].open(tmp_path, 0, {})
    assert mlflow.address == "http://server"
    assert mlflow.calls[0] == ("run", "e7", tmp_path.name)
    assert not (tmp_path / "mlflow").exists()


def test_curves_are_named_by_kind_and_hold_numbers_alone(
    wandb: Callable[[int], tuple[Run, dict[str, Any]]], tmp_path: Path
) -> None:
    run, _ = wandb(0)
    opened = Trackers(("wandb",), tmp_path, 0, {})
    opened.log("epoch", {"kind": "epoch", "step": 10.0, "epoch": 1, "top1": 50.5, "val_loss": None, "note": "x"})
    opened.close(finished=False)
    opened.close(finished=False)  # is closed already
    assert run.points == [({"epoch/epoch": 1, "epoch/top1": 50.5}, 10)]
    assert type(run.points[0][1]) is int
    assert run.exit_codes == [1]


def test_passwords_in_addresses_are_not_shown() -> None:
    shown = trackers._reason(RuntimeError("no http://user:pass@host/a, no http://host/b@c"))
    assert shown == "no http://…@host/a, no http://host/b@c"
