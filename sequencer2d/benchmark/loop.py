"""The benchmark's loop: every case in every form, one row each, whatever happens to it."""

import contextlib
import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from sequencer2d.benchmark import forms, provenance, timing
from sequencer2d.benchmark.contenders import Contender, build, resolved
from sequencer2d.benchmark.cost import count_macs, count_parameters
from sequencer2d.benchmark.gate import Gate
from sequencer2d.benchmark.results import Key, ResultFile, Row, row_key
from sequencer2d.errors import ConfigError, DeviceError

UNGATED = ("reference",)
MESSAGE_LENGTH = 300


@dataclasses.dataclass(frozen=True)
class Case:
    """One contender under one workload, in all forms that are asked for.

    Attributes:
        contender: the model.
        mode: "inference" or "training".
        dtype: "fp32", "bf16" or "fp16": of weights and images in inference, of autocast in training (weights in fp32).
        batch: images per step.
        size: side of the square images, pixels.
        forms: of `forms.FORMS`, in the order in which they are measured.
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

    The form `paper` has a case of its own, as its weights and images lie in another memory layout. Combinations to
    which no form applies are left out.

    Raises:
        ConfigError: an unknown mode, dtype or form.
    """
    for what, given, known in (
        ("mode", modes, forms.MODES),
        ("dtype", dtypes, forms.DTYPES),
        ("form", form_names, forms.FORMS),
    ):
        for value in given:
            if value not in known:
                raise ConfigError(f"no {what} {value!r}; there are {', '.join(known)}")
    contenders = list(contenders)
    cases = []
    for mode, dtype, size, batch in itertools.product(modes, dtypes, sizes, batches):
        for contender in contenders:
            applicable = [form for form in form_names if _applies(form, mode, dtype, contender)]
            for own in (False, True):
                if chosen := tuple(form for form in applicable if (form == forms.PAPER) == own):
                    cases.append(Case(contender, mode, dtype, batch, size, chosen))
    return cases


def run(
    cases: Iterable[Case],
    results: ResultFile,
    device: torch.device,
    *,
    deadline: float | None = None,
    retry: bool = False,
    measure_s: float = timing.MEASURE_S,
    on_start: Callable[[Case, str], None] = lambda case, form: None,
    on_row: Callable[[Row], None] = lambda row: None,
) -> bool:
    """Measure the device's ceilings and what `results` doesn't hold yet, adding each row as it is there.

    Args:
        cases: models with the forms, sizes and batches to measure them at.
        results: the file that rows are read from and added to.
        device: where everything runs.
        deadline: `time.monotonic()` after which no further row is begun; None for no limit.
        retry: measure rows again that ended with an error.
        measure_s: seconds of timed steps per row.
        on_start: called before a row is measured.
        on_row: called with every row, those that were already there included.

    Returns:
        Whether everything was measured before the deadline.

    Raises:
        DeviceError: the device answers no more; rows so far are in the file.
    """
    runner = _Runner(results, device, deadline, measure_s, on_start, on_row)
    with _fastest_convolutions():
        for case in cases:
            pending = []
            for form in case.forms:
                row = results.get(runner.key(case, form))
                if row is None or (retry and row.get("error")):
                    pending.append(form)
                else:
                    on_row(row)
            if pending and not runner.measure(case, pending):
                return False
    return True


def _applies(form: str, mode: str, dtype: str, contender: Contender) -> bool:
    if form == forms.LEAN:
        return mode == "training"
    if form == forms.PAPER:
        return dtype == "fp32"
    return form != "optimized" or (contender.runs_our_code and mode == "inference")


