"""A process of `benchmarks.dense.speed`: it compiles its jobs, says so, and measures one whenever it is asked to.

It reads numbers of jobs from standard input and answers with one row each, as a line of JSON. Many such processes
compile side by side; one at a time measures. A job that is not compiled in time is left out.
"""

import contextlib
import copy
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.dense.contenders import CLASSES, Contender, build
from benchmarks.dense.regions import compile_decoder, compile_regions
from sequencer2d.benchmark import timing
from sequencer2d.benchmark.cost import count_parameters
from sequencer2d.benchmark.session import describe
from sequencer2d.benchmark.steps import of_forward
from sequencer2d.benchmark.workload import make_workload
from sequencer2d.models import optimize

READY = "ready"
LATE = "not compiled in time"
BUDGET = 2.0
"""Our error may be this many times that of PyTorch's own recurrences in the same dtype, as in `sequencer2d bench`."""
PROBES = 2
WARM_BATCHES = (2, 3)
"""Images on which code is compiled: another number than is measured, so that cuDNN times its kernels undisturbed."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One row: a contender in a mode, at a size (pixels of a side) and batch, in a form: "best" or "eager"."""

    model: str
    maps: str
    head: str
    mode: str
    size: int
    batch: int
    form: str = "best"

    @property
    def contender(self) -> Contender:
        return Contender(self.model, self.maps, self.head)


class Prepared:
    """A job's model on the device and the callable that is timed, compiled."""

    def __init__(self, job: Job, device: torch.device, dtype: torch.dtype) -> None:
        self.job, self.device = job, device
        model = build(job.contender, job.size)
        self.parameters = count_parameters(model)
        work = make_workload(model, job.mode, dtype, job.batch, job.size, device)
        labels = torch.randint(CLASSES, (job.batch, job.size, job.size), generator=torch.Generator().manual_seed(1))
        self.work = dataclasses.replace(work, targets=labels.to(device))
        self.form, self.forward = self._form(compiles=device.type == "cuda")
        self.gate: dict[str, Any] | None = None

    def _form(self, compiles: bool) -> tuple[str, Callable[[Tensor], Tensor]]:
        model, graph = self.work.model, ", CUDA graph" if self.device.type == "cuda" else ""
        if self.job.form == "eager":
            return "eager" + graph, model
        if self.job.contender.is_ours and self.job.mode == "inference":
            optimized = optimize(model, dtype=self.work.dtype, graph=False, compile=compiles)
            if not compiles:
                return "optimized", optimized
            compile_decoder(optimized)
            return "optimized, decoder compiled" + graph, optimized
        if not compiles:
            return "eager", model
        compile_regions(model)
        return "blocks and decoder compiled" + graph, model

    def warm_up(self) -> None:
        """Run everything once, on another number of images than will be measured, and compare ours with fp64.

        Where the processes have no memory left for it, both is done when the job is measured.
        """
        with contextlib.suppress(torch.OutOfMemoryError):
            self._run_once()
            if self.job.contender.is_ours:
                self.gate = self._compare()
        self.work.model.zero_grad(set_to_none=True)
        timing.free_memory(self.device)

    def _run_once(self) -> None:
        batch = next(count for count in WARM_BATCHES if count != self.job.batch)
        images = self.work.images[:1].expand(batch, -1, -1, -1).contiguous(memory_format=torch.channels_last)
        if self.job.mode == "inference":
            with torch.inference_mode():
                self.forward(images)
            return
        with self.work.autocast():
            logits = self.forward(images)
        logits.mean().backward()  # the loss over all pixels needs no compiling, and much memory

    def row(self, measure_s: float) -> dict[str, Any]:
        """The numbers; the gate's verdict first where our code runs."""
        row: dict[str, Any] = {"parameters": self.parameters, "form": self.form}
        if self.job.contender.is_ours:
            row["gate"] = self.gate or self._compare()
            if not row["gate"]["passed"]:
                return {**row, "error": f"wrong result: {row['gate']}"}
            timing.free_memory(self.device)
        step = of_forward(self.work, self.forward)
        found = timing.measure(step.run, self.device, measure_s=measure_s, warmup_s=measure_s / 3)
        rate = 1e3 * self.job.batch / found.step_ms
        return {
            **row,
            **dataclasses.asdict(found),
            "images_per_s": rate,
            "megapixels_per_s": rate * self.job.size**2 / 1e6,
            "peak_memory_mib": step.peak_mib or timing.peak_memory_mib(step.run, self.device),
        }

    def _compare(self) -> dict[str, Any]:
        """The error of this form on two images against fp64, and that of PyTorch's own recurrences in the same dtype.

        In inference of the logits, in training of all gradients.
        """
        usual = "cudnn" if self.device.type == "cuda" else "aten"
        exact = self._result("reference", torch.float64)
        limit = max(BUDGET * _error(self._result(usual, None), exact), 1e-6)
        error = _error(self._result(None, None), exact)
        return {"error": error, "limit": limit, "baseline": usual, "passed": error <= limit}  # false for NaN

    def _result(self, implementation: str | None, dtype: torch.dtype | None) -> Tensor:
        """Logits or gradients on some images: of the timed form, or (with an implementation) of an eager copy."""
        model: Any = self.work.model
        forward: Callable[[Tensor], Tensor] = self.forward
        if implementation is not None:
            forward = model = copy.deepcopy(self.work.model).to(dtype=dtype)
            backbone = model.backbone
            backbone.set_implementation(implementation)
            backbone.set_grad_checkpointing()  # in fp64 the activations of large images would not fit
        images = self.work.images[:PROBES].to(dtype or self.work.images.dtype)
        if self.job.mode == "inference":
            with torch.inference_mode():
                return forward(images).double().flatten()
        exact = dtype == torch.float64
        self._gradients(model, forward, images, self.work.targets[:PROBES], autocast=not exact)
        found = torch.cat([p.grad.double().flatten() for p in model.parameters() if p.grad is not None])
        model.zero_grad(set_to_none=True)
        return found

    def _gradients(
        self,
        model: nn.Module,
        forward: Callable[[Tensor], Tensor],
        images: Tensor,
        targets: Tensor,
        autocast: bool = True,
    ) -> None:
        model.zero_grad(set_to_none=True)
        with self.work.autocast() if autocast else torch.autocast(self.device.type, enabled=False):
            loss = F.cross_entropy(forward(images), targets)
        loss.backward()


