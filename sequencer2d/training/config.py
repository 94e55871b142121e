"""The configuration of one training run: frozen dataclasses, every field with its unit and its range.

Nothing here trains: recipes and the command line build a `TrainConfig` and hand it to `training.loop.train`.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from sequencer2d.choices import DeviceKind
from sequencer2d.data.config import DataConfig, require_pairs
from sequencer2d.errors import ConfigError
from sequencer2d.precisions import Precision
from sequencer2d.ranges import Checked, Range, Text
from sequencer2d.training.trackers import require

FP16_NEEDS_CUDA = "precision=fp16 needs a CUDA device; on the CPU use fp32 or bf16"
_GRAPH_MODES = ("reduce-overhead", "max-autotune")
CompileMode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs", "blocks", "whole"]

LearningRate = Annotated[float, Range(at_least=0, at_most=1000)]
Steps = Annotated[int, Range(at_least=1, at_most=1_000_000_000, unit="steps")]
Seconds = Annotated[float, Range(above=0, at_most=1_000_000_000, unit="seconds")]
Share = Annotated[float, Range(at_least=0, below=1)]


@dataclass(frozen=True)
class ModelSpec(Checked):
    """Which model to train, as `sequencer2d.create_model` takes it."""

    section: ClassVar[str] = "model."

    name: Annotated[str, Text(empty=False)] = "sequencer2d_s"
    num_classes: Annotated[int | None, Range(at_least=1, at_most=1_000_000)] = None
    """Outputs of the classifier; none: the number of classes of the data."""
    in_chans: Annotated[int, Range(at_least=3, at_most=3)] = 3
    """Channels of the input images, which are read as RGB."""
    train: Literal["all", "head"] = "all"
    """What is trained: all weights, or the classifier alone, on top of weights that stay as they are."""
    drop_path_rate: Share = 0.0
    """Stochastic depth of the last block, 0 to <1; it rises linearly with depth."""
    pretrained: bool = False
    """Start from the published weights of this model."""
    checkpoint: Annotated[str | None, Text(empty=False, path=True)] = None
    """Start from these weights: file, run folder or hub id. A different number of classes starts a new head."""
    decoder: str = ""
    """What a dense task puts on the model, such as fcos for detection; empty: the task's first choice."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Fields of the model's own configuration, e.g. {"patch_sizes": (1, 2, 1, 1)}."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "overrides", {key: _tuples(value) for key, value in self.overrides.items()})


@dataclass(frozen=True)
class OptimizerConfig(Checked):
    """AdamW. Weight decay leaves out norms, biases and every other one-dimensional parameter, unless `decay_all`."""

    section: ClassVar[str] = "optimizer."

    lr: Annotated[float, Range(above=0, at_most=1000)] = 5e-4
    """Highest learning rate; see `lr_reference_batch`."""
    lr_reference_batch: Annotated[int | None, Range(at_least=1, at_most=2**20, unit="images")] = 512
    """`lr` is for this many images per step and scales with the batch; none: `lr` is absolute."""
    weight_decay: Annotated[float, Range(at_least=0, at_most=1000)] = 0.05
    decay_all: bool = False
    """Norms and biases decay too, as in the runs of PVT and PoolFormer for segmentation and detection."""
    no_decay: tuple[str, ...] = ()
    """Names of more parameters that weight decay leaves out. In the paper's runs every parameter of two or more
    dimensions decays, `pos_embed.weight` included."""
    layer_decay: Annotated[float, Range(above=0, at_most=1)] = 1.0
    """Factor on the learning rate from each layer to the one before it: below 1, the first layers of trained weights
    change least. 1: one rate for all."""
    betas: Annotated[tuple[float, float], Range(at_least=0, below=1)] = (0.9, 0.999)
    eps: Annotated[float, Range(above=0, at_most=1)] = 1e-8
    accumulation: Annotated[int, Range(at_least=1, at_most=2**20)] = 1
    """Micro-batches per optimizer step; `data.batch_size` is split into them."""
    clip_grad_norm: Annotated[float | None, Range(above=0, at_most=1e9)] = None
    """Largest norm of the whole gradient; none: no clipping."""


