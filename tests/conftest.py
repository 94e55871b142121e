"""What all tests share: no network, no window, the same random numbers, and the marker for GPUs."""

import contextlib
import gc
import importlib.util
import os
from collections.abc import Generator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"

import pytest
import torch

from tests import contracts

contracts.install()

if not torch.cuda.is_available() and importlib.util.find_spec("triton"):
    # On a CPU the kernels run in Triton's interpreter. It is chosen while they are imported, and any test may be the
    # first to import Triton; tests/ops alone runs them.
    os.environ["TRITON_INTERPRET"] = "1"
    for path in sorted(Path(__file__).parents[1].glob("sequencer2d/ops/kernels/[a-z]*.py")):
        with contextlib.suppress(ImportError):  # an older Triton lacks Gluon, or names that the fused products need
            importlib.import_module(f"sequencer2d.ops.kernels.{path.stem}")
    del os.environ["TRITON_INTERPRET"]
with contextlib.suppress(ImportError):
    # Its plugin would import it after the tests. It then asks the garbage collector who holds an object, and finds
    # nobody where objects are frozen, as below.
    import hypothesis  # noqa: F401
# Modules and tests that are collected live until the end. The garbage collector need not walk through their 800,000
# objects again and again, which took a tenth of all tests' time.
gc.disable()
# The tests are small: more threads only wait for each other, and pytest-xdist starts one process a core.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape what is not text in captured output: pytest-xdist cannot send a report with names of arbitrary bytes."""
    report = yield
    report.sections = [(title, text.encode("utf-8", "backslashreplace").decode()) for title, text in report.sections]
    return report


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    torch.manual_seed(0)
