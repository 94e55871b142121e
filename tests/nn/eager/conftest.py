"""The device, and Triton's interpreter where it is the CPU."""

import pytest
import torch

from sequencer2d.ops import devices


@pytest.fixture(scope="module")
def device():
    pytest.importorskip("triton", reason="Triton is not installed")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def interpreter(monkeypatch):
    if not torch.cuda.is_available():
        monkeypatch.setenv("TRITON_INTERPRET", "1")
        devices._ask.cache_clear()
        yield
        devices._ask.cache_clear()
    else:
        yield