@dataclass(frozen=True)
class ScheduleConfig(Checked):
    """Linear warm-up over the first epochs of a cosine, then a cool-down at the lowest rate: `run.epochs` in all."""

    section: ClassVar[str] = "schedule."

    warmup_epochs: Annotated[float, Range(at_least=0, at_most=1_000_000, unit="epochs")] = 0.0
    """Epochs of linear warm-up, taken from the cosine's first epochs."""
    warmup_lr: LearningRate = 1e-6
    """Learning rate of the first step of the warm-up (absolute)."""
    cooldown_epochs: Annotated[int, Range(at_least=0, at_most=1_000_000, unit="epochs")] = 0
    """The last epochs of the run, at `min_lr`; the cosine has the epochs before them."""
    min_lr: LearningRate = 1e-6
    """Learning rate at the end of the cosine (absolute)."""
    milestones: Annotated[tuple[float, ...], Range(above=0, at_most=1_000_000, unit="epochs")] = ()
    """Epochs after which the learning rate drops to a tenth, as for detection; it then stays, without a cosine."""
    poly_power: Annotated[float | None, Range(above=0, at_most=100)] = None
    """min_lr + (peak − min_lr) · (1 − t/T)^poly_power instead of the cosine, as for segmentation; none: the cosine."""
    update: Literal["step", "epoch"] = "epoch"
    """Change the learning rate at every step, or at the start of each epoch as the paper's runs."""


@dataclass(frozen=True)
class RegularizationConfig(Checked):
    """What the loop itself does against overfitting; augmentation and mixup stand in `data`."""

    section: ClassVar[str] = "regularization."

    label_smoothing: Share = 0.0
    """Share of the target that is spread over all classes, 0 to <1."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: an image's loss is divided by the share of its class, so that each class counts the same in training,
    however many images it has. Evaluations are not weighted."""
    ema_decay: Share | None = None
    """Decay per step of the averaged weights, which are evaluated and kept as best; none: no average."""


@dataclass(frozen=True)
class DistributedConfig(Checked):
    """Processes; how many is torchrun's matter (`torchrun --nproc-per-node N -m sequencer2d train …`)."""

    section: ClassVar[str] = "distributed."

    backend: Literal["auto", "gloo", "nccl"] = "auto"
    """auto: nccl on CUDA, gloo on the CPU."""
    sync_batch_norm: bool = False
    """On GPUs, batch norms take mean and variance over the images of all processes, as mmsegmentation's do."""
    timeout_s: Annotated[int, Range(at_least=1, at_most=30 * 86400, unit="seconds")] = 600
    """Seconds that a process waits for the others before it fails."""


