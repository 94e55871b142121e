"""The paths through the code in docs/design.md name what exists."""

import importlib
import re
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[2] / "docs" / "design.md").read_text()
STEPS = re.findall(r"^\d+\. .*(?:\n {3}.*)*", TEXT.partition("## Two paths")[2].partition("\n## ")[0], re.MULTILINE)
LAYERS = ("cli", "data", "evaluation", "models", "nn", "ops", "training")


def test_each_path_has_ten_steps() -> None:
    assert [int(step.partition(".")[0]) for step in STEPS] == [*range(1, 11)] * 2


@pytest.mark.parametrize("name", [name for step in STEPS for name in re.findall(r"`([\w.]+)`", step) if "." in name])
def test_what_a_step_names_is_there(name: str) -> None:
    first, *rest = name.split(".")
    if first in LAYERS:
        found = importlib.import_module(f"sequencer2d.{first}")
        for number, part in enumerate(rest):
            if not hasattr(found, part):
                importlib.import_module(".".join(["sequencer2d", first, *rest[: number + 1]]))
            found = getattr(found, part)
    elif first == "task":
        from sequencer2d.tasks import CLASSIFICATION

        found = CLASSIFICATION
        for part in rest:
            found = getattr(found, part)
    else:
        from sequencer2d.tasks.task import Finding

        assert first == "Finding"
        assert all(hasattr(Finding, part) for part in rest)
