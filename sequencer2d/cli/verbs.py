"""Verbs that train, evaluate and predict: `sequencer2d train` for any task, `sequencer2d segment train` for one.

A task's verb is a row of `TASK_VERBS`. It holds words for its help and what its `predict` writes beside a table; the
code is that of `train`, `eval` and `predict`, and what a task does stands in its row in `sequencer2d.tasks`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sequencer2d.errors import ConfigError

AddParser = Callable[..., None]


@dataclass(frozen=True)
class Output:
    """A flag of a task's `predict` that writes what was found, by the writer of the same name in `Task.writers`."""

    writer: str
    """`coco` is the flag `--coco`."""
    metavar: str
    """FILE or FOLDER."""
    help: str


@dataclass(frozen=True)
class Option:
    """An option of a task's `eval` and `predict` that `Task.inference` takes as a keyword."""

    name: str
    """`window` is the flag `--window`."""
    help: str
    metavar: str = ""
    """Empty for a flag without a value."""
    read: Callable[[str], Any] = str
    """Text of the argument → value; raises `argparse.ArgumentTypeError`."""


@dataclass(frozen=True)
class TaskVerb:
    """One row: the words of a task on the command line."""

    name: str = ""
    """The verb; empty for `train`, `eval` and `predict` themselves, which take every task."""
    task: str | None = None
    """Its row in `tasks.TASKS`; none: every task."""
    summary: str = ""
    """Help beside the verb."""
    helps: Mapping[str, str] = field(default_factory=dict)
    """Help beside each of its verbs; `train`, `eval` and `predict` have their own where none is given."""
    examples: Mapping[str, str] = field(default_factory=dict)
    """Examples below the help of each of its verbs, without the indent."""
    outputs: tuple[Output, ...] = ()
    options: tuple[Option, ...] = ()

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the options to a parser of `eval` or `predict`."""
        for option in self.options:
            how: dict[str, Any] = {"action": "store_true"}
            if option.metavar:
                how = {"type": option.read, "metavar": option.metavar}
            parser.add_argument(f"--{option.name}", default=None, help=option.help, **how)

    def with_options(self, task: Any, arguments: argparse.Namespace) -> Any:
        """The task, run as the options say; the task itself where none is given."""
        given = {option.name: getattr(arguments, option.name) for option in self.options}
        given = {name: value for name, value in given.items() if value is not None}
        return replace(task, infer=task.inference(**given)) if given else task

    def describe(self, verb: str, summary: str, description: str, epilog: str) -> dict[str, Any]:
        """Arguments of a parser: the row's words for `verb`, or those that are given where the row has none."""
        if not self.name:
            return {"help": summary, "description": description, "epilog": epilog}
        summary = self.helps.get(verb, summary)
        text = summary[:1].upper() + summary[1:] + "."
        lines = "\n".join(f"  sequencer2d {self.name} {line}" for line in self.examples[verb].splitlines())
        notes = epilog.partition("\n\n")[2]  # what stands below the examples holds for every task
        return {
            "help": summary,
            "description": text,
            "epilog": f"examples:\n{lines}" + (f"\n\n{notes}" if notes else ""),
        }

    def check(self, task: str, what: str) -> None:
        """Raise `ConfigError` unless `what`, a run or a recipe, is of the verb's task."""
        if self.task not in (None, task):
            other = next((row.name for row in TASK_VERBS if row.task == task), "")
            instead = f"sequencer2d {other} " if other else "sequencer2d "
            raise ConfigError(
                f"{what} is for task={task}, not for {self.name}, which has task={self.task}; "
                f"use {instead}train, eval or predict"
            )


def pixels(text: str) -> int:
    """An argument that is a number of pixels, at least 32."""
    if not text.isdecimal() or not 32 <= int(text) <= 65536:
        raise argparse.ArgumentTypeError(f"expected a number of pixels, at least 32, got {text!r}")
    return int(text)


def factors(text: str) -> tuple[float, ...]:
    """An argument that lists factors from 0.1 to 10, "0.75,1,1.25"."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(0.1 <= value <= 10 for value in values):
        raise argparse.ArgumentTypeError(f"expected factors from 0.1 to 10, such as 0.75,1,1.25, got {text!r}")
    return values


EVERY_TASK = TaskVerb(outputs=(Output("csv", "FILE", "write the classes and probabilities (0 to 1) as a CSV file"),))
TASK_VERBS: tuple[TaskVerb, ...] = (
    TaskVerb(
        name="segment",
        task="segmentation",
        summary="train, evaluate and use models that name the class of every pixel",
        helps={
            "train": "train a segmentation model by a recipe",
            "eval": "measure mIoU and pixel accuracy on a data set",
            "predict": "color the classes in photos",
        },
        examples={
            "train": "train --list\ntrain camvid data.root=/data/camvid",
            "eval": "eval runs/camvid --per-class\neval runs/camvid --data /data/camvid --split test --json",
            "predict": "predict runs/camvid photo.jpg --pictures drawn/\npredict runs/camvid photos/ --labels masks/",
        },
        outputs=(Output("labels", "FOLDER", "write the class of each pixel, a number, as PNG files there"),),
        options=(
            Option("window", "run on overlapping square windows of this side, not on whole images", "PIXELS", pixels),
            Option("scales", "average over sizes of the images, such as 0.75,1,1.25 (default: 1)", "LIST", factors),
            Option("flip", "average over mirrored images too"),
        ),
    ),
    TaskVerb(
        name="detect",
        task="detection",
        summary="train, evaluate and use models that find objects",
        helps={
            "train": "train a detector by a recipe",
            "eval": "measure COCO's average precision on a data set",
            "predict": "draw boxes around the objects in photos",
        },
        examples={
            "train": "train --list\ntrain bccd data.root=/data/bccd\ntrain coco_retinanet_s data.root=/data/coco",
            "eval": "eval runs/bccd --split test --per-class\neval runs/bccd --data /data/bccd --json",
            "predict": "predict runs/bccd photo.jpg --pictures drawn/\npredict runs/bccd photos/ --coco boxes.json",
        },
        outputs=(Output("coco", "FILE", "write the boxes as a data set in COCO's format, with scores"),),
    ),
)


def add_task_verb(verbs: argparse._SubParsersAction[Any], row: TaskVerb, parts: tuple[AddParser, ...]) -> None:
    """Add a task's verb with its own `train`, `eval` and `predict`, which `parts` add."""
    lines = [line for verb in ("train", "eval", "predict") for line in row.examples[verb].splitlines()[-1:]]
    parser = verbs.add_parser(
        row.name,
        help=row.summary,
        description=row.summary[:1].upper() + row.summary[1:] + ".",
        epilog="\n".join(["examples:", *(f"  sequencer2d {row.name} {line}" for line in lines)]),
    )
    below = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for part in parts:
        part(below, row)
