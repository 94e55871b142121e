"""Trackers beside the log: the table with TensorBoard, the other clients where they are installed."""

import dataclasses
import json
import sys
import typing
from pathlib import Path

import pytest

from sequencer2d.errors import ConfigError, Interrupted
from sequencer2d.training import loop, trackers
from sequencer2d.training.config import RunConfig
from sequencer2d.training.loop import train
from sequencer2d.training.trackers import TRACKERS, Trackers
from tests.training.test_runlog import scalars

ROOT = Path(__file__).parents[2]


@pytest.fixture
def board_only(monkeypatch):
    """Every client but TensorBoard is missing, whatever is installed here."""
    for name in ("wandb", "mlflow"):
        monkeypatch.setitem(TRACKERS, name, dataclasses.replace(TRACKERS[name], package=f"no_{name}"))


def points(folder: Path, keys: tuple[str, ...] = ("loss", "lr", "train_loss", "top1")) -> dict:
    """The curves that `log.jsonl` holds: name → [(step, value), …]."""
    curves: dict = {}
    for line in (folder / "log.jsonl").read_text().splitlines():
        entry = json.loads(line)
        for key in keys:
            if entry.get(key) is not None:
                curves.setdefault(f"{entry['kind']}/{key}", []).append((entry["step"], entry[key]))
    return curves


def test_the_field_names_the_rows_and_every_row_has_its_extra():
    if sys.version_info < (3, 11):
        pytest.skip("tomllib came with Python 3.11")
    import tomllib

    (name, _) = typing.get_args(typing.get_type_hints(RunConfig)["trackers"])
    assert typing.get_args(name) == tuple(TRACKERS)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for backend in TRACKERS.values():
        assert any(need.startswith(backend.package) for need in extras[backend.extra])


def test_a_missing_client_is_one_line_before_anything_is_written(tiny, tmp_path, board_only):
    with pytest.raises(ConfigError, match=r"run\.trackers=wandb needs .* pip install '\.\[wandb\]'$"):
        train(tiny(run__trackers="tensorboard,wandb"))
    assert not (tmp_path / "run").exists()


def test_a_folder_with_the_name_of_a_client_is_no_client(tmp_path, monkeypatch):
    (tmp_path / "some_client").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not dataclasses.replace(TRACKERS["wandb"], package="some_client").installed


def test_an_unknown_tracker_is_refused(tiny):
    with pytest.raises(ConfigError, match=r"run\.trackers: expected one of tensorboard, wandb, mlflow"):
        tiny(run__trackers="wandbb")


@pytest.mark.parametrize(
    "named, board, opened",
    [((), True, ["tensorboard"]), ((), False, []), (("tensorboard",), False, ["tensorboard"])]
    + [(("mlflow", "tensorboard", "mlflow"), True, ["tensorboard", "mlflow"]), (("mlflow",), False, ["mlflow"])],
)
def test_the_older_field_still_decides_about_tensorboard(named, board, opened):
    pytest.importorskip("tensorboard")
    assert list(trackers.chosen(named, board)) == opened


def test_a_tracker_added_on_resuming_has_the_whole_curves(tiny, tmp_path):
    pytest.importorskip("tensorboard")
    with pytest.raises(Interrupted):
        train(tiny(run__max_steps=13))
    assert not (tmp_path / "run/tensorboard").exists()
    train(tiny(run__resume=True, run__trackers="tensorboard"))
    assert_same_curves(scalars(tmp_path / "run"), points(tmp_path / "run"))


def test_a_tracker_that_fails_is_left_out_and_closes_nothing_else(tmp_path, monkeypatch, caplog):
    pytest.importorskip("tensorboard")
    writer = type(TRACKERS["tensorboard"].open(tmp_path / "probe", 0, {})._writer)
    monkeypatch.setattr(writer, "add_scalar", broken)
    opened = Trackers(("tensorboard",), tmp_path, 0, {})
    for step in (1, 2):
        opened.log("step", {"step": step, "loss": 1.0})
    opened.close(finished=True)
    assert len(caplog.records) == 1
    assert "tensorboard fails and is left out" in caplog.text
    assert "//…@host" in caplog.text
    assert "secret" not in caplog.text


