"""Plans: which models under which workloads answer which question. `sequencer2d bench --plan NAME` runs one."""

import dataclasses
from collections.abc import Iterator, Sequence

from sequencer2d.evaluation.benchmark.loop import Case, make_cases
from sequencer2d.evaluation.benchmark.subjects import PEERS, parse_subject

OURS = ("sequencer2d_s", "sequencer2d_m", "sequencer2d_l")
THEIRS = tuple(f"timm:{name}" for name in OURS)
SMALL = ("sequencer2d_s", "timm:sequencer2d_s", "convnext_tiny", "swin_tiny", "deit_small")
IMPLEMENTATIONS = tuple(f"sequencer2d_s@{name}" for name in ("reference", "cudnn", "auto"))


@dataclasses.dataclass(frozen=True)
class Sweep:
    """All combinations of models, modes, batches (images) and sizes (pixels)."""

    models: tuple[str, ...]
    modes: tuple[str, ...] = ("inference",)
    batches: tuple[int, ...] = (256,)
    sizes: tuple[int, ...] = (224,)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A question and the sweeps that answer it."""

    question: str
    sweeps: tuple[Sweep, ...]

    def cases(self, dtypes: Sequence[str], form_names: Sequence[str]) -> list[Case]:
        """The cases of all sweeps, each once. Raises ConfigError for an unknown model, dtype or form."""
        return list(dict.fromkeys(self._cases(dtypes, form_names)))

    def _cases(self, dtypes: Sequence[str], form_names: Sequence[str]) -> Iterator[Case]:
        for sweep in self.sweeps:
            yield from make_cases(
                [parse_subject(model) for model in sweep.models],
                modes=sweep.modes,
                dtypes=dtypes,
                batches=sweep.batches,
                sizes=sweep.sizes,
                form_names=form_names,
            )


QUICK = Sweep(SMALL, batches=(1, 128))
QUICK_CPU = Sweep(SMALL, batches=(1,))

_LARGE_BATCH = (
    Sweep((*OURS, *THEIRS, *PEERS), ("inference",), (256,)),
    Sweep((*OURS, *THEIRS, *PEERS), ("training",), (128,)),
)
_LATENCY = Sweep((*OURS, *THEIRS, *PEERS), batches=(1,))
_RESOLUTIONS = Sweep(SMALL, batches=(16,), sizes=(224, 448, 672, 896))

_FUSED = ("timm:sequencer2d_s", "timm:sequencer2d_s@fuse")
_HEADLINE = (
    Sweep(("sequencer2d_s", "convnext_tiny", "deit_small", *_FUSED), batches=(256,)),
    Sweep(("sequencer2d_s", "sequencer2d_s@recompute", "convnext_tiny", "deit_small", *_FUSED), ("training",), (128,)),
    Sweep(("sequencer2d_s", "timm:sequencer2d_s", "convnext_tiny"), batches=(1,)),
    Sweep(("sequencer2d_m", "swin_small", "sequencer2d_l", "convnext_small"), batches=(256,)),
    Sweep(("sequencer2d_s", "convnext_tiny", "deit_small"), batches=(16,), sizes=(448, 896)),
)

PLANS: dict[str, Plan] = {
    "headline": Plan("is it as fast as its peers, where it counts: half an hour on a GPU", _HEADLINE),
    "quick": Plan("the small models, one image and many: a few minutes on a GPU", (QUICK,)),
    "peers": Plan("every model of comparable size at a large batch, inference and training", _LARGE_BATCH),
    "latency": Plan("one image at a time", (_LATENCY,)),
    "table1": Plan(
        "the paper's Table 1: throughput and memory, training and inference, 16 images a batch",
        (Sweep((*OURS, *THEIRS, *PEERS), ("training", "inference"), (16,)),),
    ),
    "batches": Plan(
        "throughput, latency and memory against the batch",
        (
            Sweep(SMALL, ("inference",), (1, 4, 16, 64, 256)),
            Sweep(SMALL, ("training",), (16, 64, 128)),
        ),
    ),
    "resolutions": Plan(
        "the paper's Figure 3 c and d: throughput and memory against the resolution, 16 images a batch",
        (_RESOLUTIONS, dataclasses.replace(_RESOLUTIONS, modes=("training",))),
    ),
    "implementations": Plan(
        "what each implementation of the recurrence gives",
        (
            Sweep((*IMPLEMENTATIONS, "timm:sequencer2d_s", "timm:sequencer2d_s@fuse"), batches=(1, 256)),
            Sweep((*IMPLEMENTATIONS, "timm:sequencer2d_s", "timm:sequencer2d_s@fuse"), ("training",), (128,)),
        ),
    ),
}
