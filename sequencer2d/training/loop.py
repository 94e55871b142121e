"""The training loop: `train(config)`.

The run is a sequence of optimizer steps; everything that depends on time (learning rate, order of the images, random
numbers) is a pure function of the step. A checkpoint therefore holds weights, optimizer state and a few numbers, and a
resumed run logs the losses that an uninterrupted one would have logged.
"""

import time
from pathlib import Path
from typing import Any

from sequencer2d import tasks
from sequencer2d.data.fingerprint import fingerprint
from sequencer2d.environment import launch
from sequencer2d.evaluation.loop import evaluate
from sequencer2d.files import write_json
from sequencer2d.precisions import autocast_dtype
from sequencer2d.training import assemble
from sequencer2d.training.bar import bar_of
from sequencer2d.training.budget import memory_budget
from sequencer2d.training.checkpoint import Checkpoint, load_last
from sequencer2d.training.config import TrainConfig, validate
from sequencer2d.training.curves import plot_curves
from sequencer2d.training.distributed import Processes, processes
from sequencer2d.training.fields import paths, value_at
from sequencer2d.training.folder import RunFolder
from sequencer2d.training.hardware import memory_mib
from sequencer2d.training.messages import announcement, step_entry
from sequencer2d.training.numerics import check_compiler, check_precision, compile_mode, memory_errors, numerics
from sequencer2d.training.optim import learning_rate, set_learning_rate
from sequencer2d.training.prefetch import RunAhead, to_device
from sequencer2d.training.resume import check_progress, check_same_config, check_same_data, load_states
from sequencer2d.training.runfiles import write_config
from sequencer2d.training.runlog import RunLog, SilentLog
from sequencer2d.training.saving import Saver
from sequencer2d.training.signals import StopSignals
from sequencer2d.training.speed import Speedometer
from sequencer2d.training.state import RunState
from sequencer2d.training.stopping import Stopper
from sequencer2d.training.summary import summarize
from sequencer2d.training.trackers import chosen
from sequencer2d.training.window import LossWindow


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
        check_compiler(config.run, here.device)
        with (
            RunFolder(Path(config.run.output)) as folder,
            numerics(config.run, here.device),
            memory_errors(),
            memory_budget(config.run.memory_budget),
        ):
            return _Run(config, here, signals, folder).train()


