"""Precisions are one table, which the command line, training and the benchmark read."""

import subprocess
import sys
from typing import get_args, get_type_hints

import pytest
import torch

from sequencer2d.benchmark import DTYPES
from sequencer2d.precisions import PRECISIONS, autocast_dtype, dtype_of
from sequencer2d.training.config import TrainConfig

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def test_each_precision_has_its_type() -> None:
    assert {name: dtype_of(name) for name in PRECISIONS} == TYPES == DTYPES
    with pytest.raises(KeyError):
        dtype_of("fp8")


def test_autocast_has_nothing_to_do_in_fp32() -> None:
    assert {name: autocast_dtype(name) for name in PRECISIONS} == {**TYPES, "fp32": None}


def test_a_run_takes_all_of_them() -> None:
    assert get_args(get_type_hints(TrainConfig)["precision"]) == PRECISIONS


def test_their_names_are_known_without_torch() -> None:
    script = "import sys, sequencer2d.precisions; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