@contextlib.contextmanager
def _fastest_convolutions() -> Iterator[None]:
    """Let cuDNN time its algorithms for each shape once: every model at its best."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@dataclasses.dataclass
class _Runner:
    results: ResultFile
    device: torch.device
    deadline: float | None
    measure_s: float
    on_start: Callable[[Case, str], None]
    on_row: Callable[[Row], None]
    measured_ceilings: bool = False

    def key(self, case: Case, form: str) -> Key:
        return row_key(self._identity(case, form))

    def measure(self, case: Case, pending: Sequence[str]) -> bool:
        """Rows for the pending forms of one case; False when the deadline came first."""
        if self._late():
            return False
        if not self.measured_ceilings:
            self.results.add_ceilings(timing.ceilings(self.device))
            self.measured_ceilings = True
        self.on_start(case, pending[0])
        try:
            session = _Session(case, self.device)
        except Exception as error:
            message = describe(error)
            for form in pending:
                self._add(case, form, {"error": message})
            self._clean_up(case)
            return True
        finished = self._measure_forms(case, session, pending)
        del session
        self._clean_up(case)
        return finished

    def _measure_forms(self, case: Case, session: "_Session", pending: Sequence[str]) -> bool:
        for form in pending:
            if self._late():
                return False
            self.on_start(case, form)
            self._add(case, form, {**session.about, **session.row(form, self.measure_s)})
        return True

    def _add(self, case: Case, form: str, found: Row) -> None:
        row = {**self._identity(case, form), **_EMPTY, **found}
        row |= {"commit": self.results.header["commit"], "date": provenance.now()}
        self.results.add(row)
        self.on_row(row)

    def _identity(self, case: Case, form: str) -> Row:
        contender = case.contender
        return {
            "model": contender.model,
            "family": contender.family,
            "library": contender.library,
            "implementation": contender.implementation,
            "form": form,
            "mode": case.mode,
            "dtype": case.dtype,
            "batch": case.batch,
            "size": case.size,
            "sources": _sources() if contender.runs_our_code else "",
        }

    def _late(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    def _clean_up(self, case: Case) -> None:
        """Forget compiled code and free memory; fails where an earlier fault has left the device unusable."""
        try:
            torch._dynamo.reset()
            timing.free_workspaces(self.device)
            timing.free_memory(self.device)
            timing.synchronize(self.device)
        except RuntimeError as error:
            raise DeviceError(
                f"{self.device} answers no more after {case} ({describe(error)}). The rows so far, this one's error "
                "included, are kept: give the same command again to go on with the rest"
            ) from error


_EMPTY: Row = {
    "resolved": None,
    "images_per_s": None,
    "step_ms": None,
    "latency_ms": None,
    "spread_percent": None,
    "repeats": None,
    "peak_memory_mib": None,
    "prepare_s": None,
    "parameters": None,
    "gmacs": None,
    "gate": None,
    "error": None,
}


class _Session:
    """One case: its model on the device, measured form after form."""

    def __init__(self, case: Case, device: torch.device) -> None:
        self.case = case
        self.device = device
        dtype = forms.DTYPES[case.dtype]
        model = build(case.contender, case.size)
        layout = torch.contiguous_format if forms.PAPER in case.forms else torch.channels_last
        self.work = forms.workload(model, case.mode, dtype, case.batch, case.size, device, layout=layout)
        parameters, macs = _size_of(case.contender.model, case.contender.library, case.size)
        self.about: Row = {
            "resolved": resolved(model, device, dtype) or None,
            "parameters": parameters,
            "gmacs": round(macs / 1e9, 3),
        }
        self.gate: Gate | None = None
        if case.contender.runs_our_code and case.contender.implementation not in UNGATED:
            self.gate = Gate(case.contender, self.work)
            timing.free_memory(device)

    def row(self, form: str, measure_s: float) -> Row:
        """Prepare, check and time one form; an error instead of numbers where one of these fails."""
        try:
            return self._row(form, measure_s)
        except Exception as error:
            message = describe(error)
        self._forget_failure()
        return {"error": message}

    def _row(self, form: str, measure_s: float) -> Row:
        start = time.perf_counter()
        prepared = forms.prepare(self.work, form)
        prepared.step()
        timing.synchronize(self.device)
        row: Row = {"prepare_s": round(time.perf_counter() - start, 3)}
        if self.gate is not None:
            verdict = self.gate.check(prepared)
            row["gate"] = verdict.as_dict()
            if not verdict.passed:
                return {**row, "error": f"wrong result: {verdict}"}
        timing.free_memory(self.device)
        found = timing.measure(prepared.step, self.device, measure_s=measure_s)
        peak_mib = prepared.peak_mib or timing.peak_memory_mib(prepared.step, self.device)
        return {
            **row,
            **dataclasses.asdict(found),
            "images_per_s": 1e3 * self.case.batch / found.step_ms,
            "peak_memory_mib": peak_mib,
        }

    def _forget_failure(self) -> None:
        self.work.model.zero_grad(set_to_none=True)
        with contextlib.suppress(RuntimeError):  # a broken device is reported when the case is done
            timing.free_memory(self.device)


def describe(error: BaseException) -> str:
    """An error in one line, its type first unless it is one of memory."""
    text = " ".join(str(error).split())
    if isinstance(error, torch.OutOfMemoryError):
        return f"out of memory: {text.split('.')[0]}"[:MESSAGE_LENGTH]
    return f"{type(error).__name__}: {text}"[:MESSAGE_LENGTH]


@functools.cache
def _sources() -> str:
    return provenance.source_digest()


@functools.cache
def _size_of(model: str, library: str, size: int) -> tuple[int, int]:
    """Parameters and MACs per image of the unmodified model, counted on the CPU."""
    implementation = "auto" if library == "sequencer2d" else "timm"
    network = build(Contender(model, library, implementation), size).eval()
    return count_parameters(network), count_macs(network, size)


def result_header(name: str, device: torch.device, command: str) -> dict[str, Any]:
    """What stands above the rows of a result file."""
    header = provenance.provenance(name)
    return {**header, "device": provenance.device(device.type), "command": command}