class _Run:
    """One call of `train`: its parts, in the order in which they are built, and the loop over steps and epochs."""

    def __init__(self, config: TrainConfig, here: Processes, signals: StopSignals, folder: RunFolder) -> None:
        started = time.monotonic()
        self.here, self.folder, self.task = here, folder, tasks.get(config.task)
        self.data = assemble.build_data(config, here)
        self.config = assemble.resolve(config, len(self.data.class_names))
        last = self._open_folder()
        self.model = assemble.build_model(self.config, here.device, first_weights=last is None)
        meta = assemble.checkpoint_meta(self.config, self.model, self.data.class_names, self.data.class_words)
        here.on_main(
            lambda: folder.require_space(self.model, config.regularization.ema_decay is not None, config.run.keep)
        )
        weights = assemble.class_weights(self.config, self.data.train.source)
        self.step_fn = assemble.build_step(self.config, self.model, here, weights)
        self.state = RunState(
            steps_per_epoch=self.data.steps_per_epoch,
            epochs=config.run.epochs,
            window=LossWindow(here.mean),
            speed=Speedometer(config.data.batch_size),
            started=started,
        )
        if last is not None:
            self._resume(last)
        self.saver = Saver(
            config.run, here, folder, self.step_fn, self.state, meta=meta, fingerprints=self.fingerprints
        )
        self.stopper = Stopper(config.run, here, signals, self.state, folder.path)

    def train(self) -> dict[str, Any]:
        with self.folder.writing():
            log = self._open_log()
        with log, self.data:
            for line in announcement(self.config, self.model, self.here, self.state):
                self.log.say(line)
            if compile_mode(self.config.run, self.here.device):
                self.log.show("compiling")
            self.stopper.refuse_old_limit()
            while self.state.evaluated_epochs < self.config.run.epochs:
                self._train_epoch(self.state.evaluated_epochs)
                self._end_epoch(self.state.evaluated_epochs)
            self.saver.save()
        with self.folder.writing():
            return self._finish()

    def _open_folder(self) -> Checkpoint | None:
        """Take the run's folder; the checkpoint to go on from, if there is one."""
        config, path = self.config, self.folder.path
        self.here.on_main(lambda: self.folder.open(config.run.resume))
        if config.run.resume:
            self.here.on_main(lambda: check_same_config(path, config))
        last = load_last(path) if config.run.resume else None
        self.fingerprints: dict[str, Any] = {}
        self.here.on_main(lambda: self._fingerprint(last))
        self.here.on_main(self._write_config)
        return last

    def _write_config(self) -> None:
        with self.folder.writing():
            write_config(self.folder.path, self.config)

    def _fingerprint(self, last: Checkpoint | None) -> None:
        data = self.data
        self.fingerprints = {"train": fingerprint(data.train.source), "val": fingerprint(data.val.source)}
        if last is not None:
            check_same_data(last, self.fingerprints, data.class_names)

    def _resume(self, last: Checkpoint) -> None:
        check_progress(last, self.state, self.task.decides, self.folder.path)
        load_states(last, self.step_fn)
        self.state.restore(last.progress)
        if self.state.step:
            set_learning_rate(self.step_fn.optimizer, self._rate(self.state.step - 1))

    def _rate(self, step: int) -> float:
        return learning_rate(self.config, step, self.data.steps_per_epoch)

    def _train_epoch(self, epoch: int) -> None:
        """The rest of `epoch`."""
        state = self.state
        first = epoch * state.steps_per_epoch
        last = first + state.steps_per_epoch
        ahead = RunAhead(self.here.device)
        state.speed.start()
        self.data.train.seek(epoch, state.step - first)
        for images, targets in to_device(self.data.train, self.here.device):
            rate = self._rate(state.step)
            loss, norm = self.step_fn(images, targets, state.step, rate)
            state.window.add(loss, norm)
            state.step += 1
            ahead.mark()
            state.speed.count()
            if state.step % min(self.config.run.log_interval, state.steps_per_epoch) == 0:
                self._log_step(rate)
            self.log.advance(state.step, loss, rate)
            self._save_or_stop(last_of_epoch=state.step == last)
        if state.step != last:
            raise RuntimeError(f"the loader ended epoch {epoch} at step {state.step - first} of {last - first}")
        state.speed.pause()

    def _log_step(self, rate: float) -> None:
        self.saver.check_losses()
        self.folder.require()
        self.log.step(step_entry(self.state, rate, batch=self.config.data.batch_size, device=self.here.device))

    def _save_or_stop(self, last_of_epoch: bool) -> None:
        """Between two steps: write a checkpoint that is due; save and stop if any process was told to."""
        stop, save = self.stopper.agree(self.saver.due_by_time(), last_of_epoch=last_of_epoch)
        if stop or save or self.saver.due_by_steps():
            self.saver.save()
        if stop:
            raise self.stopper.interrupted()

    def _end_epoch(self, epoch: int) -> None:
        """Log the epoch, evaluated every `eval_interval` epochs and at the end; keep the best weights."""
        self.saver.check_losses()
        state, done = self.state, epoch + 1
        entry: dict[str, Any] = {"step": state.step, "epoch": done, "train_loss": state.window.take_epoch_mean()}
        if done % self.config.run.eval_interval == 0 or done == self.config.run.epochs:
            entry |= self._evaluate()
        entry["time_s"] = round(state.time_s, 3)
        state.evaluated_epochs = done
        state.final = {key: value for key, value in entry.items() if key != "time_s"}
        decides = self.task.decides
        if decides.improves(entry.get(decides.key), None if state.best is None else state.best[decides.key]):
            state.best = state.final
            self.saver.save_best()
        self.log.epoch(entry)

    def _evaluate(self) -> dict[str, float | None]:
        self.log.show("evaluating")
        model, amp_dtype = self.step_fn.evaluated, autocast_dtype(self.config.precision)
        return self.task.entry(evaluate(model, self.data.val, self.task, device=self.here.device, amp_dtype=amp_dtype))

    def _open_log(self) -> SilentLog:
        self.log = SilentLog()
        self.here.on_main(self._open_run_log)
        return self.log

    def _open_run_log(self) -> None:
        run = self.config.run
        self.log = RunLog(
            self.folder.path,
            total_steps=self.state.total_steps,
            first_step=self.state.step,
            done_epochs=self.state.evaluated_epochs,
            metrics=self.task.metrics,
            trackers=chosen(run.trackers, run.tensorboard),
            config={path: value_at(self.config, path) for path in paths(self.config)},
            progress=run.progress,
            bar=bar_of(
                total_steps=self.state.total_steps,
                first_step=self.state.step,
                steps_per_epoch=self.state.steps_per_epoch,
                batch=self.config.data.batch_size,
                memory=lambda: memory_mib(self.here.device),
                stopping=self.stopper.told,
            ),
        )

    def _finish(self) -> dict[str, Any]:
        summary = summarize(self.config, self.state, self.model, self.here)
        if self.here.main:
            write_json(self.folder.path / "summary.json", summary)
            plot_curves(self.folder.path, self.config)
        self.here.barrier()
        return summary