@dataclass(frozen=True)
class RunConfig(Checked):
    """Where, how long and on what to run; what to log and to keep."""

    section: ClassVar[str] = "run."

    output: Annotated[str, Text(empty=False, path=True)] = "runs/train"
    """The run's folder."""
    epochs: Annotated[int, Range(at_least=1, at_most=1_000_000, unit="epochs")] = 300
    """Epochs of the run, warm-up and cool-down included."""
    seed: Annotated[int, Range(at_least=0, at_most=2**63 - 1)] = 0
    device: DeviceKind = "auto"
    """auto: CUDA if there is a GPU."""
    resume: bool | Literal["auto"] = False
    """true: go on with the run in the folder, from its last checkpoint or, if it has none yet, from its beginning.
    auto: go on if the folder holds a run, else start one. false: start one in a folder that holds none."""
    time_limit_s: Seconds | None = None
    """Stop, saved, after this many seconds; none: no limit. It is the limit of one call: resuming does not keep it."""
    max_steps: Steps | None = None
    """Stop, saved, once this many steps of the run are done; none: all of them. Resuming does not keep it."""
    log_interval: Steps = 50
    """Steps per line of the log, at most: where an epoch has fewer, each epoch's last step is logged."""
    eval_interval: Annotated[int, Range(at_least=1, at_most=1_000_000, unit="epochs")] = 1
    """Epochs between evaluations; the last epoch is always evaluated."""
    checkpoint_interval_s: Seconds | None = 600.0
    """Seconds between checkpoints; none: not by time."""
    checkpoint_interval_steps: Steps | None = None
    """Steps between checkpoints; none: not by steps."""
    keep: Annotated[int, Range(at_least=1, at_most=10_000)] = 2
    """How many of the newest checkpoints stay."""
    compile: bool | CompileMode = False
    """torch.compile: false, true, its mode, "blocks" or "whole". "reduce-overhead" replays CUDA graphs: for steps so
    short that the GPU waits for launches; on a CPU, which has none, it compiles nothing. "blocks"
    compiles each kind of block of a Sequencer2D once: it starts sooner, and sizes that change do not stop it.
    "whole", which is what true means, compiles the whole model."""
    memory_budget: Annotated[float, Range(above=0, at_most=1)] = 1.0
    """Share of the activations that the compiled model keeps for backward, above 0; it computes the others again, those
    first that cost least. 1 keeps everything that backward needs; below 1 needs `compile`."""
    channels_last: bool = False
    """Images in channels-last memory format; the model is NHWC inside in any case."""
    tf32: bool = True
    """Let CUDA multiply fp32 matrices, and cuDNN compute in fp32, in TF32."""
    cudnn_benchmark: bool = True
    """Let cuDNN time its convolutions and take the fastest."""
    cpu_threads: Annotated[int | None, Range(at_least=1, at_most=1024)] = None
    """Threads of torch on the CPU; none: torch's choice."""
    tensorboard: bool = True
    """Write TensorBoard files, if tensorboard is installed."""
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Programs that get the log as well, through their own clients, which must be installed; several with commas."""
    mistakes: bool = False
    """After the last epoch the command line writes `mistakes.csv` and `mistakes.png` into the run's folder: the
    validation images that the best weights classify wrongly. For classifiers of image files."""
    progress: Literal["auto", "bar", "lines", "none"] = "auto"
    """auto: a bar on a terminal, else plain lines."""


@dataclass(frozen=True)
class TrainConfig(Checked):
    """One complete training run."""

    model: ModelSpec = field(default_factory=ModelSpec)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    regularization: RegularizationConfig = field(default_factory=RegularizationConfig)
    precision: Precision = "fp32"
    """Arithmetic of the forward pass; parameters are fp32. fp16, the paper's, needs a GPU and uses a gradient scaler,
    which leaves out steps that overflow; bf16 has fp32's range and needs none."""
    task: Annotated[str, Text(empty=False)] = "classification"
    """What the model learns; a row of `sequencer2d.tasks.TASKS`."""
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    run: RunConfig = field(default_factory=RunConfig)

    @property
    def cosine_epochs(self) -> int:
        """Epochs of the cosine, warm-up included: those before the cool-down."""
        return self.run.epochs - self.schedule.cooldown_epochs

    @property
    def peak_lr(self) -> float:
        """The highest learning rate, scaled to the batch."""
        reference = self.optimizer.lr_reference_batch
        return self.optimizer.lr * (self.data.batch_size / reference if reference else 1.0)


