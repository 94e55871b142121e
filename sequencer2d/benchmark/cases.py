"""Cases: one contender under one workload, in all the forms that are asked for."""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

from sequencer2d.benchmark.contenders import Contender
from sequencer2d.benchmark.forms import FORMS
from sequencer2d.benchmark.workload import DTYPES, MODES
from sequencer2d.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Case:
    """One contender under one workload.

    Attributes:
        contender: the model.
        mode: "inference" or "training".
        dtype: "fp32", "bf16" or "fp16": of weights and images in inference, of autocast in training (weights in fp32).
        batch: images per step.
        size: side of the square images, pixels.
        forms: of `FORMS`, in the order in which they are measured; all with one memory layout.
    """

    contender: Contender
    mode: str
    dtype: str
    batch: int
    size: int
    forms: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.contender}, {self.mode}, {self.dtype}, batch {self.batch}, {self.size}²"


def make_cases(
    contenders: Iterable[Contender],
    *,
    modes: Sequence[str],
    dtypes: Sequence[str],
    batches: Sequence[int],
    sizes: Sequence[int],
    form_names: Sequence[str],
) -> list[Case]:
    """All combinations, workload by workload, so that an interrupted run holds complete comparisons.

    Forms with another memory layout make a case of their own. Combinations to which no form applies are left out.

    Raises:
        ConfigError: an unknown mode, dtype or form.
    """
    _check("mode", modes, MODES)
    _check("dtype", dtypes, DTYPES)
    _check("form", form_names, FORMS)
    contenders = list(contenders)
    cases = []
    for mode, dtype, size, batch in itertools.product(modes, dtypes, sizes, batches):
        for contender in contenders:
            applicable = [name for name in form_names if FORMS[name].applies(mode, dtype, contender)]
            for channels_last in (True, False):
                if chosen := tuple(name for name in applicable if FORMS[name].channels_last == channels_last):
                    cases.append(Case(contender, mode, dtype, batch, size, chosen))
    return cases


def _check(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    for value in given:
        if value not in known:
            raise ConfigError(f"no {what} {value!r}; there are {', '.join(known)}")
