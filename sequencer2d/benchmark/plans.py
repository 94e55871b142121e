"""Plans: which models under which workloads answer which question. `sequencer2d bench --plan NAME` runs one."""

import dataclasses
from collections.abc import Iterator, Sequence

from sequencer2d.benchmark.cases import Case, make_cases
from sequencer2d.benchmark.contenders import FINE_TUNED_PEERS, PEERS, parse_contender
from sequencer2d.benchmark.forms import PAPER

OURS = ("sequencer2d_s", "sequencer2d_m", "sequencer2d_l")
THEIRS = tuple(f"timm:{name}" for name in OURS)
SMALL = ("sequencer2d_s", "timm:sequencer2d_s", "convnext_tiny", "swin_tiny", "deit_small")
SMALL_PEERS = ("regnety_040", "poolformer_s24", "cyclemlp_b2", "gfnet_h_s")
"""The other peers of Sequencer2D-S in the paper that take images of any size; ViP takes one size."""
IMPLEMENTATIONS = tuple(f"sequencer2d_s@{name}" for name in ("reference", "cudnn", "auto"))


@dataclasses.dataclass(frozen=True)
class Sweep:
    """All combinations of models, modes, batches (images) and sizes (pixels).

    `dtypes` and `forms` are those that a protocol prescribes; None leaves them to whoever runs the plan.
    """

    models: tuple[str, ...]
    modes: tuple[str, ...] = ("inference",)
    batches: tuple[int, ...] = (256,)
    sizes: tuple[int, ...] = (224,)
    dtypes: tuple[str, ...] | None = None
    forms: tuple[str, ...] | None = None

    def limited(self, dtypes: Sequence[str] | None, form_names: Sequence[str] | None) -> "Sweep":
        """The part of the sweep that has these dtypes and forms (None: all of them)."""
        return dataclasses.replace(self, dtypes=_common(self.dtypes, dtypes), forms=_common(self.forms, form_names))


@dataclasses.dataclass(frozen=True)
class Plan:
    """A question and the sweeps that answer it; `layout`: how `sequencer2d bench` shows the answer."""

    question: str
    sweeps: tuple[Sweep, ...]
    layout: str = "workloads"

    def cases(self, dtypes: Sequence[str], form_names: Sequence[str]) -> list[Case]:
        """The cases of all sweeps, each once, in these dtypes and forms where a sweep prescribes none.

        Raises:
            ConfigError: an unknown model, dtype or form.
        """
        return list(dict.fromkeys(self._cases(dtypes, form_names)))

    def _cases(self, dtypes: Sequence[str], form_names: Sequence[str]) -> Iterator[Case]:
        for sweep in self.sweeps:
            yield from make_cases(
                [parse_contender(model) for model in sweep.models],
                modes=sweep.modes,
                dtypes=dtypes if sweep.dtypes is None else sweep.dtypes,
                batches=sweep.batches,
                sizes=sweep.sizes,
                form_names=form_names if sweep.forms is None else sweep.forms,
            )


def _common(own: tuple[str, ...] | None, wanted: Sequence[str] | None) -> tuple[str, ...] | None:
    if own is None or wanted is None:
        return own if wanted is None else tuple(wanted)
    return tuple(value for value in own if value in wanted)


QUICK = Sweep(SMALL, batches=(1, 128))
QUICK_CPU = Sweep(SMALL, batches=(1,))

_LARGE_BATCH = (
    Sweep((*OURS, *THEIRS, *PEERS), ("inference",), (256,)),
    Sweep((*OURS, *THEIRS, *PEERS), ("training",), (128,)),
)
_LATENCY = Sweep((*OURS, *THEIRS, *PEERS), batches=(1,))
_RESOLUTIONS = Sweep((*SMALL, *SMALL_PEERS), batches=(16,), sizes=(224, 448, 672, 896))

_FUSED = ("timm:sequencer2d_s", "timm:sequencer2d_s@fuse")
_HEADLINE = (
    Sweep(("sequencer2d_s", "convnext_tiny", "deit_small", *_FUSED), batches=(256,)),
    Sweep(("sequencer2d_s", "sequencer2d_s@recompute", "convnext_tiny", "deit_small", *_FUSED), ("training",), (128,)),
    Sweep(("sequencer2d_s", "timm:sequencer2d_s", "convnext_tiny"), batches=(1,)),
    Sweep(("sequencer2d_m", "swin_small", "sequencer2d_l", "convnext_small"), batches=(256,)),
    Sweep(("sequencer2d_s", "convnext_tiny", "deit_small"), batches=(16,), sizes=(448, 896)),
)

_TABLE1 = tuple(
    Sweep(models, ("training", "inference"), (16,), (size,))
    for models, size in (
        ((*OURS, *THEIRS, *PEERS), 224),
        (("sequencer2d_l", "timm:sequencer2d_l"), 392),
        (FINE_TUNED_PEERS, 384),
    )
)

PLANS: dict[str, Plan] = {
    "headline": Plan("is it as fast as its peers, where it counts: half an hour on a GPU", _HEADLINE),
    "quick": Plan("the small models, one image and many: a few minutes on a GPU", (QUICK,)),
    "peers": Plan("every model of comparable size at a large batch, inference and training", _LARGE_BATCH),
    "latency": Plan("one image at a time", (_LATENCY,)),
    "table1": Plan(
        "the paper's Table 1: throughput and memory, 16 images, by its protocol (form paper) and at the best",
        (*(dataclasses.replace(sweep, dtypes=("fp32",), forms=(PAPER,)) for sweep in _TABLE1), *_TABLE1),
        layout="table1",
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
