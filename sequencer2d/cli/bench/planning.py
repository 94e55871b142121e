"""Which cases a command line of `sequencer2d bench` asks for."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING

from sequencer2d import terminal
from sequencer2d.cli.common import console, remark
from sequencer2d.errors import ConfigError
from sequencer2d.terminal import plain_table

if TYPE_CHECKING:
    import torch

    from sequencer2d.benchmark import Case

FIELDS = {"models": "models", "batch": "batches", "size": "sizes", "mode": "modes"}
"""Option → field of a sweep that it replaces."""


def plan_cases(arguments: argparse.Namespace, device: torch.device) -> list[Case]:
    """The cases of a plan; models, batch, size and mode where they are named replace those of its sweeps.

    Without a plan these are one sweep; without anything it is the plan "quick".

    Raises:
        ConfigError: an unknown plan, model, mode, dtype or form.
    """
    from sequencer2d.benchmark import FORMS, PLANS, Plan, available_forms
    from sequencer2d.benchmark.plans import QUICK, QUICK_CPU

    if arguments.plan and arguments.plan not in PLANS:
        raise ConfigError(f"no plan {arguments.plan!r}; there are {', '.join(PLANS)}")
    quick = QUICK if device.type == "cuda" else QUICK_CPU
    plan = PLANS[arguments.plan] if arguments.plan else Plan("as given", (quick,))
    given = {field: tuple(getattr(arguments, name)) for name, field in FIELDS.items() if getattr(arguments, name)}
    sweeps = [dataclasses.replace(sweep, **given).limited(arguments.dtype, arguments.forms) for sweep in plan.sweeps]
    default_dtypes = ["bf16"] if device.type == "cuda" else ["fp32"]
    cases = Plan(plan.question, tuple(sweeps)).cases(default_dtypes, available_forms(device))
    if not cases:
        limits = ", ".join(f"{name!r} is for {form.restriction}" for name, form in FORMS.items() if form.restriction)
        raise ConfigError(
            f"nothing to measure: --forms {','.join(arguments.forms)} does not fit the models, --mode and --dtype; "
            f"{limits}"
        )
    return cases


def shard_of(cases: list[Case], shard: tuple[int, int] | None) -> list[Case]:
    """The cases of one part of several: whole workloads if there are enough of them, whose models are compared."""
    if shard is None:
        return cases
    index, count = shard
    workloads = list(dict.fromkeys(map(_workload, cases)))
    if len(workloads) < count:
        return cases[index - 1 :: count]
    mine = set(workloads[index - 1 :: count])
    return [case for case in cases if _workload(case) in mine]


def list_plans() -> int:
    """Print the plans and what each answers."""
    from sequencer2d.benchmark import PLANS

    table = plain_table("plan", "what it answers")
    for name, plan in PLANS.items():
        table.add_row(name, plan.question)
    console().print(table)
    return 0


def print_cases(cases: list[Case]) -> int:
    """Print the cases, one a line, and on standard error how many rows they are."""
    for case in cases:
        terminal.write(f"{case}: {', '.join(case.forms)}")
    remark(f"{sum(len(case.forms) for case in cases)} rows")
    return 0


def command() -> str:
    """The command line that runs, for the result file."""
    return " ".join(["sequencer2d", *sys.argv[1:]])


def _workload(case: Case) -> tuple[str, str, int, int]:
    return case.mode, case.dtype, case.batch, case.size
