"""A configuration for one's own photos, derived from the images, the first weights and the machine.

The command line finds the facts. `plan` turns them into a configuration with a reason for each value; it reads and
measures nothing itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sequencer2d.errors import counted
from sequencer2d.training.config import TrainConfig
from sequencer2d.training.fields import show_value, value_at, with_overrides

SMALL, SMALL_MODEL = 96, "sequencer2d_n_p4"
"""Pixels, and the model that is trained from random weights on images up to this size."""
SCRATCH_SIZES = (224, 160, 112, 64, 32)
UNEQUAL = 1.5
"""Images of the largest class per image of the smallest one, from which on the classes are weighted."""
CACHE_BYTES = 2**30


class Way(NamedTuple):
    """How a kind of start is trained."""

    epochs: int
    """Epochs that help; fewer where the time does not suffice."""
    lr: float
    layer_decay: float
    crop: float
    """Least share of an image's area that a training crop takes."""
    mixup: float
    drop_path: float
    why: str


WAYS = {
    "scratch": Way(120, 2e-3, 1.0, 0.35, 0.2, 0.1, "random weights need many epochs and a high rate"),
    "finetune": Way(30, 3e-4, 0.8, 0.35, 0.0, 0.1, "trained weights need few epochs"),
    "head": Way(40, 3e-3, 1.0, 0.5, 0.0, 0.0, "the classifier alone, on weights that stay as they are"),
}


@dataclass(frozen=True)
class Photos:
    """What is known of the images.

    Attributes:
        source: the folder.
        splits: `data.train_split` and `data.val_split` that it has; val is None where there is nothing to validate on.
        counts: training images of each class, before any are held out.
        side: median of the images' shorter sides, in pixels.
        pixels: median of the images' numbers of pixels.
    """

    source: str
    splits: tuple[str, str | None]
    counts: tuple[int, ...]
    side: int
    pixels: int


@dataclass(frozen=True)
class Start:
    """The weights that training starts from.

    Attributes:
        kind: a row of `WAYS`.
        name: of the model.
        fields: of `model.` and `data.`, by their paths: first weights, size, mean, std.
        said: the weights in words.
    """

    kind: str
    name: str
    said: str
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Machine:
    """Where it trains.

    Attributes:
        device: "cpu" or "cuda".
        cores: CPU cores that this process may use.
        busy: whether other programs use them as well. Threads that wait for each other are then slow, so that fewer
            threads are tried too.
    """

    device: str
    cores: int
    busy: bool = False


class Choice(NamedTuple):
    """A field of the plan, with the reason for its value."""

    path: str
    why: str


@dataclass(frozen=True)
class Plan:
    """A configuration and the reasons for what was chosen."""

    config: TrainConfig
    choices: tuple[Choice, ...]

    def rows(self) -> list[tuple[str, str, str]]:
        """(field, value, reason) of each choice."""
        return [(path, show_value(value_at(self.config, path)), why) for path, why in self.choices]


Speed = Callable[[TrainConfig], tuple[TrainConfig, float]]
"""A configuration → the same with a batch that fits, and the images/s that it trains at."""


def plan(
    photos: Photos,
    start: Start,
    machine: Machine,
    speed: Speed,
    *,
    minutes: float,
    output: str,
    fields: dict[str, Any] | None = None,
) -> Plan:
    """Derive a configuration.

    Args:
        photos: the images.
        start: the first weights.
        machine: where it trains.
        speed: measures a configuration here; called for each size and precision that is considered.
        minutes: that training may take.
        output: the run's folder.
        fields: what the user set, by path. It has precedence and is taken into account by what is derived after it.

    Raises:
        ConfigError: fields that contradict each other.
    """
    maker = _Maker(photos, start, machine, WAYS[start.kind], dict(fields or {}))
    maker.data()
    maker.model()
    maker.loader()
    rate = maker.size_and_precision(speed, 60 * minutes)
    maker.schedule(rate, 60 * minutes)
    maker.put("run.output", output, "the first new folder of this name")
    return Plan(maker.config, tuple(maker.choices))