def _error(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


def main() -> int:
    options = json.loads(sys.argv[1])
    device, dtype = torch.device(options["device"]), getattr(torch, options["dtype"])
    jobs = [Job(**job) for job in options["jobs"]]
    torch.backends.cudnn.benchmark = True
    answers = sys.stdout
    sys.stdout = sys.stderr  # the output of libraries is no answer
    start = time.perf_counter()
    prepared = [_attempt(lambda job=job: _warm(job, device, dtype, options["until"])) for job in jobs]  # type: ignore[misc]
    compiled = sum(isinstance(one, Prepared) for one in prepared)
    ready = {READY: round(time.perf_counter() - start, 1), "compiled": compiled, "of": len(jobs)}
    print(json.dumps(ready), file=answers, flush=True)
    for line in sys.stdin:
        found = prepared[int(line)]
        row = _attempt(lambda found=found: found.row(options["seconds"])) if isinstance(found, Prepared) else found
        timing.free_memory(device)
        print(json.dumps(row), file=answers, flush=True)
    return 0


def _warm(job: Job, device: torch.device, dtype: torch.dtype, until: float) -> Prepared | dict[str, Any]:
    """A job, compiled; a row that says so if its turn comes after `until`, in seconds since 1970."""
    if time.time() > until:
        return {"error": LATE}
    prepared = Prepared(job, device, dtype)
    prepared.warm_up()
    return prepared


def _attempt(action: Callable[[], Any]) -> Any:
    """What `action` returns; if it fails, a row with the error."""
    try:
        return action()
    except Exception as error:
        import traceback

        traceback.print_exc()
        return {"error": describe(error)}


if __name__ == "__main__":
    sys.exit(main())
