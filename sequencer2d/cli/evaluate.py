"""`sequencer2d eval CHECKPOINT --data …`: measure a model on a data set."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sequencer2d import terminal
from sequencer2d.cli.common import (
    add_checkpoint,
    add_device,
    add_download,
    add_json,
    check_data,
    console,
    field_values,
    need,
    positive,
    progress_bar,
    remark,
    resolve_device,
    writable_path,
)
from sequencer2d.cli.parsing import check_first
from sequencer2d.cli.verbs import EVERY_TASK, TaskVerb
from sequencer2d.cli.writing import writing
from sequencer2d.errors import ConfigError, RunError
from sequencer2d.precisions import autocast_dtype
from sequencer2d.terminal import plain_table, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from sequencer2d.data.config import DataConfig
    from sequencer2d.data.sources import Source
    from sequencer2d.evaluation.subject import Subject
    from sequencer2d.tasks.accuracy import ClassificationResult
    from sequencer2d.tasks.task import Result
    from sequencer2d.training.config import TrainConfig

EPILOG = """\
examples:
  sequencer2d eval runs/digits                                     on the data that the run was trained with
  sequencer2d eval hf-hub:timm/sequencer2d_s.in1k --data /imagenet --batch-size 256 --precision bf16
  sequencer2d eval runs/photos --report report/                    and the confusion matrix, classes, mistakes as files
  sequencer2d eval model.safetensors --data wds:/shards/val.tar --per-class --json
  sequencer2d eval timm:convnext_tiny.fb_in1k --download --data /imagenet     a peer's published weights, its own input
  sequencer2d eval timm:swin_tiny_patch4_window7_224=swin.pth --data /imagenet    a peer with weights from a file
  sequencer2d eval gfnet_h_s=gfnet-h-s.pth --data /imagenet                   a peer of the paper, its authors' file
  torchrun --nproc-per-node 2 -m sequencer2d eval runs/cifar10     the same numbers, every image counted once

