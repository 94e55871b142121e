"""What a plan is. A plan's models differ in nothing but what their rows say."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Model(NamedTuple):
    """One line of a plan."""

    row: str
    """The paper's table and row that it stands for."""
    overrides: Mapping[str, Any] = {}
    """Fields of the model's configuration, see `sequencer2d.models.ModelConfig`, or arguments of timm's model."""
    model: str = "sequencer2d_n"
    """Name of the model, as `sequencer2d.create_model` takes it."""
    minutes: float = 6
    """Expected time of a run on one H200, written down before the first run: images over the expected rate, and one
    minute for compilation and evaluations."""
    fields: Mapping[str, str] = {}
    """Fields of the recipe that this line changes, after those of the plan."""
    start: str | None = None
    """PLAN/MODEL whose finished run of the same seed gives the first weights; none: from scratch."""
    run: str | None = None
    """PLAN/MODEL whose runs these are, because the same run serves two tables; none: runs of their own."""
    data: str = ""
    """Folder below `--data` that holds the images; empty: `--data` itself."""


class Plan(NamedTuple):
    """Models that are trained alike, for one table."""

    about: str
    """What is compared, what a run is expected to take, and what was changed in the recipe and why."""
    models: Mapping[str, Model]
    fields: Mapping[str, str] = {}
    """Fields of the recipe that all models of the plan change."""

    def minutes(self, seeds: int = 1) -> float:
        """Expected GPU minutes of all runs."""
        return seeds * sum(model.minutes for model in self.models.values())


STRIDE_4 = {"patch_sizes": (4, 2, 1, 1)}
"""Strides of our models on images of 64²: 16×16 tokens in the first stage, 8×8 in the others."""
