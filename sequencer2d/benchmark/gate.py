"""No rate without a correct result: what is timed is first compared with the reference implementation in fp64.

The very callable that is timed runs at the very shape that is timed; compared are some images of the batch. In
inference their logits; in training the gradients of a loss over those images alone, in which no other image has a part.
The error may be at most BUDGET times that of PyTorch's own recurrences (cuDNN's, on a CPU ATen's), run eagerly in the
same dtype on the same images with the same weights. FLOOR, some rounding steps of fp32, is allowed in any case.
"""

import contextlib
import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sequencer2d.benchmark.contenders import Contender
from sequencer2d.benchmark.steps import Step
from sequencer2d.benchmark.workload import Forward, Workload
from sequencer2d.models import create_model

BUDGET = 2.0
FLOOR = 1e-6
IMAGES = {"inference": 4, "training": 2}

Values = dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a comparison found.

    Attributes:
        quantity: what has the worst ratio of error to limit: "logits", or a group of gradients.
        error: its relative error ‖value − fp64‖ / ‖fp64‖.
        limit: what the error may be at most.
        baseline: the implementation that sets the limit, in the same dtype.
    """

    quantity: str
    error: float
    limit: float
    baseline: str

    @property
    def passed(self) -> bool:
        return self.error <= self.limit  # false for NaN

    def as_dict(self) -> dict[str, Any]:
        finite = self.error == self.error and abs(self.error) != float("inf")
        return {**dataclasses.asdict(self), "error": self.error if finite else None, "passed": self.passed}

    def __str__(self) -> str:
        return (
            f"{self.quantity}: relative error {self.error:.3g}, at most {self.limit:.3g} (2 × {self.baseline}) allowed"
        )


class Gate:
    """The reference results for one workload, computed once for all its forms and kept on the CPU, out of its memory.

    Args:
        contender: must run our code (`Contender.runs_our_code`).
        work: its workload, the weights as they were at the beginning.
    """

    def __init__(self, contender: Contender, work: Workload) -> None:
        self.work = work
        self.probe = _spread(len(work.images), IMAGES[work.mode])
        weights = {name: value.detach().cpu().clone() for name, value in work.model.state_dict().items()}
        self.weights = weights
        self.exact = self._run(contender, "reference", torch.float64)
        self.baseline = "cudnn" if work.device.type == "cuda" else "aten"
        usual = self._run(contender, self.baseline, None)
        self.limits = {name: max(BUDGET * e, FLOOR) for name, e in _errors(usual, self.exact).items()}

    def check(self, step: Step) -> Verdict:
        """Compare one form's step with the reference."""
        found = self._logits(step) if self.work.mode == "inference" else self._step_gradients(step)
        errors = _errors(found, self.exact)
        name = max(errors, key=lambda n: _ratio(errors[n], self.limits[n]))
        return Verdict(name, errors[name], self.limits[name], self.baseline)

    def _logits(self, step: Step) -> Values:
        return {"logits": step.run()[self.probe].double().cpu()}

    def _step_gradients(self, step: Step) -> Values:
        self.work.model.load_state_dict(self.weights)  # steps of other forms, or of a capture, have changed them
        return self._gradients(self.work.model, step.forward, self.work.images, self.probe)

    def _run(self, contender: Contender, implementation: str, dtype: torch.dtype | None) -> Values:
        """Our model's logits or gradients on the probed images, eagerly; dtype None is the workload's precision."""
        model: Any = create_model(contender.model)
        model.load_state_dict(self.weights)
        model.set_implementation(implementation)
        images = self.work.images[self.probe]
        model = model.to(device=images.device, dtype=dtype or images.dtype).train(self.work.model.training)
        images = images.to(dtype or images.dtype)
        if self.work.mode == "inference":
            with torch.inference_mode():
                return {"logits": model(images).double().cpu()}
        everything = torch.arange(len(images), device=images.device)
        return self._gradients(model, model, images, everything, exact=dtype == torch.float64)

    def _gradients(
        self, model: nn.Module, forward: Forward, images: Tensor, rows: Tensor, *, exact: bool = False
    ) -> Values:
        """Gradients of the mean cross entropy over `rows` of the batch, grouped: the recurrences' and all others."""
        model.zero_grad(set_to_none=True)
        with contextlib.nullcontext() if exact else self.work.autocast():
            logits = forward(images)[rows]
            loss = F.cross_entropy(logits, self.work.targets[self.probe])
        loss.backward()
        groups: dict[str, list[Tensor]] = {"gradients of the recurrences": [], "other gradients": []}
        for name, parameter in model.named_parameters():
            group = "gradients of the recurrences" if ".rnn_tokens.rnn" in name else "other gradients"
            value = parameter.grad if parameter.grad is not None else torch.full_like(parameter, torch.nan)
            groups[group].append(value.double().flatten().cpu())
        model.zero_grad(set_to_none=True)
        return {group: torch.cat(values) for group, values in groups.items()}


def _spread(batch: int, count: int) -> Tensor:
    """`count` rows of a batch, half from its beginning and half from its end."""
    half = (count + 1) // 2
    return torch.tensor(sorted({*range(min(half, batch)), *range(max(batch - count + half, 0), batch)}))


def _errors(found: Values, exact: Values) -> dict[str, float]:
    return {name: float((found[name] - value).norm() / value.norm()) for name, value in exact.items()}


def _ratio(error: float, limit: float) -> float:
    return error / limit if error == error else float("inf")