class _Maker:
    """Sets one field after the other, with its reason, except those that the user set."""

    def __init__(self, photos: Photos, start: Start, machine: Machine, way: Way, fields: dict[str, Any]) -> None:
        self.photos, self.start, self.machine, self.way, self.fields = photos, start, machine, way, fields
        self.choices: list[Choice] = []
        self.config = with_overrides(TrainConfig(), {"run.device": machine.device, "model.name": start.name, **fields})

    def put(self, path: str, value: Any, why: str) -> None:
        """Set a field unless the user did."""
        if path in self.fields:
            why = "you set it"
        else:
            self.config = with_overrides(self.config, {path: value})
        self.choices = [choice for choice in self.choices if choice.path != path] + [Choice(path, why)]

    def data(self) -> None:
        train, val = self.photos.splits
        self.put(
            "data.source",
            self.photos.source,
            f"{counted(sum(self.photos.counts), 'image')}, {counted(len(self.photos.counts), 'class', 'classes')}",
        )
        self.put(
            "data.train_split", train, "the folder's own split" if train else "the classes stand in the folder itself"
        )
        if val is not None:
            self.put("data.val_split", val, "the folder's own split")
            return
        # One step: the field val_fraction alone would contradict a split of the same name.
        self.put("data.val_split", "held-out" if train == "val" else "val", "the name of what is held out")
        self.put("data.val_fraction", 0.2, "the folder has no split to validate on: a fifth of each class is held out")

    def model(self) -> None:
        way, counts = self.way, self.photos.counts
        self.put("model.name", self.start.name, self.start.said)
        for path, value in self.start.fields.items():
            self.put(path, value, "as the first weights need it")
        self.put(
            "model.drop_path_rate", way.drop_path, "stochastic depth against overfitting" if way.drop_path else way.why
        )
        if self.start.kind == "head":
            self.put("model.train", "head", way.why)
        smallest, largest = min(counts), max(counts)
        if largest > UNEQUAL * smallest:
            why = f"the classes have {smallest:,} to {largest:,} images: each counts the same in training"
            self.put("regularization.class_weights", "balanced", why)
        self.put("regularization.label_smoothing", 0.1, "few images: certainty is not rewarded")
        self.put("data.crop_scale", (way.crop, 1.0), "crops that still show what a photo is of")
        self.put("data.auto_augment", "rand-m7-mstd0.5-inc1", "RandAugment, weaker than the paper's")
        self.put("data.mixup", way.mixup, "a little of it" if way.mixup else "trained weights do without")
        self.put("data.cutmix", 0.0, "not with few epochs")
        self.put("data.erasing", 0.1, "weaker than the paper's")

    def loader(self) -> None:
        batch = 1 << max(3, min(6, (max(1, self.trained // 8)).bit_length() - 1))
        batch = min(batch, max(2, self.trained // 2 * 2))
        self.put("data.batch_size", batch, f"at least 8 steps an epoch of {self.trained:,} images, 64 images at most")
        workers = (
            min(8, max(1, self.machine.cores // 2)) if self.machine.device == "cpu" else min(16, self.machine.cores)
        )
        self.put("data.workers", workers, f"{counted(self.machine.cores, 'core')}, shared with training")
        size = 3 * self.photos.pixels * sum(self.photos.counts)
        if size <= CACHE_BYTES:
            self.put("data.cache", True, f"all images decoded take {size / 2**20:,.0f} MiB")

    @property
    def trained(self) -> int:
        """Images that are trained on, about."""
        return round(sum(self.photos.counts) * (1 - self.config.data.val_fraction))

    def size_and_precision(self, speed: Speed, seconds: float) -> float:
        """Choose both by what the machine does in the time; images/s."""
        sizes = [self.config.data.size[0]]
        if self.start.kind == "scratch" and "data.image_size" not in self.fields:
            sizes = [size for size in SCRATCH_SIZES if size <= max(self.photos.side, SCRATCH_SIZES[-1])]
        for size in sizes:
            if self.start.kind == "scratch":
                self._size(size, last=size == sizes[-1])
            if self.machine.device == "cpu" and size == sizes[0]:
                self._threads(speed)
            rate = self._precision(speed)
            if self._epochs(rate, seconds) >= self.way.epochs:
                break
        return rate

    def _size(self, size: int, *, last: bool) -> None:
        limit = "the smallest that is considered" if last and size != SCRATCH_SIZES[0] else "the time suffices for it"
        self.put("data.image_size", size, f"photos of {self.photos.side} pixels; {limit}")
        self.put("data.crop_pct", 1.0, "photos show what matters up to their edges")
        if size <= SMALL:
            self.put("model.name", SMALL_MODEL, f"{self.start.said}, for images of {SMALL} pixels at most")

    def _precision(self, speed: Speed) -> float:
        tried = ["bf16"] if self.machine.device == "cuda" else ["fp32", "bf16"]
        if "precision" in self.fields:
            tried = [self.config.precision]
        measured = {name: self._measure(speed, {"precision": name}) for name in tried}
        best = max(measured, key=lambda name: measured[name][1])
        fitting, rate = measured[best]
        others = "".join(f", {name} {measured[name][1]:,.0f}" for name in tried if name != best)
        self.put("precision", best, f"{rate:,.0f} images/s in training here{others}")
        if fitting.optimizer.accumulation > 1:
            self.put("optimizer.accumulation", fitting.optimizer.accumulation, "a whole batch does not fit into memory")
        return rate

    def _threads(self, speed: Speed) -> None:
        """Choose the number of CPU threads."""
        cores = threads = self.machine.cores
        if self.machine.busy and cores > 1 and "run.cpu_threads" not in self.fields:
            rates = {n: self._measure(speed, {"run.cpu_threads": n})[1] for n in (max(1, cores // 2), cores)}
            threads = max(rates, key=lambda n: rates[n])
        why = "all cores of this process" if threads == cores else "other programs use the rest"
        self.put("run.cpu_threads", threads, why)

    def _measure(self, speed: Speed, fields: dict[str, Any]) -> tuple[TrainConfig, float]:
        return speed(with_overrides(self.config, {"model.num_classes": len(self.photos.counts), **fields}))

    def _epochs(self, rate: float, seconds: float) -> int:
        return int(0.6 * seconds * rate / self.trained)  # the rest is for reading, evaluation and the report

    def schedule(self, rate: float, seconds: float) -> None:
        way = self.way
        possible = self._epochs(rate, seconds)
        epochs = max(1, min(way.epochs, possible))
        limit = (
            way.why if epochs == way.epochs else f"{way.epochs} would be better; {seconds / 60:g} min suffice for these"
        )
        self.put("run.epochs", epochs, limit)
        epochs = self.config.run.epochs
        steps = max(1, self.trained // self.config.data.batch_size)
        self.put("schedule.warmup_epochs", round(min(5.0, 0.1 * epochs), 2), "a tenth of the epochs, 5 at most")
        self.put("schedule.update", "step", "short runs")
        self.put("optimizer.lr", way.lr, "for a batch of 64")
        self.put("optimizer.lr_reference_batch", 64, "the rate follows the batch")
        if way.layer_decay < 1:
            self.put("optimizer.layer_decay", way.layer_decay, "the first layers change least")
        self.put("optimizer.clip_grad_norm", 1.0, "no step is larger")
        if epochs * steps >= 200:
            self.put("regularization.ema_decay", 0.99, "the average of the last hundred steps is evaluated")
        self.put("run.log_interval", min(50, steps), f"{counted(steps, 'step')} an epoch")
        self.put("run.eval_interval", max(1, epochs // 20), "about 20 evaluations")
        self.put("run.compile", False, "compiling takes longer than it saves in a run of minutes")
        self.put("run.mistakes", True, "what the model gets wrong says what photos it lacks")
