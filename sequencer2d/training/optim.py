"""Optimizer, learning-rate schedule and weight average."""

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from sequencer2d.errors import ConfigError, did_you_mean
from sequencer2d.training.config import OptimizerConfig, TrainConfig

Model = TypeVar("Model", bound=nn.Module)


def parameter_groups(
    model: nn.Module, weight_decay: float, no_decay: Sequence[str] = (), layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """The trainable parameters in two groups: with weight decay, and without; with `layer_decay` two for each layer.

    Without weight decay: parameters of at most one dimension (norms, biases), every name that ends in "bias" or, as
    torch's recurrent layers name them, "bias_…", and what `no_decay` and the method `no_weight_decay()` of timm's
    models name. The entry `lr_scale` of a group is the factor on its learning rate: layer_decay ** (layers behind it).

    Raises:
        ConfigError: the model has no parameter of a name in `no_decay`, or does not state its layers.
    """
    known = dict(model.named_parameters())
    for name in no_decay:
        if name not in known:
            raise ConfigError(
                f"optimizer.no_decay names {name}, but the model has no such parameter; {did_you_mean(name, known)}"
            )
    named: Callable[[], Iterable[str]] | None = getattr(model, "no_weight_decay", None)
    exempt = {*no_decay, *(named() if named else ())}
    depths = dict.fromkeys(known, 0) if layer_decay == 1 else layer_depths(model)
    last = max(depths.values())
    groups: dict[int, tuple[list[nn.Parameter], list[nn.Parameter]]] = {}
    for name, parameter in model.named_parameters():
        decayed, free = groups.setdefault(depths[name], ([], []))
        if not parameter.requires_grad:
            continue
        is_bias = name.rpartition(".")[2].startswith("bias")
        (free if parameter.ndim <= 1 or is_bias or name in exempt else decayed).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, **({} if layer_decay == 1 else {"lr_scale": scale})}
        for depth, (decayed, free) in sorted(groups.items())
        for scale in [layer_decay ** (last - depth)]
        for parameters, decay in ((decayed, weight_decay), (free, 0.0))
    ]


def layer_depths(model: nn.Module) -> dict[str, int]:
    """The number of each parameter's layer, from 0 for the stem; the classifier has the highest.

    Raises:
        ConfigError: the model does not state its layers, by timm's method `group_matcher`.
    """
    matcher: Callable[[], dict[str, Any]] | None = getattr(model, "group_matcher", None)
    if matcher is None:
        raise ConfigError(
            f"optimizer.layer_decay needs a model that states its layers, and {type(model).__name__} does not; set "
            "optimizer.layer_decay=1"
        )
    from timm.models import group_parameters

    return {name: int(depth) for name, depth in group_parameters(model, matcher(), reverse=True).items()}


