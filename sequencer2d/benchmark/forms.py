"""The forms in which a model runs: one row each, with the modes, dtypes and devices to which it applies."""

import dataclasses
from collections.abc import Callable

import torch

from sequencer2d.benchmark import steps
from sequencer2d.benchmark.contenders import Contender
from sequencer2d.benchmark.steps import Step
from sequencer2d.benchmark.workload import DTYPES, MODES, Workload
from sequencer2d.errors import ImplementationError

LEAN = "lean"
PAPER = "paper"


@dataclasses.dataclass(frozen=True)
class Form:
    """How a model is run to be timed, and where that applies.

    Attributes:
        prepare: compiles and captures what it needs to, and returns the step.
        about: what it is, for users.
        modes: "inference", "training" or both.
        dtypes: of `DTYPES`.
        needs_cuda: whether it captures a CUDA graph.
        our_code_only: whether it applies only to contenders that run this package's kernels.
        by_default: measured on a GPU unless other forms are named.
        channels_last: the memory layout of weights and images; otherwise PyTorch's usual one.
        own_protocol: it is compared only with itself, never with the other forms.
        pays_memory_with_time: its peak memory must stand beside its own rate, never beside another form's.
    """

    prepare: Callable[[Workload], Step]
    about: str
    modes: tuple[str, ...] = MODES
    dtypes: tuple[str, ...] = tuple(DTYPES)
    needs_cuda: bool = False
    our_code_only: bool = False
    by_default: bool = True
    channels_last: bool = True
    own_protocol: bool = False
    pays_memory_with_time: bool = False

    @property
    def layout(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    @property
    def restriction(self) -> str:
        """What it is for, in words: "fp32", "inference of ours"; "" if it applies to every model and workload."""
        words = [*self.dtypes] if self.dtypes != tuple(DTYPES) else []
        words += [*self.modes] if self.modes != MODES else []
        return " ".join(words) + (" of ours" if self.our_code_only else "")

    def applies(self, mode: str, dtype: str, contender: Contender) -> bool:
        """Whether the form exists for such a workload, on a device that has it."""
        return mode in self.modes and dtype in self.dtypes and (contender.runs_our_code or not self.our_code_only)


FORMS: dict[str, Form] = {
    "eager": Form(steps.eager, "as it is"),
    "compile": Form(steps.compiled, "through torch.compile, specialized to the shape"),
    "graph": Form(steps.graph, "the compiled step captured in a CUDA graph", needs_cuda=True),
    "autotune": Form(
        steps.autotuned,
        'as graph, with inductor\'s mode "max-autotune": minutes of compilation',
        needs_cuda=True,
        by_default=False,
    ),
    "optimized": Form(steps.optimized, "through sequencer2d.optimize", modes=("inference",), our_code_only=True),
    LEAN: Form(
        steps.lean,
        f"as graph, compiled to keep {steps.MEMORY_BUDGET} of the activations for backward and to compute the others "
        "again",
        modes=("training",),
        needs_cuda=True,
        by_default=False,
        pays_memory_with_time=True,
    ),
    # The paper's V100 has no TF32.
    PAPER: Form(
        steps.as_in_the_paper,
        "as the paper's Table 1 was measured: eager, fp32 without TF32, PyTorch's usual memory layout, SGD with "
        "Nesterov's momentum in training",
        dtypes=("fp32",),
        by_default=False,
        channels_last=False,
        own_protocol=True,
    ),
}


def available_forms(device: torch.device) -> tuple[str, ...]:
    """The forms that are measured on a device unless others are named.

    On a CPU this is the eager one alone, which needs no compiler.
    """
    if device.type != "cuda":
        return ("eager",)
    return tuple(name for name, form in FORMS.items() if form.by_default)


def prepare(work: Workload, name: str) -> Step:
    """One form of a workload, compiled and captured where it needs to be.

    Raises:
        ImplementationError: a form that this device, mode or dtype does not have.
    """
    form = FORMS[name]
    if work.mode not in form.modes or work.dtype not in map(DTYPES.get, form.dtypes):
        raise ImplementationError(f"form {name!r} is for {form.restriction}")
    if form.needs_cuda and work.device.type != "cuda":
        raise ImplementationError(f"form {name!r} needs a CUDA device, the images are on {work.device}")
    return form.prepare(work)
