"""The benchmark's loop: every case in every form, one row each, whatever happens to it."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from sequencer2d.benchmark import provenance, timing
from sequencer2d.benchmark.cases import Case
from sequencer2d.benchmark.results import EMPTY, Key, ResultFile, Row, row_key
from sequencer2d.benchmark.session import Session, describe
from sequencer2d.benchmark.turns import Turns
from sequencer2d.errors import DeviceError


def run(
    cases: Iterable[Case],
    results: ResultFile,
    device: torch.device,
    *,
    deadline: float | None = None,
    retry: bool = False,
    measure_s: float = timing.MEASURE_S,
    turns: Turns | None = None,
    on_start: Callable[[Case, str], None] = lambda case, form: None,
    on_row: Callable[[Row], None] = lambda row: None,
    clock: timing.Clock = time.perf_counter,
) -> bool:
    """Measure the device's ceilings and what `results` does not hold yet, adding each row as it is there.

    Args:
        cases: models with the forms, sizes and batches to measure them at.
        results: the file that rows are read from and added to.
        device: where everything runs.
        deadline: reading of `clock` after which no further row is begun; None for no limit.
        retry: measure rows again that ended with an error.
        measure_s: seconds of timed steps per row.
        turns: how this process shares the device with others, each of which measures other cases; None: with nobody.
        on_start: called before a row is measured.
        on_row: called with every row, those that were already there included.
        clock: seconds.

    Returns:
        Whether everything was measured before the deadline.

    Raises:
        DeviceError: the device answers no more; rows so far are in the file.
    """
    runner = _Runner(results, device, deadline, measure_s, turns or Turns(), on_start, on_row, clock)
    with _fastest_convolutions():
        for case in cases:
            pending = []
            for form in case.forms:
                row = results.get(runner.key(case, form))
                if row is None or (retry and row.get("error")):
                    pending.append(form)
                else:
                    on_row(row)
            if pending and runner.turns.claim(runner.key(case, pending[0])) and not runner.measure(case, pending):
                return False
    return True


def result_header(name: str, device: torch.device, command: str) -> dict[str, Any]:
    """What stands above the rows of a result file."""
    header = provenance.provenance(name)
    return {**header, "device": provenance.device(device.type), "command": command}


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
    turns: Turns
    on_start: Callable[[Case, str], None]
    on_row: Callable[[Row], None]
    clock: timing.Clock
    measured_ceilings: bool = False

    def key(self, case: Case, form: str) -> Key:
        return row_key(self._identity(case, form))

    def measure(self, case: Case, pending: Sequence[str]) -> bool:
        """Rows for the pending forms of one case; False when the deadline came first."""
        if self._late():
            return False
        if not self.measured_ceilings:
            if self.turns.claim("ceilings"):
                with self.turns.alone():
                    self.results.add_ceilings(timing.ceilings(self.device, clock=self.clock))
            self.measured_ceilings = True
        self.on_start(case, pending[0])
        try:
            session = Session(case, self.device, measure_s=self.measure_s, clock=self.clock, turns=self.turns)
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

    def _measure_forms(self, case: Case, session: Session, pending: Sequence[str]) -> bool:
        for form in pending:
            if self._late():
                return False
            self.on_start(case, form)
            self._add(case, form, session.row(form))
        return True

    def _add(self, case: Case, form: str, found: Row) -> None:
        row = {**self._identity(case, form), **EMPTY, **found}
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
        return self.deadline is not None and self.clock() > self.deadline

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


@functools.cache
def _sources() -> str:
    return provenance.source_digest()
