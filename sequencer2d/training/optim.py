"""Optimizer, learning-rate schedule and weight average."""

import copy
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sequencer2d.training.config import OptimizerConfig, TrainConfig


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trainable parameters in two groups: with decay, and without.

    Without decay: parameters of at most one dimension (norms, biases), every name that ends in "bias" or, as torch's
    recurrent layers name them, "bias_…", and what `model.no_weight_decay()` names.
    """
    exempt = set(model.no_weight_decay()) if hasattr(model, "no_weight_decay") else set()
    decayed, free = [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_bias = name.rpartition(".")[2].startswith("bias")
        (free if parameter.ndim <= 1 or is_bias or name in exempt else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def build_optimizer(model: nn.Module, config: OptimizerConfig, device: torch.device) -> torch.optim.AdamW:
    """AdamW over `parameter_groups`; one fused kernel on CUDA."""
    fused = device.type == "cuda"
    return torch.optim.AdamW(
        parameter_groups(model, config.weight_decay), lr=config.lr, betas=config.betas, eps=config.eps, fused=fused)


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of optimizer step `step` (from 0): a pure function, so that resuming needs no state.

    With t in epochs: warm-up rises linearly from `warmup_lr` at t = 0 to the peak at t = `warmup_epochs`; then
    min_lr + (peak − min_lr) · (1 + cos(π t / epochs)) / 2, where t is not shifted by the warm-up; then `min_lr`.
    This is timm's CosineLRScheduler as the paper's runs use it (`update="epoch"`: t is the epoch's number).
    """
    schedule, peak, epochs = config.schedule, config.peak_lr, config.run.epochs
    t = step / steps_per_epoch if schedule.update == "step" else float(step // steps_per_epoch)
    if t < schedule.warmup_epochs:
        return schedule.warmup_lr + (peak - schedule.warmup_lr) * t / schedule.warmup_epochs
    if t < epochs:
        return schedule.min_lr + 0.5 * (peak - schedule.min_lr) * (1 + math.cos(math.pi * t / epochs))
    return schedule.min_lr


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


class WeightAverage:
    """Exponential moving average of a model's parameters and buffers, kept in a copy of the model (`module`).

    The decay of update n (from 0) is min(decay, (1 + n) / (10 + n)), so that the first weights are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.module = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards `model` after optimizer step `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        average, source = _floats(self.module.state_dict()), _floats(model.state_dict())
        torch._foreach_lerp_(average, source, 1 - decay)
        for kept, current in zip(self.module.buffers(), model.buffers(), strict=True):
            if not kept.is_floating_point():
                kept.copy_(current)


def _floats(state: dict[str, Tensor]) -> list[Tensor]:
    return [value for value in state.values() if value.is_floating_point()]


def clip_gradients(parameters: Iterable[Tensor], largest_norm: float | None) -> Tensor | None:
    """Scale all gradients together to a norm of at most `largest_norm`; the norm before, a 0-d tensor, not synced."""
    if largest_norm is None:
        return None
    return torch.nn.utils.clip_grad_norm_(parameters, largest_norm)