def train_head_only(model: nn.Module) -> None:
    """Let the classifier alone be trained, in place; what stands before it also stays in evaluation mode.

    Raises:
        ConfigError: the model has no classifier, or does not say which one it is.
    """
    find: Callable[[], Any] | None = getattr(model, "get_classifier", None)
    head = find() if find else None
    if not isinstance(head, nn.Module) or not (trained := set(head.parameters())):
        raise ConfigError(
            f"model.train=head needs a model with a classifier, and {type(model).__name__} has none; "
            "set model.train=all"
        )
    for parameter in model.parameters():
        parameter.requires_grad_(parameter in trained)
    model.eval()
    head.train()


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over `parameter_groups`, as one fused kernel."""
    groups = parameter_groups(model, config.weight_decay, config.no_decay, config.layer_decay)
    if config.decay_all:
        groups = [{**group, "weight_decay": config.weight_decay} for group in groups]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def load_optimizer_state(optimizer: torch.optim.Optimizer, stored: Mapping[str, Any]) -> None:
    """Take over the averages of a saved `state_dict`; the hyperparameters stay those of the configuration.

    Raises:
        ValueError: it is not of AdamW on these parameters, or holds numbers that are not finite.
    """
    now = optimizer.state_dict()
    groups, state = stored.get("param_groups"), stored.get("state")
    if not isinstance(state, Mapping) or not _same_parameters(groups, now["param_groups"]):
        raise ValueError("the optimizer's groups of parameters are others")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, entries in state.items():
        if not isinstance(number, int) or not 0 <= number < len(parameters) or not isinstance(entries, Mapping):
            raise ValueError(f"the optimizer has no parameter {str(number)[:50]}")
        shape = parameters[number].shape
        for name, expected in (("exp_avg", shape), ("exp_avg_sq", shape), ("step", ())):
            tensor = entries.get(name)
            if not isinstance(tensor, Tensor) or tensor.shape != expected or not bool(tensor.isfinite().all()):
                raise ValueError(f"the optimizer's {name} of parameter {number} does not fit")
    optimizer.load_state_dict({"state": dict(state), "param_groups": now["param_groups"]})


def _same_parameters(stored: Any, now: list[dict[str, Any]]) -> bool:
    if not isinstance(stored, (list, tuple)) or len(stored) != len(now):
        return False
    return all(isinstance(a, Mapping) and a.get("params") == b["params"] for a, b in zip(stored, now, strict=True))


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of optimizer step `step` (from 0): a pure function, so that resuming needs no state.

    With t in epochs: warm-up rises linearly from `warmup_lr` at t = 0 to the peak at t = `warmup_epochs`; then
    min_lr + (peak − min_lr) · (1 + cos(π t / cosine_epochs)) / 2, where t is not shifted by the warm-up; then `min_lr`.
    With `milestones` the rate is peak · 0.1^(milestones that t has reached) instead of the cosine, and with
    `poly_power` min_lr + (peak − min_lr) · (1 − t / cosine_epochs)^poly_power.
    This is timm's CosineLRScheduler as the paper's runs use it (`update="epoch"`: t is the epoch's number).
    """
    schedule, peak, epochs = config.schedule, config.peak_lr, config.cosine_epochs
    t = step / steps_per_epoch if schedule.update == "step" else float(step // steps_per_epoch)
    if t < schedule.warmup_epochs:
        return schedule.warmup_lr + (peak - schedule.warmup_lr) * t / schedule.warmup_epochs
    if t < epochs and schedule.milestones:
        return float(peak * 0.1 ** sum(t >= milestone for milestone in schedule.milestones))
    if t < epochs and schedule.poly_power:
        return float(schedule.min_lr + (peak - schedule.min_lr) * (1 - t / epochs) ** schedule.poly_power)
    if t < epochs:
        return schedule.min_lr + 0.5 * (peak - schedule.min_lr) * (1 + math.cos(math.pi * t / epochs))
    return schedule.min_lr


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every parameter group, scaled to its layer where groups are of layers."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


class WeightAverage(Generic[Model]):
    """Exponential moving average of a model's parameters and buffers, kept in a copy of the model (`module`).

    The decay of update n (from 0) is min(decay, (1 + n) / (10 + n)), so that the first weights are soon forgotten.
    Tensors that are not floating-point (counters) are copied.
    """

    def __init__(self, model: Model, decay: float) -> None:
        self.decay = decay
        self.module: Model = copy.deepcopy(model).eval().requires_grad_(False)
        # Listed once: a walk over the modules at every step would cost the CPU more than the update.
        pairs = list(zip(_tensors(self.module), _tensors(model), strict=True))
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._others = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the model after optimizer step `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_([mean for mean, _ in self._floats], [now.detach() for _, now in self._floats], 1 - decay)
        for kept, current in self._others:
            kept.copy_(current)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def clip_gradients(parameters: Iterable[Tensor], largest_norm: float | None) -> Tensor | None:
    """Scale all gradients together to a norm of at most `largest_norm`; the norm before, a 0-d tensor, not synced."""
    if largest_norm is None:
        return None
    return torch.nn.utils.clip_grad_norm_(parameters, largest_norm)