def broken(*_: object) -> None:
    raise RuntimeError("no answer from http://user:secret@host/api")


def test_a_tracker_that_cannot_be_opened_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(TRACKERS, "mlflow", dataclasses.replace(TRACKERS["mlflow"], open=broken))
    with pytest.raises(ConfigError, match=r"^mlflow cannot be opened \(no answer .*\): set MLFLOW_TRACKING_URI"):
        Trackers(("mlflow",), tmp_path, 0, {})


def test_ids_that_are_none_are_one_line(tmp_path):
    for text in ("[]", "{", '{"wandb": 3}'):
        (tmp_path / trackers.IDS).write_text(text)
        with pytest.raises(ConfigError, match="holds no ids of runs: delete it"):
            trackers._keep_id(tmp_path, "mlflow", "1")


def killed_and_resumed(tiny, monkeypatch, name: str) -> None:
    """A run with a checkpoint at step 10 that dies at step 13, with its points sent, and goes on from step 10."""
    real, steps = loop.RunAhead.mark, []

    def mark(self):
        steps.append(1)
        if len(steps) == 13:
            raise RuntimeError("killed")
        return real(self)

    fields = {"run__trackers": name, "run__checkpoint_interval_steps": 10}
    with monkeypatch.context() as patch:
        patch.setattr(loop.RunAhead, "mark", mark)
        with pytest.raises(RuntimeError, match="killed"):
            train(tiny(**fields))
    ids = json.loads(Path(tiny().run.output, trackers.IDS).read_text())
    assert list(ids) == [name]
    train(tiny(run__resume=True, **fields))
    assert json.loads(Path(tiny().run.output, trackers.IDS).read_text()) == ids


def assert_same_curves(found: dict, expected: dict) -> None:
    for name, curve in expected.items():
        assert [step for step, _ in found[name]] == [step for step, _ in curve], name
        assert [value for _, value in found[name]] == pytest.approx([value for _, value in curve], abs=2e-6), name


@pytest.mark.filterwarnings("ignore")
def test_mlflow_without_a_server_keeps_one_run_with_the_logs_curves(tiny, tmp_path, monkeypatch):
    tracking = pytest.importorskip("mlflow.tracking")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    killed_and_resumed(tiny, monkeypatch, "mlflow")
    folder = tmp_path / "run"
    client = tracking.MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow/mlflow.db")
    run_id = json.loads((folder / trackers.IDS).read_text())["mlflow"]
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["model.name"] == "sequencer2d_n"
    found = {
        name: [(point.step, point.value) for point in client.get_metric_history(run_id, name)]
        for name in run.data.metrics
    }
    assert_same_curves(found, points(folder))


@pytest.mark.filterwarnings("ignore")
def test_wandb_offline_goes_on_with_its_id_and_stores_no_key(tiny, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    key = "0123456789abcdef" * 2 + "01234567"
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", key)
    killed_and_resumed(tiny, monkeypatch, "wandb")
    folder = tmp_path / "run"
    run_id = json.loads((folder / trackers.IDS).read_text())["wandb"]
    assert len(list((folder / "wandb").glob(f"offline-run-*/run-{run_id}.wandb"))) == 2
    assert not [path for path in folder.rglob("*") if path.is_file() and key.encode() in path.read_bytes()]


def test_the_main_process_alone_opens_trackers(tiny, tmp_path, start):
    pytest.importorskip("tensorboard")
    child = start(tiny(run__trackers="tensorboard"), tmp_path, forks=2)
    assert child.wait(120) == 0, child.stderr_text()
    assert len(list((tmp_path / "run/tensorboard").iterdir())) == 1
    assert_same_curves(scalars(tmp_path / "run"), points(tmp_path / "run"))
