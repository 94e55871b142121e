"""The training loop: `train(config)`.

The run is a sequence of optimizer steps; everything that depends on time (learning rate, order of the images, random
numbers) is a pure function of the step. A checkpoint therefore holds weights, optimizer state and a few numbers, and a
resumed run logs the losses that an uninterrupted one would have logged.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

from torch import nn

from sequencer2d import tasks
from sequencer2d.data.fingerprint import fingerprint
from sequencer2d.environment import launch
from sequencer2d.errors import CheckpointError, Interrupted, NumericalError
from sequencer2d.evaluation.loop import evaluate
from sequencer2d.files import write_json
from sequencer2d.models import save_weights
from sequencer2d.training import assemble, checkpoint
from sequencer2d.training.budget import memory_budget
from sequencer2d.training.config import TrainConfig, validate
from sequencer2d.training.curves import plot_curves
from sequencer2d.training.distributed import Agreement, Processes, processes
from sequencer2d.training.folder import RunFolder
from sequencer2d.training.numerics import AMP_DTYPES, check_compiler, check_precision, memory_errors, numerics
from sequencer2d.training.optim import learning_rate, set_learning_rate
from sequencer2d.training.prefetch import RunAhead, to_device
from sequencer2d.training.resume import check_same_config, check_same_data, load_states
from sequencer2d.training.runfiles import write_config
from sequencer2d.training.runlog import RunLog, SilentLog, memory_mib
from sequencer2d.training.signals import StopSignals
from sequencer2d.training.speed import Speedometer
from sequencer2d.training.summary import device_name, summarize
from sequencer2d.training.window import LossWindow, require_finite_weights


def train(config: TrainConfig) -> dict[str, Any]:
    """Train as `config` says, in this process or, under torchrun, in all of them; return the run's summary.

    The run folder (`run.output`) then holds `config.json`, `log.jsonl`, `tensorboard/`, `checkpoints/last.pt`,
    `best.safetensors` (of the averaged weights, if there is an average), `summary.json` and `curves.png`.

    Raises:
        UserError: the configuration, data, device or folder does not fit; before the first step where possible.
        NumericalError: the loss or the weights are not finite; the last good checkpoint stays.
        Interrupted: SIGTERM, Ctrl-C, `run.time_limit_s` or `run.max_steps` ended the run after saving.
    """
    validate(config, launch().world_size)
    with StopSignals() as signals, processes(config.distributed, config.run.device) as here:
        check_precision(config.precision, here.device)
        check_compiler(config.run.compile, here.device)
        with (
            RunFolder(Path(config.run.output)) as folder,
            numerics(config.run, here.device),
            memory_errors(),
            memory_budget(config.run.memory_budget),
        ):
            return _Run(config, here, signals, folder).train()


class _Run:
    """One call of `train`: the parts, and where the run stands."""

    def __init__(self, config: TrainConfig, here: Processes, signals: StopSignals, folder: RunFolder) -> None:
        self.started = time.monotonic()
        self.here, self.signals, self.folder = here, signals, folder
        self.task = tasks.get(config.task)
        self.data = assemble.build_data(config, here)
        self.config = assemble.resolve(config, len(self.data.class_names))
        last = self._open_folder()
        self.model = assemble.build_model(self.config, here.device, first_weights=last is None)
        self.meta = assemble.checkpoint_meta(self.config, self.model, self.data.class_names)
        here.on_main(
            lambda: folder.require_space(self.model, config.regularization.ema_decay is not None, config.run.keep)
        )
        self.step_fn = assemble.build_step(self.config, self.model, here)
        self.window = LossWindow(here.mean)
        self.agreement = Agreement(here.control)
        self.step, self.evaluated_epochs = 0, 0
        self.earlier_s, self.last_saved = 0.0, time.monotonic()
        self.best: dict[str, Any] | None = None
        self.final: dict[str, Any] = {}
        self.speed = Speedometer(config.data.batch_size)
        if last is not None:
            self._resume(last)

    def _open_folder(self) -> checkpoint.Checkpoint | None:
        """Take the run's folder; the checkpoint to go on from, if there is one."""
        config, path = self.config, self.folder.path
        self.here.on_main(lambda: self.folder.open(config.run.resume))
        if config.run.resume:
            self.here.on_main(lambda: check_same_config(path, config))
        last = checkpoint.load_last(path) if config.run.resume else None
        self.here.on_main(lambda: self._fingerprint(last))
        self.here.on_main(self._write_config)
        return last

    def _write_config(self) -> None:
        with self.folder.writing():
            write_config(self.folder.path, self.config)

    def _fingerprint(self, last: checkpoint.Checkpoint | None) -> None:
        data = self.data
        self.fingerprints = {"train": fingerprint(data.train.source), "val": fingerprint(data.val.source)}
        if last is not None:
            check_same_data(last, self.fingerprints, data.class_names)

    @property
    def total_steps(self) -> int:
        return self.config.run.epochs * self.data.steps_per_epoch

    @property
    def _judged(self) -> nn.Module:
        """What is evaluated and kept as best: the averaged weights, if there is an average."""
        average = self.step_fn.average
        return self.model if average is None else average.module

    @property
    def time_s(self) -> float:
        """Seconds of this call and those before it."""
        return self.earlier_s + time.monotonic() - self.started

    def train(self) -> dict[str, Any]:
        with self.folder.writing():
            log = self._open_log()
        with log as self.log, self.data:
            self._announce()
            while self.evaluated_epochs < self.config.run.epochs:
                self._train_epoch(self.evaluated_epochs)
                self._end_epoch(self.evaluated_epochs)
            self._save()
        with self.folder.writing():
            return self._finish()

    def _announce(self) -> None:
        """Say what is about to run; refuse to pass a limit that was reached before."""
        run, here = self.config.run, self.here
        millions = sum(parameter.numel() for parameter in self.model.parameters()) / 1e6
        where = f"{here.world_size} × {device_name(here.device)}"
        self.log.say(
            f"{self.config.model.name}, {millions:.2f} M parameters, on {where}: {self.total_steps} steps "
            f"({self.config.run.epochs} epochs × {self.data.steps_per_epoch}) of {self.config.data.batch_size} "
            f"images into {self.folder.path}"
        )
        if run.resume:
            there = f"resumed at step {self.step}" if self.step else "no checkpoint there yet: starting anew"
            self.log.say(there)
        if run.compile and here.device.type == "cpu":
            self.log.say(
                "compiling for the CPU: the first step of training and of evaluation takes minutes, in which nothing "
                "else is shown; run.compile=false starts at once"
            )
        if run.max_steps is not None and run.max_steps <= self.step < self.total_steps:
            raise Interrupted(
                f"run.max_steps={run.max_steps} was reached before: the run in {self.folder.path} is at step "
                f"{self.step} of {self.total_steps}; go on without run.max_steps, or with a higher one"
            )

    def _train_epoch(self, epoch: int) -> None:
        """The rest of `epoch`."""
        first = epoch * self.data.steps_per_epoch
        ahead = RunAhead(self.here.device)
        self.speed.start()
        self.data.train.seek(epoch, self.step - first)
        batches = to_device(self.data.train, self.here.device)
        last = first + self.data.steps_per_epoch
        for images, targets in batches:
            rate = learning_rate(self.config, self.step, self.data.steps_per_epoch)
            loss, norm = self.step_fn(images, targets, self.step, rate)
            self.window.add(loss, norm)
            self.step += 1
            ahead.mark()
            self.speed.count()
            if self.step % self.config.run.log_interval == 0:
                self._log_step(rate)
            self.log.advance(self.step)
            self._save_or_stop(last_of_epoch=self.step == last)
        if self.step != last:
            raise RuntimeError(f"the loader ended epoch {epoch} at step {self.step - first} of {last - first}")
        self.speed.pause()

    def _log_step(self, rate: float) -> None:
        self._drain()
        self.folder.require()
        loss, norm = self.window.take_mean()
        speed = self.speed.recent()
        self.log.step(
            {
                "step": self.step,
                "epoch": self.step / self.data.steps_per_epoch,
                "loss": loss,
                "lr": rate,
                **({} if norm is None else {"grad_norm": norm}),
                "images_per_s": round(speed, 1),
                "memory_mib": round(memory_mib(self.here.device), 1),
                "time_s": round(self.time_s, 3),
                "eta_s": round((self.total_steps - self.step) * self.config.data.batch_size / speed, 1),
            }
        )

    def _end_epoch(self, epoch: int) -> None:
        """Log the epoch, evaluated every `eval_interval` epochs and at the end."""
        self._drain()
        done = epoch + 1
        entry: dict[str, Any] = {"step": self.step, "epoch": done, "train_loss": self.window.take_epoch_mean()}
        if done % self.config.run.eval_interval == 0 or done == self.config.run.epochs:
            entry |= self._evaluate()
        entry["time_s"] = round(self.time_s, 3)
        self.evaluated_epochs = done
        self.final = {key: value for key, value in entry.items() if key != "time_s"}
        decides = self.task.decides
        best = None if self.best is None else self.best[decides.key]
        if decides.improves(entry.get(decides.key), best):
            self.best = self.final
            self.here.on_main(self._save_best)
        self.log.epoch(entry)

    def _evaluate(self) -> dict[str, float | None]:
        amp_dtype = AMP_DTYPES[self.config.precision]
        result = evaluate(self._judged, self.data.val, self.task, device=self.here.device, amp_dtype=amp_dtype)
        return self.task.entry(result)

    def _drain(self) -> None:
        try:
            self.window.drain(self.step)
        except NumericalError as error:
            raise NumericalError(
                f"{error}; {self._kept()}; lower optimizer.lr, set optimizer.clip_grad_norm, or use "
                "precision=bf16 or fp32 in place of fp16"
            ) from None

    def _kept(self) -> str:
        kept = checkpoint.list_checkpoints(self.folder.path)
        return f"the last good checkpoint is {kept[-1]}" if kept else "there is no checkpoint before it"

    def _save_or_stop(self, last_of_epoch: bool) -> None:
        """Between two steps: write a checkpoint that is due; save and stop if any process was told to."""
        run = self.config.run
        stop = self.signals.received is not None or _passed(self.started, run.time_limit_s)
        due = self.here.main and _passed(self.last_saved, run.checkpoint_interval_s)
        decide = self.agreement.settle if last_of_epoch else self.agreement.exchange
        stop, due = decide(stop, due)
        at_limit = run.max_steps is not None and self.step >= run.max_steps
        finished = self.step == self.total_steps
        if (stop or at_limit) and not finished:
            self._save()
            raise Interrupted(self._why(at_limit))
        if due or (run.checkpoint_interval_steps and self.step % run.checkpoint_interval_steps == 0):
            self._save()

    def _why(self, at_limit: bool) -> str:
        reason = self.signals.received or ("run.max_steps" if at_limit else "run.time_limit_s or another process")
        return (
            f"stopped by {reason} after step {self.step} of {self.total_steps}, saved in {self.folder.path}; "
            "go on with --resume RUN, which keeps neither run.max_steps nor run.time_limit_s (from Python: "
            "run.resume=true without them)"
        )

    def _save(self) -> None:
        """Check the losses so far, then write a checkpoint."""
        self._drain()
        require_finite_weights(self.model, self.step)
        self.here.on_main(self._write_checkpoint)
        self.last_saved = time.monotonic()

    def _write_checkpoint(self) -> None:
        parts = self.step_fn
        entries = {
            "meta": self.meta,
            "model": self.model.state_dict(),
            "optimizer": parts.optimizer.state_dict(),
            "scaler": parts.scaler.state_dict(),
            "progress": self._progress(),
            "data": self.fingerprints,
        }
        if parts.average is not None:
            entries["model_ema"] = parts.average.module.state_dict()
        self.folder.require()
        checkpoint.save_checkpoint(self.folder.path, self.step, entries, self.config.run.keep)

    def _progress(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "steps_per_epoch": self.data.steps_per_epoch,
            "evaluated_epochs": self.evaluated_epochs,
            "window": self.window.state_dict(),
            "best": self.best,
            "final": self.final,
            "speed": self.speed.state_dict(),
            "time_s": self.time_s,
        }

    def _save_best(self) -> None:
        self.folder.require()
        save_weights(self._judged, self.folder.path / "best.safetensors", self.meta)

    def _resume(self, last: checkpoint.Checkpoint) -> None:
        progress = last.progress
        if progress.steps_per_epoch != self.data.steps_per_epoch or progress.step > self.total_steps:
            raise CheckpointError(
                f"the run in {self.folder.path} had {progress.steps_per_epoch} steps per epoch and is at step "
                f"{progress.step}, the data now make {self.data.steps_per_epoch} per epoch and {self.total_steps} in "
                "all; resume with the data of the run"
            )
        decides = self.task.decides
        if progress.best and not isinstance(progress.best.get(decides.key), (int, float)):
            raise CheckpointError(f"{last.path} lacks the {decides.label} of its best epoch; start again")
        if progress.step == self.total_steps and progress.final and decides.key not in progress.final:
            raise CheckpointError(f"{last.path} is of the run's end, but lacks its last {decides.label}; start again")
        load_states(last, self.step_fn)
        if progress.step:
            rate = learning_rate(self.config, progress.step - 1, self.data.steps_per_epoch)
            set_learning_rate(self.step_fn.optimizer, rate)
        self.step, self.evaluated_epochs = progress.step, progress.evaluated_epochs
        self.best, self.final, self.earlier_s = progress.best or None, progress.final, progress.time_s
        self.window.load_state_dict(dataclasses.asdict(progress.window))
        self.speed.load_state_dict(dataclasses.asdict(progress.speed))

    def _open_log(self) -> SilentLog:
        run = self.config.run
        if not self.here.main:
            return SilentLog()
        return RunLog(
            self.folder.path,
            total_steps=self.total_steps,
            first_step=self.step,
            done_epochs=self.evaluated_epochs,
            metrics=self.task.metrics,
            tensorboard=run.tensorboard,
            progress=run.progress,
        )

    def _finish(self) -> dict[str, Any]:
        summary = summarize(
            self.config,
            final=self.final,
            best=self.best,
            steps=self.step,
            duration_s=self.time_s,
            images_per_s=self.speed.overall(),
            device=self.here.device,
            world_size=self.here.world_size,
            parameters=sum(parameter.numel() for parameter in self.model.parameters()),
            memory_mib=memory_mib(self.here.device),
        )
        if self.here.main:
            write_json(self.folder.path / "summary.json", summary)
            plot_curves(self.folder.path, self.task)
        self.here.barrier()
        return summary


def _passed(since: float, seconds: float | None) -> bool:
    return seconds is not None and time.monotonic() - since >= seconds
