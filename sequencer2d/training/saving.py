"""When a run is saved, and what is written: checkpoints to go on from, and the best weights."""

import time
from typing import Any

from sequencer2d.errors import NumericalError
from sequencer2d.models import save_weights
from sequencer2d.training import checkpoint
from sequencer2d.training.config import RunConfig
from sequencer2d.training.distributed import Processes
from sequencer2d.training.folder import RunFolder
from sequencer2d.training.state import RunState
from sequencer2d.training.step import TrainStep
from sequencer2d.training.window import require_finite_weights


class Saver:
    """Writes a run's checkpoints and best weights; only the main process does, the others wait.

    Args:
        run: how often, and how many checkpoints stay.
        here: this process.
        folder: of the run.
        step: the model, its average, and the optimizer.
        state: where the run stands.
        meta: what the files say of the model.
        fingerprints: of the data, under `train` and `val`; used in the main process only.
    """

    def __init__(
        self,
        run: RunConfig,
        here: Processes,
        folder: RunFolder,
        step: TrainStep,
        state: RunState,
        *,
        meta: dict[str, Any],
        fingerprints: dict[str, Any],
    ) -> None:
        self._run, self._here, self._folder, self._step, self._state = run, here, folder, step, state
        self._meta, self._fingerprints = meta, fingerprints
        self._last = time.monotonic()

    def due_by_time(self) -> bool:
        """Whether `run.checkpoint_interval_s` has passed; only the main process's clock counts."""
        interval = self._run.checkpoint_interval_s
        return self._here.main and interval is not None and time.monotonic() - self._last >= interval

    def due_by_steps(self) -> bool:
        """Whether this step is a multiple of `run.checkpoint_interval_steps`."""
        interval = self._run.checkpoint_interval_steps
        return interval is not None and self._state.step % interval == 0

    def check_losses(self) -> None:
        """Read the losses so far. Raises `NumericalError` if one is not finite, naming the last good checkpoint."""
        try:
            self._state.window.drain(self._state.step)
        except NumericalError as error:
            raise NumericalError(
                f"{error}; {self._kept()}; lower optimizer.lr, set optimizer.clip_grad_norm, or use "
                "precision=bf16 or fp32 in place of fp16"
            ) from None

    def save(self) -> None:
        """Write a checkpoint. Raises `NumericalError` if losses or weights are not finite."""
        self.check_losses()
        require_finite_weights(self._step.model, self._state.step)
        self._here.on_main(self._write)
        self._last = time.monotonic()

    def save_best(self) -> None:
        """Write the weights that are evaluated as the run's best."""
        self._here.on_main(self._write_best)

    def _write(self) -> None:
        entries = {**self._step.state_dicts(), "meta": self._meta, "progress": self._state.progress(),
                   "data": self._fingerprints}  # fmt: skip
        self._folder.require()
        checkpoint.save_checkpoint(self._folder.path, self._state.step, entries, self._run.keep)

    def _write_best(self) -> None:
        self._folder.require()
        save_weights(self._step.evaluated, self._folder.path / "best.safetensors", self._meta)

    def _kept(self) -> str:
        kept = checkpoint.list_checkpoints(self._folder.path)
        return f"the last good checkpoint is {kept[-1]}" if kept else "there is no checkpoint before it"