Any field of the data configuration is set by its path, for example data.crop_pct=1.0 data.workers=4."""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser], row: TaskVerb = EVERY_TASK) -> None:
    parser = verbs.add_parser(
        "eval",
        **row.describe(
            "eval",
            "measure a model on a data set",
            "Top-1 and top-5 accuracy (%), cross entropy (nats), calibration error (%), accuracy per class.",
            EPILOG,
        ),
    )
    add_checkpoint(parser, peers=True)
    add_download(parser)
    parser.add_argument("fields", nargs="*", metavar="data.field=value", help="set a field of the data configuration")
    parser.add_argument(
        "--data",
        metavar="SOURCE",
        help="folder of images (SOURCE/<split>/<class>/*), digits, wds:<shards>.tar, hfds:<name>, "
        "torch:<name> or the address of packed shards (https://…, s3://…); default for a run's folder: its own data",
    )
    parser.add_argument("--split", metavar="NAME", help="split to evaluate on (default: val, or the run's own)")
    parser.add_argument("--batch-size", type=positive, metavar="N", help="images per step over all processes")
    parser.add_argument("--image-size", type=positive, metavar="PIXELS", help="side of the square input")
    parser.add_argument("--per-class", action="store_true", help="print the number of every class as well")
    parser.add_argument(
        "--report",
        type=writable_path,
        metavar="FOLDER",
        help="of a classifier: write the confusion matrix, a table of the classes and the most confident mistakes, "
        "with pictures, into FOLDER",
    )
    row.add_options(parser)
    add_device(parser, precision_of_run=True)
    add_json(parser)
    check_first(parser, check_data)
    parser.set_defaults(run=run, row=row)


def run(arguments: argparse.Namespace) -> int:
    from sequencer2d.benchmark.cost import count_parameters
    from sequencer2d.data.classes import match
    from sequencer2d.data.loader import build_loader
    from sequencer2d.evaluation.loop import evaluate
    from sequencer2d.evaluation.subject import load_subject
    from sequencer2d.training.config import DistributedConfig
    from sequencer2d.training.distributed import processes

    device = resolve_device(arguments.device)
    subject = load_subject(arguments.checkpoint, variant=arguments.model, download=arguments.download)
    arguments.row.check(subject.task.name, arguments.checkpoint)
    _check_report(arguments, subject)
    config = data_config(arguments, subject.input_fields)
    model: Any = subject.adapted(config.image_size).model
    precision, arithmetic = choose_precision(arguments, device)
    with processes(DistributedConfig(), device.type) as group, arithmetic:
        implementation = take_implementation(model, Path(arguments.checkpoint), device, say=group.main)
        loader = build_loader(
            config,
            config.val_split,
            train=False,
            samples=subject.task.samples,
            rank=group.rank,
            world_size=group.world_size,
        )
        classes = match(model.pretrained_cfg.get("label_names"), model.num_classes, loader.source)
        if group.main and classes.remark:
            remark(classes.remark)
        with progress_bar("batches") as bar:
            task = bar.add_task("eval", total=len(loader))
            result = evaluate(
                model,
                loader,
                arguments.row.with_options(subject.task, arguments),
                device=device if group.world_size == 1 else group.device,
                amp_dtype=autocast_dtype(precision),
                progress=lambda: bar.advance(task),
                classes=classes,
            )
        if group.main:
            about = {
                "model": subject.architecture,
                "weights": arguments.checkpoint,
                "data": {"source": config.source, "root": config.root, "split": config.val_split},
                "parameters": count_parameters(model),
                "image_size": config.size,
                "precision": precision,
            }
            about |= {"implementation": implementation} if implementation else {}
            _print_result(result, arguments, about)
            if arguments.report:
                fed = dataclasses.replace(subject, model=model, data=config, class_names=classes.names)
                _write_report(arguments, result, fed, loader.source, device, precision)
    return 0


def _check_report(arguments: argparse.Namespace, subject: Subject) -> None:
    if arguments.report is None:
        return
    need("matplotlib", "train", "--report")
    if subject.task.name != "classification":
        raise ConfigError(f"--report is for classifiers, and {arguments.checkpoint} is for {subject.task.name}")


def _write_report(
    arguments: argparse.Namespace,
    result: ClassificationResult,
    subject: Subject,
    source: Source,
    device: torch.device,
    precision: str,
) -> None:
    """Write the files of `--report` and say where they are; mistakes are shown for sources of image files."""
    from sequencer2d.analysis.evaluation_report import write_confusion, write_mistakes
    from sequencer2d.evaluation.mistakes import judge

    folder: Path = arguments.report
    title = f"{subject.name} on {subject.data.source} {subject.data.val_split}: {result.top1:.2f} % right"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        files = write_confusion(result, folder, title)
    if len(source) and Path(source.describe(0)).is_file():
        judged = list(judge(subject, source, device=device, amp_dtype=autocast_dtype(precision)))
        with writing(folder):
            files += write_mistakes(judged, folder, title)
    else:
        remark("mistakes are shown for images that are files; these are not")
    for file in files:
        remark(f"written: {file}")


def data_config(arguments: argparse.Namespace, input_: Mapping[str, Any]) -> DataConfig:
    """The data to evaluate on: the run's or a plain configuration, the model's input, then what the user set."""
    from sequencer2d.training.config import TrainConfig
    from sequencer2d.training.fields import with_overrides
    from sequencer2d.training.runfiles import find_config

    base = find_config(Path(arguments.checkpoint))
    if base is None and arguments.data is None:
        raise ConfigError(f"{arguments.checkpoint} is no run's folder and does not name its data: give --data SOURCE")
    values: dict[str, Any] = {f"data.{name}": value for name, value in input_.items()}
    if base is None:
        values["data.batch_size"] = 64
        values["data.workers"] = 2
    if arguments.data is not None:
        values |= {"data.source": arguments.data, "data.root": "", "data.val_fraction": 0.0}
    for name, value in (("val_split", arguments.split), ("batch_size", arguments.batch_size)):
        if value is not None:
            values[f"data.{name}"] = value
    if arguments.image_size is not None:
        values["data.image_size"] = arguments.image_size
    return with_overrides(base or TrainConfig(), {**values, **_data_fields(arguments.fields)}).data


def choose_precision(
    arguments: argparse.Namespace, device: torch.device
) -> tuple[str, contextlib.AbstractContextManager[None]]:
    """The precision to evaluate in, and a block in which torch multiplies as it did in the run.

    It is what `--precision` says; without it, the precision of the checkpoint's run, so that the numbers are those
    of the run's own evaluation; else fp32. A run in fp16 is evaluated in fp32 on a CPU, which has no fp16.

    Raises `ConfigError` where the device has no such arithmetic.
    """
    from sequencer2d.training.numerics import check_precision, numerics

    run = None if arguments.precision else _run_around(Path(arguments.checkpoint))
    if run is None:
        return arguments.precision or "fp32", contextlib.nullcontext()
    precision = "fp32" if (run.precision, device.type) == ("fp16", "cpu") else run.precision
    check_precision(precision, device)
    return precision, numerics(run.run, device)


def take_implementation(model: Any, checkpoint: Path, device: torch.device, *, say: bool) -> str | None:
    """Let a model's recurrences run as in the run that its checkpoint is of, and return the name of how they run.

    None for a model without our recurrences. Where the device lacks what the run named, they run by "auto", and that is
    said if `say`.
    """
    if not hasattr(model, "set_implementation"):
        return None
    run = _run_around(checkpoint)
    name = str(run.model.overrides.get("implementation", "auto")) if run else "auto"
    needed = {"aten": "cpu", "cudnn": "cuda", "triton": "cuda"}.get(name, device.type)
    if needed != device.type:
        if say:
            remark(f"the run's recurrences ran through {name}, which needs {needed}; here they run by auto's choice")
        name = "auto"
    model.set_implementation(name)
    return name


def _run_around(checkpoint: Path) -> TrainConfig | None:
    """The configuration of the run whose folder, or a file in whose folder, `checkpoint` is."""
    from sequencer2d.training.runfiles import find_config

    if checkpoint.is_dir():
        return find_config(checkpoint)
    if not checkpoint.is_file():
        return None
    for folder in (checkpoint.parent, checkpoint.parent.parent):
        with contextlib.suppress(RunError):  # of other programs there
            if config := find_config(folder):
                return config
    return None


def _data_fields(fields: list[str]) -> dict[str, str]:
    values = field_values(fields)
    for path in values:
        if not path.startswith("data."):
            raise ConfigError(f"{path} is no field of the data configuration; eval takes data.field=value")
    return values


def _print_result(result: Result, arguments: argparse.Namespace, about: dict[str, Any]) -> None:
    if arguments.json:
        terminal.write_json({**about, **result.to_dict()})
        return
    from rich.text import Text

    data = about["data"]
    table = plain_table(show_header=False)
    table.add_row("model", Text(printable(about["model"])))
    table.add_row("weights", Text(printable(about["weights"])))
    table.add_row("data", Text(printable(" ".join(filter(None, (data["source"], data["root"], data["split"]))))))
    table.add_row("images", f"{result.count:,}" + (f" ({result.broken} could not be read)" if result.broken else ""))
    for name, value in result.rows():
        table.add_row(name, value)
    table.add_row("precision", about["precision"])
    if arguments.per_class:
        for name, value in result.class_rows():
            table.add_row(Text(printable(name)), value)
    console().print(table)
