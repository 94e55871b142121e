"""Tasks: one row each says what differs between classification and any other task. `get(name)`."""

from sequencer2d.errors import ConfigError, did_you_mean
from sequencer2d.tasks.classification import CLASSIFICATION
from sequencer2d.tasks.detection import DETECTION
from sequencer2d.tasks.segmentation import SEGMENTATION
from sequencer2d.tasks.task import Task

__all__ = ["CLASSIFICATION", "DETECTION", "SEGMENTATION", "TASKS", "Task", "get"]

TASKS: dict[str, Task] = {task.name: task for task in (CLASSIFICATION, SEGMENTATION, DETECTION)}


def get(name: str) -> Task:
    """The task of a name. Raises `ConfigError` for an unknown one, with close matches."""
    if name not in TASKS:
        raise ConfigError(f"unknown task {name[:50]!r}; {did_you_mean(name, TASKS)}")
    return TASKS[name]
