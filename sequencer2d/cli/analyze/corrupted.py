"""`analyze imagenet-c | corruptions`: the released benchmark, and another one of corruptions made on the fly."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from sequencer2d.cli.analyze import common, options
from sequencer2d.cli.common import add_json, positive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sequencer2d.evaluation.imagenet_c import Release
    from sequencer2d.evaluation.mce import CorruptionResult


def add_parsers(kinds: options.Kinds) -> None:
    parser = options.new_parser(kinds, "imagenet-c", "errors on the released ImageNet-C, and mCE", run_imagenet_c)
    parser.add_argument(
        "--data", required=True, metavar="FOLDER", help="the release: FOLDER/<corruption>/<severity>/<class>/*.JPEG"
    )
    parser.add_argument(
        "--clean", metavar="SOURCE", help="the images without corruption, SOURCE/val/<class>/*, measured as well"
    )
    _add_choice(parser)
    parser.add_argument(
        "--limit", type=positive, metavar="N", help="at most N images of each corruption and severity (default: all)"
    )
    parser.add_argument("--common-classes", action="store_true", help="leave out classes that the model does not have")
    parser.add_argument("--batch-size", type=positive, default=128, metavar="N", help="images at once (default: 128)")
    parser.add_argument(
        "--workers",
        type=options.natural,
        metavar="N",
        help="processes that read images (default: one for each core, up to 16)",
    )
    options.add_output(parser, "imagenet-c")
    add_json(parser)
    parser = options.new_parser(
        kinds,
        "corruptions",
        "the 15 corruptions of ImageNet-C made on the fly on any data (not ImageNet-C: no mCE), and calibration",
        run_corruptions,
    )
    _add_choice(parser)
    options.add_workers(parser)
    options.add_data(parser, None)
    options.add_output(parser, "corruptions")
    add_json(parser)


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corruptions", nargs="+", metavar="NAME", help="some of them (default: all 15)")
    parser.add_argument("--severities", nargs="+", type=int, metavar="N", help="1 to 5 (default: all)")


def run_imagenet_c(arguments: argparse.Namespace) -> int:
    from sequencer2d.data.opening import open_source
    from sequencer2d.evaluation.imagenet_c import open_release, release_errors

    names, severities = _chosen(arguments)
    clean = open_source(arguments.clean, "val") if arguments.clean else None
    release = open_release(arguments.data, corruptions=names, severities=severities)
    if not release.complete or arguments.limit:
        common.remark(_part_of_the_release(release, common.count_images(arguments, release)))
    images = common.count_images(arguments, release) * len(release.cells)
    images += common.count_images(arguments, clean) if clean is not None else 0
    results = [
        release_errors(
            subject, release, clean=clean, limit=arguments.limit, batch_size=arguments.batch_size,
            workers=arguments.workers, common_only=arguments.common_classes, progress=advance,
        )
        for subject, advance in common.each_subject(arguments, "ImageNet-C by", images)
    ]  # fmt: skip
    _write(results, arguments)
    rows = [_row(result) | {"mCE, %": result.mce} for result in results]
    if arguments.json:
        rows = [row | {"errors, %": _by_corruption(result)} for row, result in zip(rows, results, strict=True)]
    common.print_rows(rows, arguments.json)
    return 0


def run_corruptions(arguments: argparse.Namespace) -> int:
    from sequencer2d.evaluation.robustness import corruption_errors

    source = common.source_of(arguments)
    names, severities = _chosen(arguments)
    total = len(names) * len(severities) * common.count_images(arguments, source)
    results = [
        corruption_errors(
            subject, source, corruptions=names, severities=severities, limit=arguments.limit,
            workers=arguments.workers, common_only=arguments.common_classes, progress=advance,
        )
        for subject, advance in common.each_subject(arguments, "corruptions of", total)
    ]  # fmt: skip
    _write(results, arguments)
    common.print_rows([_row(result) for result in results], arguments.json)
    return 0


def _chosen(arguments: argparse.Namespace) -> tuple[tuple[str, ...], tuple[int, ...]]:
    from sequencer2d.evaluation.corruptions import CORRUPTIONS, SEVERITIES

    return tuple(arguments.corruptions or CORRUPTIONS), tuple(arguments.severities or SEVERITIES)


def _part_of_the_release(release: Release, images: int) -> str:
    return (
        f"this is not all of ImageNet-C: {images:,} of 50,000 images in {len(release.any_cell.class_names):,} of 1,000 "
        f"classes, {len(release.corruptions)} of 15 corruptions at {len(release.severities)} of 5 severities; compare "
        "the numbers with each other, not with published ones"
    )


def _write(results: Sequence[CorruptionResult], arguments: argparse.Namespace) -> None:
    """The arrays of each model, and the figures of all."""
    from sequencer2d.analysis.charts import calibration_chart, corruption_chart

    for result in results:
        common.write(arguments, result.save, result.model)
    common.write_figure(corruption_chart(results), arguments)
    common.write_figure(calibration_chart(results), arguments, "calibration")


def _row(result: CorruptionResult) -> dict[str, Any]:
    """Percentages; none for what was not measured."""
    values = {
        "clean error, %": result.clean_error,
        "mean error, %": result.mean_error,
        "clean ECE, %": result.clean_calibration,
        "mean ECE, %": float(result.calibration.mean()),
    }
    shown = {name: None if value != value else 100 * value for name, value in values.items()}
    return {"model": result.model, "images": result.count, **shown}


def _by_corruption(result: CorruptionResult) -> dict[str, list[float]]:
    """Error in percent at each severity."""
    return {name: (100 * row).tolist() for name, row in zip(result.corruptions, result.error, strict=True)}