def validate(config: TrainConfig, world_size: int = 1) -> None:
    """Check what no field can check alone: contradictions, the batch against the processes. Raises `ConfigError`."""
    _check_task(config)
    _check_schedule(config)
    _require(
        not (config.model.pretrained and config.model.checkpoint),
        "model.pretrained and model.checkpoint both name the first weights: give one of them",
    )
    _require(
        config.run.compile not in _GRAPH_MODES or config.optimizer.accumulation == 1,
        f"run.compile={config.run.compile} captures CUDA graphs, which overwrite the gradients that "
        f"optimizer.accumulation={config.optimizer.accumulation} adds up: set run.compile=true, or no accumulation",
    )
    _require(
        config.model.train == "all" or bool(config.model.pretrained or config.model.checkpoint),
        "model.train=head trains a classifier on weights that are there already: name them with model.checkpoint, or "
        "set model.pretrained=true",
    )
    budget = config.run.memory_budget
    _require(
        budget == 1 or bool(config.run.compile),
        f"run.memory_budget={budget} is for the compiler, which decides what to compute again: set run.compile=true, "
        "or leave the budget at 1",
    )
    on_cpu = config.run.device == "cpu"
    _require(
        not (on_cpu and config.precision == "fp16"),
        FP16_NEEDS_CUDA,
    )
    _require(
        not (on_cpu and config.distributed.backend == "nccl"),
        "distributed.backend=nccl needs CUDA devices; use gloo or auto on the CPU",
    )
    require(config.run.trackers)
    _check_batch(config.data.batch_size, world_size, config.optimizer.accumulation)
    if config.data.mixes:
        require_pairs(config.data.batch_size // world_size)


def _check_task(config: TrainConfig) -> None:
    # These modules import torch, and recipes are listed without it.
    from sequencer2d import tasks
    from sequencer2d.data.samples import CLASS_NUMBERS

    if tasks.get(config.task).samples is CLASS_NUMBERS:
        return
    for name, wrong, instead in (
        ("mixup and cutmix", config.data.mixes, "data.mixup=0 data.cutmix=0"),
        ("data.batch_policy", config.data.batch_policy, "data.batch_policy="),
        ("data.resampler=torch", config.data.resampler != "pillow", "data.resampler=pillow"),
        ("data.val_fraction", config.data.val_fraction, "data.val_fraction=0"),
        ("run.mistakes", config.run.mistakes, "run.mistakes=false"),
        ("class weights", config.regularization.class_weights != "none", "regularization.class_weights=none"),
        (f"data.augment_on={config.data.augment_on}", config.data.augment_on != "workers", "data.augment_on=workers"),
    ):
        _require(not wrong, f"{name} is for images of one class each, not for task={config.task}: set {instead}")


def _check_schedule(config: TrainConfig) -> None:
    schedule, epochs = config.schedule, config.run.epochs
    warmup, cooldown = schedule.warmup_epochs, schedule.cooldown_epochs
    _require(
        cooldown < epochs,
        f"schedule.cooldown_epochs={cooldown} must be below run.epochs={epochs}, which counts every epoch of the run; "
        "shorten the cool-down, or train for longer",
    )
    _require(
        warmup <= epochs - cooldown,
        f"schedule.warmup_epochs={warmup:g} is longer than the {epochs - cooldown} epochs before the cool-down "
        f"(run.epochs={epochs}, schedule.cooldown_epochs={cooldown}); shorten the warm-up, or train for longer",
    )
    drops = schedule.milestones
    _require(
        not (drops and schedule.poly_power),
        "schedule.milestones and schedule.poly_power both say how the learning rate falls: give one of them",
    )
    _require(
        list(drops) == sorted(set(drops)) and all(warmup < drop < epochs - cooldown for drop in drops),
        f"schedule.milestones={','.join(f'{drop:g}' for drop in drops)} must ascend and lie after the warm-up "
        f"({warmup:g} epochs) and before the cool-down or the end (epoch {epochs - cooldown})",
    )
    for name, rate in (("min_lr", schedule.min_lr), ("warmup_lr", schedule.warmup_lr if warmup else 0.0)):
        _require(
            rate <= config.peak_lr,
            f"schedule.{name}={rate:g} is above the highest learning rate, {config.peak_lr:g} (optimizer.lr for this "
            f"data.batch_size); lower schedule.{name}",
        )


def _check_batch(batch: int, world_size: int, accumulation: int) -> None:
    parts = world_size * accumulation
    lower, upper = batch // parts * parts, -(-batch // parts) * parts
    choices = f"{lower} or {upper}" if lower else str(upper)
    _require(
        batch % parts == 0,
        f"data.batch_size ({batch}) is the batch of one optimizer step and must be a multiple of processes × "
        f"optimizer.accumulation = {world_size} × {accumulation} = {parts}; take {choices}",
    )


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _tuples(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_tuples(item) for item in value)
    return value
