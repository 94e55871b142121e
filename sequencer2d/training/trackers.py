"""Programs that show a run's curves beside `log.jsonl`: TensorBoard, Weights & Biases, MLflow.

Each is a row of `TRACKERS`, and its own client does the work. When a run goes on, every tracker is given the whole log
again and leaves out what it has, so a tracker that is added later has the whole curves too.
"""

import importlib.util
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sequencer2d.errors import ConfigError, UserError, first_line
from sequencer2d.files import read_json, write_json

logger = logging.getLogger(__name__)

IDS = "trackers.json"
"""File in the run's folder: tracker → id of its run, which a resumed run goes on with."""
_PROJECT = "sequencer2d"


class Tracker(Protocol):
    """An open tracker."""

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Add points to curves."""

    def close(self, finished: bool) -> None:
        """Write out everything. `finished`: the run is not interrupted and did not fail."""


@dataclass(frozen=True)
class Backend:
    """A kind of tracker.

    Args:
        package: its client.
        extra: the optional dependencies that bring the client.
        open: opens it for a run: folder, steps done where the run goes on, configuration.
        remedy: what to do if it cannot be opened.
    """

    package: str
    extra: str
    open: Callable[[Path, int, Mapping[str, Any]], Tracker]
    remedy: str = "see whether the run's folder can be written"

    @property
    def installed(self) -> bool:
        """Whether the client is installed. The folder of the same name that a client writes does not count."""
        spec = importlib.util.find_spec(self.package)
        return spec is not None and spec.origin is not None

    @property
    def hint(self) -> str:
        """How to install the client."""
        return f"pip install {self.package}, or in a checkout pip install '.[{self.extra}]'"


class _TensorBoard:
    """Files in `tensorboard/`. Its points from `first_step` on are purged and come again."""

    def __init__(self, folder: Path, first_step: int, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        files = folder / "tensorboard"
        self._first = first_step if files.exists() else 0
        self._writer = SummaryWriter(str(files), purge_step=self._first or None)

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        if step >= self._first:
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, step)

    def close(self, finished: bool) -> None:
        self._writer.close()


class _WandB:
    """A run of Weights & Biases, which takes its settings from its own environment variables and from `wandb login`.

    Online it has the points before its `starting_step`. With `WANDB_MODE=offline` each call writes a folder of its own,
    which holds the whole curves.
    """

    def __init__(self, folder: Path, first_step: int, config: Mapping[str, Any]) -> None:
        import wandb

        run_id = _read_ids(folder).get("wandb") or secrets.token_hex(4)
        # Neither the console nor git's remote address is recorded: both may hold what is secret.
        settings = wandb.Settings(console="off", disable_git=True, save_code=False, quiet=True)
        self._run = wandb.init(
            id=run_id,
            resume="allow",
            dir=folder,
            project=os.environ.get("WANDB_PROJECT") or _PROJECT,
            name=os.environ.get("WANDB_NAME") or folder.resolve().name,
            config=dict(config),
            settings=settings,
        )
        self._first = self._run.starting_step
        _keep_id(folder, "wandb", run_id)

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        if step >= self._first:
            self._run.log(dict(scalars), step=step)

    def close(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)


class _MLflow:
    """A run of MLflow at `MLFLOW_TRACKING_URI`; without that, in a data base in the run's folder."""

    def __init__(self, folder: Path, first_step: int, config: Mapping[str, Any]) -> None:
        from mlflow.tracking import MlflowClient

        uri, artifacts = os.environ.get("MLFLOW_TRACKING_URI"), None
        if not uri:
            local = folder.resolve() / "mlflow"
            local.mkdir(exist_ok=True)
            uri, artifacts = f"sqlite:///{(local / 'mlflow.db').as_posix()}", (local / "artifacts").as_uri()
        self._client = MlflowClient(tracking_uri=uri)
        self._id = _read_ids(folder).get("mlflow") or self._create(folder, config, artifacts)
        self._client.update_run(self._id, status="RUNNING")
        names = self._client.get_run(self._id).data.metrics
        self._done = {name: max(point.step for point in self._history(name)) for name in names}

    def _create(self, folder: Path, config: Mapping[str, Any], artifacts: str | None) -> str:
        from mlflow.entities import Param

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or _PROJECT
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name, artifacts)
        run_id: str = self._client.create_run(experiment, run_name=folder.resolve().name).info.run_id
        _keep_id(folder, "mlflow", run_id)
        self._client.log_batch(run_id, params=[Param(key, str(value)[:500]) for key, value in config.items()])
        return run_id

    def _history(self, name: str) -> Iterable[Any]:
        history: Iterable[Any] = self._client.get_metric_history(self._id, name)
        return history

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        new = {name: value for name, value in scalars.items() if step > self._done.get(name, -1)}
        if new:
            self._client.log_batch(self._id, [Metric(name, value, now, step) for name, value in new.items()])

    def close(self, finished: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if finished else "KILLED")


