"""`sequencer2d train RECIPE [field=value …]`: train a model."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sequencer2d import terminal
from sequencer2d.cli.common import FIELD, console, field_values, remark
from sequencer2d.cli.outcome import report
from sequencer2d.cli.verbs import EVERY_TASK, TaskVerb
from sequencer2d.environment import launch
from sequencer2d.errors import ConfigError
from sequencer2d.terminal import plain_table

if TYPE_CHECKING:
    from sequencer2d.training.config import TrainConfig

EPILOG = """\
examples:
  sequencer2d train --list                                     the recipes
  sequencer2d train --fields                                   what can be set, in which range and unit
  sequencer2d train digits                                     on the CPU, in minutes
  sequencer2d train cifar10 data.root=/images run.output=runs/a
  sequencer2d train cifar10 optimizer.lr=1e-3 --dry-run        print the resolved configuration, train nothing
  sequencer2d train --resume runs/a                            go on where runs/a stopped
  torchrun --nproc-per-node 8 -m sequencer2d train imagenet_s data.root=/imagenet

Every field of the configuration is set by its path; --dry-run prints all of them. Times are in seconds (names end in
_s) or epochs, sizes in pixels, batch sizes in images per optimizer step over all processes."""


OWN_FOLDER = "\0"
"""What `--resume` alone stands for: no path can be this, and an empty one is a mistake."""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser], row: TaskVerb = EVERY_TASK) -> None:
    parser = verbs.add_parser(
        "train",
        **row.describe(
            "train",
            "train a model by a recipe",
            "Train a model by a recipe. The run's folder gets checkpoints, logs, curves and a summary.",
            EPILOG,
        ),
    )
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="name of a recipe; see --list")
    parser.add_argument("fields", nargs="*", metavar="field=value", help="set a field of the configuration")
    parser.add_argument(
        "--resume",
        nargs="?",
        const=OWN_FOLDER,
        metavar="RUN",
        help="go on from the last checkpoint of the folder RUN (default: the recipe's run.output)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")
    parser.add_argument("--json", action="store_true", help="with --dry-run, --list or --fields: print JSON")
    parser.add_argument("--list", action="store_true", help="list the recipes and stop")
    parser.add_argument(
        "--fields",
        action="store_true",
        dest="list_fields",
        help="list the fields: default, range and unit, purpose",
    )
    parser.set_defaults(run=run, row=row)


def run(arguments: argparse.Namespace) -> int:
    if arguments.list:
        return _list_recipes(arguments.json, arguments.row)
    if arguments.list_fields:
        return _list_fields(arguments.json)
    from sequencer2d.training.config import validate

    config = resolve(arguments.recipe, arguments.fields, arguments.resume)
    arguments.row.check(config.task, arguments.recipe or "the run")
    validate(config, launch().world_size)
    if arguments.dry_run:
        from sequencer2d.training.assemble import check_parts

        check_parts(config)
        return _print_config(config, arguments.json)
    from sequencer2d.training.loop import train

    summary = train(config)
    _report(config, summary)
    if config.run.mistakes and not launch().rank:
        report(config, summary)
    return 0


def resolve(recipe: str | None, fields: list[str], resume: str | None) -> TrainConfig:
    """The configuration that a command line asks for. Raises `ConfigError`.

    `resume` is none without `--resume`, `OWN_FOLDER` for `--resume` alone and else the run's folder; argparse may have
    put a field=value there, or into `recipe`.
    """
    from sequencer2d import recipes
    from sequencer2d.ranges import expand_home
    from sequencer2d.training.fields import with_overrides

    if resume and FIELD.match(resume) and not Path(resume).exists():
        fields, resume = [resume, *fields], OWN_FOLDER
    if recipe and FIELD.match(recipe):
        fields, recipe = [recipe, *fields], None
    values = field_values(fields)
    folder = None if resume in (None, OWN_FOLDER) else expand_home(str(resume), "--resume")
    if folder is not None and not folder.strip():
        raise ConfigError("--resume names an empty path; give the run's folder, or --resume alone for the recipe's")
    if resume is not None:
        values["run.resume"] = "true"
    if folder is not None:
        values["run.output"] = folder
    if recipe is not None:
        return with_overrides(recipes.get(recipe), values)
    if folder is None:
        raise ConfigError(f"name a recipe ({', '.join(recipes.names())}), or a run to go on with: --resume RUN")
    from sequencer2d.training.runfiles import read_config, without_limits

    return with_overrides(without_limits(read_config(Path(folder))), values)


def _report(config: TrainConfig, summary: dict[str, Any]) -> None:
    """Say on standard error what came out; under torchrun the first process does."""
    from sequencer2d import tasks

    if launch().rank:
        return
    metric = tasks.get(config.task).decides
    final, best = summary["final"], summary["best"]
    at_best = f", {metric.show(best[metric.key])} after epoch {best['epoch']} (best.safetensors)" if best else ""
    remark(
        f"done in {summary['duration_s'] / 60:.1f} min: {metric.label} {metric.show(final[metric.key])} after the last "
        f"epoch{at_best}; everything is in {config.run.output}"
    )


def _print_config(config: TrainConfig, as_json: bool) -> int:
    from sequencer2d.training.fields import describe, to_dict

    if as_json:
        terminal.write_json(to_dict(config))
    else:
        terminal.write(describe(config))
    return 0


def _list_fields(as_json: bool) -> int:
    from sequencer2d.ranges import describe, leaves
    from sequencer2d.training.config import TrainConfig
    from sequencer2d.training.field_help import field_texts
    from sequencer2d.training.fields import show_value, value_at

    default, texts = TrainConfig(), field_texts(TrainConfig)
    rows = {
        path: {"takes": describe(hint), "default": value_at(default, path), "about": texts[path]}
        for path, hint in leaves(TrainConfig)
    }
    if as_json:
        terminal.write_json(rows)
        return 0
    for path, row in rows.items():
        lines = [row["takes"], *textwrap.wrap(row["about"], 100)]
        terminal.write("\n    ".join([f"{path} = {show_value(row['default'])}", *lines]))
    return 0


def _list_recipes(as_json: bool, row: TaskVerb) -> int:
    from sequencer2d import recipes

    wanted = [name for name in recipes.names() if row.task in (None, recipes.get(name).task)]
    rows = {name: recipes.summary(name) for name in wanted}
    if as_json:
        terminal.write_json(rows)
        return 0
    table = plain_table("recipe", "what it trains")
    for name, summary in rows.items():
        table.add_row(name, summary)
    console().print(table)
    return 0
