"""The efficiency benchmark: Sequencer and its peers, each at its best, in images/s, milliseconds and MiB.

Method: steps are timed by CUDA events (on a CPU by the clock) after warm-up, and medians taken; inputs are random;
every shape is compiled for itself; peers run in the same process, on the same device, each in every form. What runs
our code is first compared with the reference in fp64 (`gate`): a wrong result has no rate. The device's ceilings are
measured in the same run. Inference holds weights and images in the dtype and reads its input from one place, so that a
graph needs no copy; training is forward, cross entropy, backward and fused AdamW under autocast, with fp32 weights and
without stochastic depth.
"""

from sequencer2d.benchmark.cases import Case, make_cases
from sequencer2d.benchmark.contenders import PEERS, Contender, parse_contender
from sequencer2d.benchmark.forms import FORMS, LEAN, PAPER, Form, available_forms
from sequencer2d.benchmark.loop import result_header, run
from sequencer2d.benchmark.plans import PLANS, Plan, Sweep
from sequencer2d.benchmark.results import (
    ResultFile,
    best_rows,
    label,
    latest,
    merge,
    read_result,
    with_ratio,
)
from sequencer2d.benchmark.table1 import Accuracy, read_accuracies, table1
from sequencer2d.benchmark.timing import ceilings
from sequencer2d.benchmark.turns import Turns
from sequencer2d.benchmark.workload import DTYPES, MODES

__all__ = [
    "DTYPES",
    "FORMS",
    "LEAN",
    "MODES",
    "PAPER",
    "PEERS",
    "PLANS",
    "Accuracy",
    "Case",
    "Plan",
    "ResultFile",
    "Contender",
    "Form",
    "Sweep",
    "Turns",
    "available_forms",
    "best_rows",
    "ceilings",
    "label",
    "latest",
    "make_cases",
    "merge",
    "parse_contender",
    "read_accuracies",
    "read_result",
    "result_header",
    "run",
    "table1",
    "with_ratio",
]
