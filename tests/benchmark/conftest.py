"""The small variant stands in the table of variants, and a run does not measure the device's limits."""

import pytest

from sequencer2d.benchmark import timing
from sequencer2d.models.variants import VARIANTS
from tests.benchmark.small import ROW, SMALL


@pytest.fixture(autouse=True)
def small_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VARIANTS, SMALL, ROW)


@pytest.fixture(autouse=True)
def known_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "ceilings", lambda device, **_: {"copy_tb_per_s": 1.0})
