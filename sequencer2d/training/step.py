"""One optimizer step, free of waits: nothing in it makes the CPU wait for the GPU."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sequencer2d import tasks
from sequencer2d.data.batches import BatchTransform
from sequencer2d.data.samples import split
from sequencer2d.precisions import autocast_dtype
from sequencer2d.seeds import seed_step
from sequencer2d.training.config import TrainConfig
from sequencer2d.training.optim import WeightAverage, clip_gradients, set_learning_rate


class TrainStep:
    """Forward, backward and update for one batch, in `optimizer.accumulation` micro-batches.

    `model` is the trained module, `wrapped` the same one as called (DDP around it, or itself). `prepare` mixes,
    normalizes and erases a batch on its device.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: nn.Module,
        wrapped: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        average: WeightAverage[nn.Module] | None,
        prepare: BatchTransform,
        device: torch.device,
        rank: int,
        class_weights: Tensor | None = None,
    ) -> None:
        self.config, self.device, self.rank = config, device, rank
        loss: Callable[..., Tensor] = tasks.get(config.task).loss
        self._task_loss = loss if class_weights is None else functools.partial(loss, class_weights=class_weights)
        self.model, self.wrapped = model, wrapped
        self.optimizer, self.scaler, self.average, self.prepare = optimizer, scaler, average, prepare
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    @property
    def evaluated(self) -> nn.Module:
        """What is evaluated and kept as best: the averaged weights, if there is an average."""
        return self.model if self.average is None else self.average.module

    def state_dicts(self) -> dict[str, Any]:
        """The entries of a checkpoint that hold weights and states, as `checkpoint` names them."""
        average = {} if self.average is None else {"model_ema": self.average.module.state_dict()}
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            **average,
        }

    def __call__(self, images: Tensor, targets: Any, step: int, lr: float) -> tuple[Tensor, Tensor | None]:
        """Train on images uint8 (B, 3, H, W) and the task's targets, all on `device`.

        Returns this process's loss and the gradient's norm before clipping (None without clipping), 0-d on `device`.
        """
        seed_step(self.config.run.seed, step, self.rank)
        set_learning_rate(self.optimizer, lr)
        images, targets = self.prepare(images, targets, step=step)
        layout = torch.channels_last if self.config.run.channels_last else torch.contiguous_format
        images = images.contiguous(memory_format=layout)
        loss = self._accumulate(images, targets)
        if self.config.optimizer.clip_grad_norm is not None:
            self.scaler.unscale_(self.optimizer)
        norm = clip_gradients(self._parameters, self.config.optimizer.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(step)
        return loss, norm

    def _accumulate(self, images: Tensor, targets: Any) -> Tensor:
        """Gradients of the mean loss over the batch; returns that loss."""
        parts = self.config.optimizer.accumulation
        smoothing = self.config.regularization.label_smoothing
        total = torch.zeros((), device=self.device)
        chunks = zip(images.chunk(parts), split(targets, parts), strict=True)
        for index, (part_images, part_targets) in enumerate(chunks):
            with self._synchronized(index == parts - 1):
                loss = self._task_loss(self._forward, part_images, part_targets, smoothing) / parts
                self.scaler.scale(loss).backward()
            total += loss.detach()
        return total

    def _forward(self, *arguments: Any) -> Any:
        """The model's outputs, computed in the run's precision."""
        dtype = autocast_dtype(self.config.precision)
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            return self.wrapped(*arguments)

    def _synchronized(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Average gradients over the processes with the last micro-batch only."""
        if last or not isinstance(self.wrapped, nn.parallel.DistributedDataParallel):
            return contextlib.nullcontext()
        return self.wrapped.no_sync()  # type: ignore[no-any-return]
