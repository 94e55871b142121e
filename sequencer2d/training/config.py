"""The configuration of one training run: frozen dataclasses, every field with its unit.

Nothing here trains: recipes and the command line build a `TrainConfig` and hand it to `training.loop.train`.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from sequencer2d.data.config import DataConfig
from sequencer2d.errors import ConfigError

_GRAPH_MODES = ("reduce-overhead", "max-autotune")
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


@dataclass(frozen=True)
class ModelSpec:
    """Which model to train, as `sequencer2d.create_model` takes it."""

    name: str = "sequencer2d_s"
    num_classes: int | None = None
    """Outputs of the classifier; none: the number of classes of the data."""
    in_chans: int = 3
    """Channels of the input images."""
    drop_path_rate: float = 0.0
    """Stochastic depth of the last block, 0 to <1; it rises linearly with depth."""
    pretrained: bool = False
    """Start from the published weights of this model."""
    checkpoint: str | None = None
    """Start from these weights: file, run folder or hub id. A different number of classes starts a new head."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Fields of the model's own configuration, e.g. {"patch_sizes": (1, 2, 1, 1)}."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "overrides", {key: _tuples(value) for key, value in self.overrides.items()})


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW. Weight decay leaves out norms, biases and every other one-dimensional parameter."""

    lr: float = 5e-4
    """Highest learning rate; see `lr_reference_batch`."""
    lr_reference_batch: int | None = 512
    """`lr` is for this many images per step and scales with the batch; none: `lr` is absolute."""
    weight_decay: float = 0.05
    no_decay: tuple[str, ...] = ()
    """Names of more parameters that weight decay leaves out. In the paper's runs every parameter of two or more
    dimensions decays, `pos_embed.weight` included."""
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    accumulation: int = 1
    """Micro-batches per optimizer step; `data.batch_size` is split into them."""
    clip_grad_norm: float | None = None
    """Largest norm of the whole gradient; none: no clipping."""


@dataclass(frozen=True)
class ScheduleConfig:
    """Linear warm-up over the first epochs of a cosine of `run.epochs` epochs, then a cool-down at the lowest rate."""

    warmup_epochs: float = 0.0
    """Epochs of linear warm-up, taken from the cosine's first epochs."""
    warmup_lr: float = 1e-6
    """Learning rate of the first step of the warm-up (absolute)."""
    cooldown_epochs: int = 0
    """Epochs at `min_lr` after the cosine, in addition to `run.epochs`."""
    min_lr: float = 1e-6
    """Learning rate at the end of the cosine (absolute)."""
    update: Literal["step", "epoch"] = "epoch"
    """Change the learning rate at every step, or at the start of each epoch as the paper's runs."""


@dataclass(frozen=True)
class RegularizationConfig:
    """What the loop itself does against overfitting; augmentation and mixup stand in `data`."""

    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes, 0 to <1."""
    ema_decay: float | None = None
    """Decay per step of the averaged weights, which are evaluated and kept as best; none: no average."""


@dataclass(frozen=True)
class DistributedConfig:
    """Processes; how many is torchrun's matter (`torchrun --nproc-per-node N -m sequencer2d train …`)."""

    backend: Literal["auto", "gloo", "nccl"] = "auto"
    """auto: nccl on CUDA, gloo on the CPU."""
    timeout_s: int = 600
    """Seconds that a process waits for the others before it fails."""


@dataclass(frozen=True)
class RunConfig:
    """Where, how long and on what to run; what to log and to keep."""

    output: str = "runs/train"
    """The run's folder."""
    epochs: int = 300
    """Epochs of the schedule; `schedule.cooldown_epochs` come on top."""
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: CUDA if there is a GPU."""
    resume: bool = False
    """Continue from the folder's last checkpoint; start at the beginning if there is none yet."""
    time_limit_s: float | None = None
    """Stop, saved, after this many seconds in this call; none: no limit."""
    max_steps: int | None = None
    """Stop, saved, once this many steps of the schedule are done; none: all of them."""
    log_interval: int = 50
    """Steps per line of the log."""
    eval_interval: int = 1
    """Epochs between evaluations; the last epoch is always evaluated."""
    checkpoint_interval_s: float | None = 600.0
    """Seconds between checkpoints; none: not by time."""
    checkpoint_interval_steps: int | None = None
    """Steps between checkpoints; none: not by steps."""
    keep: int = 2
    """How many of the newest checkpoints stay."""
    compile: bool | str = False
    """torch.compile: false, true, or its mode (`COMPILE_MODES`). "reduce-overhead" replays CUDA graphs: for steps so
    short that the GPU waits for launches."""
    memory_budget: float = 1.0
    """Share of the activations that the compiled model keeps for backward, above 0; it computes the others again, those
    first that cost least. 1 keeps everything that backward needs; below 1 needs `compile`."""
    channels_last: bool = False
    """Images in channels-last memory format; the model is NHWC inside in any case."""
    tf32: bool = True
    """Let CUDA multiply fp32 matrices in TF32."""
    cudnn_benchmark: bool = True
    """Let cuDNN time its convolutions and take the fastest."""
    cpu_threads: int | None = None
    """Threads of torch on the CPU; none: torch's choice."""
    tensorboard: bool = True
    """Write TensorBoard files, if tensorboard is installed."""
    progress: Literal["auto", "bar", "lines", "none"] = "auto"
    """auto: a bar on a terminal, else plain lines."""


