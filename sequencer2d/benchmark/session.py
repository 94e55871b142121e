"""One case: its model on the device, prepared, checked and timed in one form after another."""

import contextlib
import dataclasses
import functools
from typing import Any

import torch

from sequencer2d.benchmark import timing
from sequencer2d.benchmark.cases import Case
from sequencer2d.benchmark.contenders import Contender, build, resolved
from sequencer2d.benchmark.cost import count_macs, count_parameters
from sequencer2d.benchmark.forms import FORMS, prepare
from sequencer2d.benchmark.gate import Gate
from sequencer2d.benchmark.results import Row
from sequencer2d.benchmark.steps import Step
from sequencer2d.benchmark.turns import Turns
from sequencer2d.benchmark.workload import DTYPES, make_workload

UNGATED = ("reference",)
MESSAGE_LENGTH = 300


class Session:
    """A case's model and batch, and the reference results that its forms are compared with.

    Args:
        case: what is measured.
        device: where.
        measure_s: seconds of timed steps for each form.
        clock: seconds.
        turns: how this process shares the device with others; None: with nobody.
    """

    def __init__(
        self, case: Case, device: torch.device, *, measure_s: float, clock: timing.Clock, turns: Turns | None = None
    ) -> None:
        self.case = case
        self.device = device
        self.turns = turns or Turns()
        self.measure_s = measure_s
        self.clock = clock
        dtype = DTYPES[case.dtype]
        model = build(case.contender, case.size)
        layout = FORMS[case.forms[0]].layout
        self.work = make_workload(model, case.mode, dtype, case.batch, case.size, device, layout=layout)
        parameters, macs = _cost(case.contender.model, case.contender.library, case.size)
        self.about: Row = {
            "resolved": resolved(model, device, dtype) or None,
            "parameters": parameters,
            "gmacs": round(macs / 1e9, 3),
        }
        self.gate: Gate | None = None
        if case.contender.runs_our_code and case.contender.implementation not in UNGATED:
            with self.turns.beside_others():
                self.gate = Gate(case.contender, self.work)
            timing.free_memory(device)

    def row(self, form: str) -> Row:
        """What is known of the model, and one form's numbers; an error in their place if a step of the way fails."""
        return {**self.about, **self._numbers_or_error(form)}

    def _numbers_or_error(self, form: str) -> Row:
        try:
            return self._numbers(form)
        except Exception as error:
            message = describe(error)
        self._forget_failure()
        return {"error": message}

    def _numbers(self, form: str) -> Row:
        start = self.clock()
        with self.turns.beside_others():
            step = prepare(self.work, form)
            step.run()
            timing.synchronize(self.device)
        row: Row = {"prepare_s": round(self.clock() - start, 3)}
        with self.turns.alone():
            return {**row, **self._timed(step)}

    def _timed(self, step: Step) -> Row:
        if self.turns.shared:
            step.prepare_again(self.device)
        row: Row = {}
        if self.gate is not None:
            verdict = self.gate.check(step)
            row["gate"] = verdict.as_dict()
            if not verdict.passed:
                return {**row, "error": f"wrong result: {verdict}"}
        timing.free_memory(self.device)
        found = timing.measure(step.run, self.device, measure_s=self.measure_s, clock=self.clock)
        return {
            **row,
            **dataclasses.asdict(found),
            "images_per_s": 1e3 * self.case.batch / found.step_ms,
            "peak_memory_mib": step.peak_mib or timing.peak_memory_mib(step.run, self.device),
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
def _cost(model: str, library: str, size: int) -> tuple[int, int]:
    """Parameters and MACs per image of the unmodified model, counted on the CPU."""
    implementation = "auto" if library == "sequencer2d" else "timm"
    network: Any = build(Contender(model, library, implementation), size).eval()
    return count_parameters(network), count_macs(network, size)