TRACKERS: dict[str, Backend] = {
    "tensorboard": Backend("tensorboard", "train", _TensorBoard),
    "wandb": Backend("wandb", "wandb", _WandB, "log in with `wandb login`, or set WANDB_MODE=offline"),
    "mlflow": Backend(
        "mlflow",
        "mlflow",
        _MLflow,
        "set MLFLOW_TRACKING_URI to a server that answers, or unset it",
    ),
}
"""Name in `run.trackers` → the tracker."""


def require(names: Iterable[str]) -> None:
    """Raise `ConfigError` unless the clients of these trackers are installed."""
    for name in names:
        if not TRACKERS[name].installed:
            backend = TRACKERS[name]
            raise ConfigError(f"run.trackers={name} needs the package {backend.package}: {backend.hint}")


def chosen(names: Iterable[str], tensorboard: bool) -> tuple[str, ...]:
    """The trackers that a run opens: those named, and TensorBoard if it is wanted and installed."""
    backend = TRACKERS["tensorboard"]
    if tensorboard and not backend.installed:
        logger.warning("tensorboard is not installed: no TensorBoard files (%s)", backend.hint)
    default = ("tensorboard",) if tensorboard and backend.installed else ()
    return tuple(dict.fromkeys((*default, *names)))


class Trackers:
    """The open trackers of a run.

    A client that fails later does not end the run: a warning says so, and the tracker gets the rest when the run is
    resumed. `OSError` is passed on, because it is about the run's folder.

    Args:
        names: of the trackers.
        folder: of the run.
        first_step: steps done where the run goes on.
        config: fields → values, which the trackers show beside the curves.

    Raises:
        ConfigError: a tracker cannot be opened.
    """

    def __init__(self, names: Iterable[str], folder: Path, first_step: int, config: Mapping[str, Any]) -> None:
        self._open: dict[str, Tracker] = {}
        for name in names:
            try:
                self._open[name] = TRACKERS[name].open(folder, first_step, config)
            except Exception as error:
                self.close(finished=False)
                if isinstance(error, (UserError, OSError)):
                    raise
                raise ConfigError(f"{name} cannot be opened ({_reason(error)}): {TRACKERS[name].remedy}") from error

    def log(self, kind: str, entry: Mapping[str, Any]) -> None:
        """Add an entry of the log of this kind."""
        scalars = {
            f"{kind}/{key}": value
            for key, value in entry.items()
            if key not in ("kind", "step") and isinstance(value, (int, float))
        }
        for name in tuple(self._open):
            self._attempt(name, lambda tracker: tracker.log(scalars, int(entry["step"])))

    def close(self, finished: bool) -> None:
        """Close all trackers."""
        for name in tuple(self._open):
            self._attempt(name, lambda tracker: tracker.close(finished))
        self._open.clear()

    def _attempt(self, name: str, action: Callable[[Tracker], None]) -> None:
        try:
            action(self._open[name])
        except OSError:
            raise
        except Exception as error:
            del self._open[name]
            logger.warning("%s fails and is left out of this call of the run (%s)", name, _reason(error))


def _read_ids(folder: Path) -> dict[str, str]:
    path = folder / IDS
    try:
        ids = read_json(path) if path.exists() else {}
    except ValueError:
        ids = None
    if not isinstance(ids, dict) or not all(isinstance(run_id, str) for run_id in ids.values()):
        raise ConfigError(f"{path} holds no ids of runs: delete it, and the trackers start runs of their own")
    return ids


def _keep_id(folder: Path, name: str, run_id: str) -> None:
    write_json(folder / IDS, {**_read_ids(folder), name: run_id})


def _reason(error: Exception) -> str:
    """The error's first line, without the password that an address may hold."""
    return re.sub(r"//[^/@\s]+@", "//…@", first_line(error))