@dataclass(frozen=True)
class TrainConfig:
    """One complete training run."""

    model: ModelSpec = field(default_factory=ModelSpec)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    regularization: RegularizationConfig = field(default_factory=RegularizationConfig)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the forward pass; parameters are fp32. fp16 uses a gradient scaler."""
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    run: RunConfig = field(default_factory=RunConfig)

    @property
    def total_epochs(self) -> int:
        """Epochs of the whole run, cool-down included."""
        return self.run.epochs + self.schedule.cooldown_epochs

    @property
    def peak_lr(self) -> float:
        """The highest learning rate, scaled to the batch."""
        reference = self.optimizer.lr_reference_batch
        return self.optimizer.lr * (self.data.batch_size / reference if reference else 1.0)


def validate(config: TrainConfig, world_size: int = 1) -> None:
    """Check every field that has a range, and the batch against the processes. Raises `ConfigError`."""
    for path, lowest, open_below in _LOWEST:
        _check_lowest(config, path, lowest, open_below)
    for path in ("model.drop_path_rate", "regularization.label_smoothing", "regularization.ema_decay"):
        value = _get(config, path)
        _require(value is None or 0 <= value < 1, f"{path} must be at least 0 and below 1, got {value}")
    _require(
        all(0 <= beta < 1 for beta in config.optimizer.betas),
        f"optimizer.betas must be at least 0 and below 1, got {config.optimizer.betas}",
    )
    _require(
        not (config.model.pretrained and config.model.checkpoint),
        "model.pretrained and model.checkpoint both name the first weights: give one of them",
    )
    _require(
        isinstance(config.run.compile, bool) or config.run.compile in COMPILE_MODES,
        f"run.compile must be true, false or one of {', '.join(COMPILE_MODES)}, got {config.run.compile!r}",
    )
    _require(
        config.run.compile not in _GRAPH_MODES or config.optimizer.accumulation == 1,
        f"run.compile={config.run.compile} captures CUDA graphs, which overwrite the gradients that "
        f"optimizer.accumulation={config.optimizer.accumulation} adds up: set run.compile=true, or no accumulation",
    )
    budget = config.run.memory_budget
    _require(0 < budget <= 1, f"run.memory_budget must be above 0 and at most 1, got {budget}")
    _require(
        budget == 1 or bool(config.run.compile),
        f"run.memory_budget={budget} is for the compiler, which decides what to compute again: set run.compile=true, "
        "or leave the budget at 1",
    )
    _require(
        config.model.in_chans == 3,
        f"model.in_chans must be 3, got {config.model.in_chans}: images are read as RGB (grey ones are converted)",
    )
    _check_batch(config.data.batch_size, world_size, config.optimizer.accumulation)


_LOWEST: tuple[tuple[str, float, bool], ...] = (
    ("optimizer.lr", 0, True),
    ("optimizer.lr_reference_batch", 1, False),
    ("optimizer.weight_decay", 0, False),
    ("optimizer.eps", 0, True),
    ("optimizer.accumulation", 1, False),
    ("optimizer.clip_grad_norm", 0, True),
    ("schedule.warmup_epochs", 0, False),
    ("schedule.warmup_lr", 0, False),
    ("schedule.cooldown_epochs", 0, False),
    ("schedule.min_lr", 0, False),
    ("data.batch_size", 1, False),
    ("distributed.timeout_s", 1, False),
    ("run.epochs", 1, False),
    ("run.seed", 0, False),
    ("run.time_limit_s", 0, True),
    ("run.max_steps", 1, False),
    ("run.log_interval", 1, False),
    ("run.eval_interval", 1, False),
    ("run.checkpoint_interval_s", 0, True),
    ("run.checkpoint_interval_steps", 1, False),
    ("run.keep", 1, False),
    ("run.cpu_threads", 1, False),
)


def _check_lowest(config: TrainConfig, path: str, lowest: float, open_below: bool) -> None:
    value = _get(config, path)
    fits = value is None or (value > lowest if open_below else value >= lowest)
    _require(fits, f"{path} must be {'above' if open_below else 'at least'} {lowest:g}, got {value}")


def _check_batch(batch: int, world_size: int, accumulation: int) -> None:
    parts = world_size * accumulation
    lower, upper = batch // parts * parts, -(-batch // parts) * parts
    choices = f"{lower} or {upper}" if lower else str(upper)
    _require(
        batch % parts == 0,
        f"data.batch_size ({batch}) is the batch of one optimizer step and must be a multiple of processes × "
        f"optimizer.accumulation = {world_size} × {accumulation} = {parts}; take {choices}",
    )


def _get(config: Any, path: str) -> Any:
    for name in path.split("."):
        config = getattr(config, name)
    return config


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _tuples(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_tuples(item) for item in value)
    return value
