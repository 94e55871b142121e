"""`sequencer2d export CHECKPOINT --format …`: a model for other runtimes."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sequencer2d import terminal
from sequencer2d.cli.common import add_checkpoint, add_json, check_images, console, writable_path
from sequencer2d.cli.parsing import check_first
from sequencer2d.errors import ExportError, did_you_mean
from sequencer2d.terminal import plain_table

if TYPE_CHECKING:
    from sequencer2d.export import Exported

FORMATS = ("torch", "aoti", "onnx", "openvino", "web")
SUFFIXES = {"torch": ".pt2", "aoti": ".pt2", "onnx": ".onnx", "openvino": ".xml", "web": ".html"}

EPILOG = """\
examples:
  sequencer2d export runs/cifar10 --format onnx                       runs/cifar10/sequencer2d_n.onnx
  sequencer2d export hf-hub:timm/sequencer2d_s.in1k --format openvino --output s.xml
  sequencer2d export model.safetensors --format onnx --precision int8 --images photos/
  sequencer2d export runs/camvid --format onnx                        a model for segmentation: the logits of each pixel
  sequencer2d export runs/bccd --format onnx                          a detector: the boxes in an image of a fixed size
  sequencer2d export runs/photos --format web --runtime onnxruntime-web-1.30.0.tgz

formats:
  torch     torch.export program, for Python with this package: .pt2
  aoti      AOTInductor package, compiled code for C++ and Python: .pt2; needs a C++ compiler, runs on a like CPU
  onnx      ONNX, for ONNX Runtime: .onnx
  openvino  OpenVINO: .xml, and .bin beside it
  web       one page that recognizes photos in a browser, without network: .html; --runtime says with what

Batch, height and width stay free, from the model's stride plus one pixel up; a detector takes one image of the run's
size. The artifact is run beside the model, on random and on real images at three sizes; one that differs is not left
behind. It carries class names, mean, std, size and interpolation, and `sequencer2d predict` and `bench` take it in
place of a checkpoint."""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "export",
        help="write a model for other runtimes",
        description=("Write a model for torch.export, AOTInductor, ONNX Runtime, OpenVINO or a browser, and check it."),
        epilog=EPILOG,
    )
    add_checkpoint(parser)
    parser.add_argument("--format", required=True, metavar="FORMAT", help=f"one of {', '.join(FORMATS)}")
    parser.add_argument(
        "--output",
        type=writable_path,
        metavar="FILE",
        help="default: in the run's folder, under the model's name; beside a file, under its name",
    )
    parser.add_argument(
        "--precision",
        default="fp32",
        metavar="NAME",
        help="fp32, bf16 (torch, aoti) or int8 (onnx, web) (default: fp32)",
    )
    parser.add_argument(
        "--opset", type=int, metavar="N", help="set of operators of ONNX, 18 to 25 (onnx) (default: 18)"
    )
    parser.add_argument(
        "--runtime",
        metavar="FILE",
        help="ONNX Runtime Web (web): what `npm pack onnxruntime-web` leaves, or the folder of the unpacked package",
    )
    parser.add_argument(
        "--images",
        nargs="+",
        metavar="IMAGE",
        help="real images to compare on, files or folders (default: scikit-learn's photographs, if it is installed)",
    )
    add_json(parser)
    check_first(parser, check_images)
    check_first(parser, _check_format)
    parser.set_defaults(run=run)


def _check_format(arguments: argparse.Namespace) -> None:
    if arguments.format not in FORMATS:
        raise ExportError(f"no format {arguments.format!r}; {did_you_mean(arguments.format, FORMATS)}")


def run(arguments: argparse.Namespace) -> int:
    from sequencer2d.data.finding import find_images
    from sequencer2d.evaluation.loading import task_of
    from sequencer2d.export import export_model
    from sequencer2d.export.exporting import check_options
    from sequencer2d.models import load_model, read_checkpoint
    from sequencer2d.tasks import CLASSIFICATION

    check_options(
        arguments.output or f"model{SUFFIXES.get(arguments.format, '')}",
        arguments.format,
        arguments.precision,
        arguments.opset,
        arguments.runtime,
    )
    images = find_images(arguments.images) if arguments.images else None
    if task_of(read_checkpoint(arguments.checkpoint)) is not CLASSIFICATION:
        exported = _export_dense(arguments, images)
    else:
        model = load_model(arguments.checkpoint, name=arguments.model)
        exported = export_model(
            model,
            arguments.output or _default_output(arguments.checkpoint, model.variant, arguments.format),
            arguments.format,
            precision=arguments.precision,
            opset=arguments.opset,
            runtime=arguments.runtime,
            images=images,
        )
    if arguments.json:
        terminal.write_json(_plain(exported))
    else:
        _print_table(exported)
    return 0


def _export_dense(arguments: argparse.Namespace, images: Sequence[Path] | None) -> Exported:
    """The checkpoint of a segmenter or a detector as ONNX. Raises `ExportError` for other formats."""
    from sequencer2d import export
    from sequencer2d.evaluation.subject import load_checkpoint

    if (arguments.format, arguments.precision, arguments.opset) != ("onnx", "fp32", None):
        raise ExportError("segmenters and detectors are written with --format onnx alone, in fp32 and opset 18")
    subject = load_checkpoint(arguments.checkpoint)
    if subject.task.name == "detection":
        output = arguments.output or _default_output(arguments.checkpoint, "detector", arguments.format)
        return export.export_detector(subject.model, output, images=images)
    output = arguments.output or _default_output(arguments.checkpoint, "segmenter", arguments.format)
    return export.export_dense(subject.model, output, images=images)


def _default_output(checkpoint: str, variant: str, format: str) -> Path:
    """In a run's folder, under the model's name; beside a file, or here for one from the hub, under its own name."""
    source = Path(checkpoint)
    folder = source if source.is_dir() else source.parent if source.is_file() else Path()
    own = source.stem if source.is_file() else checkpoint.partition("@")[0].rpartition("/")[2]
    name = variant if source.is_dir() else own
    return folder / f"{name}{'-aoti' if format == 'aoti' else ''}{SUFFIXES[format]}"


def _plain(exported: Exported) -> dict[str, Any]:
    return {**dataclasses.asdict(exported), "path": str(exported.path)}


def _print_table(exported: Exported) -> None:
    table = plain_table("input", "batch", "size, pixels", "largest relative difference")
    for row in exported.differences:
        table.add_row(row.source, str(row.batch), f"{row.size[0]}×{row.size[1]}", f"{row.relative:.1e}")
    console().print(table)
    console().print(
        f"\n{exported.path}: {exported.size_mib:.1f} MiB, {exported.recurrent_nodes} recurrent nodes of "
        f"{exported.nodes}, {exported.seconds:.0f} s",
        highlight=False,
        soft_wrap=True,
    )
    if not any(row.source == "images" for row in exported.differences):
        console().print("compared on random images only: give real ones with --images", highlight=False)
