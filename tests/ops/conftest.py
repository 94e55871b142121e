"""The kernels' tests run on a GPU where there is one, and in Triton's interpreter elsewhere (see tests/conftest.py)."""

from collections.abc import Iterator

import pytest
import torch

from sequencer2d.ops import devices


@pytest.fixture(scope="session")
def device() -> torch.device:
    pytest.importorskip("triton", reason="Triton is not installed")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def interpreter(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if torch.cuda.is_available():
        yield
        return
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    devices._ask.cache_clear()
    yield
    devices._ask.cache_clear()
