"""`analyze report | app`."""

from __future__ import annotations

import argparse
import socket
from pathlib import Path

from sequencer2d import terminal
from sequencer2d.cli.analyze import common, options
from sequencer2d.cli.analyze.outputs import META, check_page, owners
from sequencer2d.cli.common import need, positive, writable_path
from sequencer2d.cli.parsing import check_first
from sequencer2d.errors import ConfigError


def add_parsers(kinds: options.Kinds) -> None:
    parser = options.new_parser(
        kinds, "report", "everything about one model, beside others, in one self-contained HTML file", run_report
    )
    parser.add_argument(
        "--output", type=writable_path, default="report.html", metavar="FILE", help="the file (default: report.html)"
    )
    check_first(parser, lambda arguments: check_page(Path(arguments.output), arguments.models))
    options.add_workers(parser)
    options.add_data(parser, 200)
    parser = options.new_parser(
        kinds, "app", "a local web page: drop an image, see prediction, receptive field, states", run_app, several=False
    )
    parser.add_argument(
        "--port", type=_port, default=7860, metavar="N", help="of the page, on this machine only (default: 7860)"
    )


def run_report(arguments: argparse.Namespace) -> int:
    from sequencer2d.analysis.report import PARTS, Limits, write_report

    source = common.source_of(arguments)
    models = common.subjects(arguments)
    limits = Limits(images=min(arguments.limit, 50), labeled=arguments.limit, workers=arguments.workers)
    with common.parts_progress("report", len(PARTS)) as (on_part, advance):
        path = write_report(
            models,
            source,
            Path(arguments.output),
            limits=limits,
            common_only=arguments.common_classes,
            specs=arguments.models,
            data=f"{arguments.data}, split {arguments.split}" if arguments.split else arguments.data,
            marks={META: "; ".join(owners(arguments.models))},
            on_part=on_part,
            progress=advance,
        )
    common.say(path)
    return 0


def run_app(arguments: argparse.Namespace) -> int:
    _check_free(arguments.port)
    need("gradio", "app", "the page")
    from sequencer2d.analysis.app import serve

    subject = common.subjects(arguments, any_task=True)[0]
    serve(subject, arguments.port, arguments.model, on_ready=lambda at: terminal.write(f"{at} (Ctrl-C stops it)"))
    return 0


def _port(text: str) -> int:
    value = positive(text)
    if value > 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, got {text!r}")
    return value


def _check_free(port: int) -> None:
    """Raise `ConfigError` before a model is loaded for a page that cannot be served."""
    with socket.socket() as listener:
        # As the server does: a port that was let go a moment ago is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(
                f"no page at port {port} ({error.strerror}): stop what uses it, or choose another one with --port"
            ) from error
