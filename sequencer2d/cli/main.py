"""The command `sequencer2d`: finds the verb, runs it and turns what went wrong into a line and an exit code.

A verb is a module of this folder with `add_parser(verbs)`, which adds its sub-parser and sets `run` as its default, and
`run(arguments) -> int`, which returns the exit code. A verb's module imports only the standard library at its top:
torch is loaded when a verb runs, so that `--help` answers at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from sequencer2d import __version__, terminal
from sequencer2d.cli import (
    analyze,
    bench,
    compare,
    data,
    demo,
    embed,
    evaluate,
    export,
    finetune,
    models,
    pack,
    predict,
    probe,
    similar,
    train,
)
from sequencer2d.cli.common import FIELD
from sequencer2d.cli.parsing import Parser, run_checks, unknown_arguments
from sequencer2d.cli.verbs import TASK_VERBS, add_task_verb
from sequencer2d.cli.writing import NO_ROOM, no_room
from sequencer2d.environment import is_first_process, under_torchrun
from sequencer2d.errors import Interrupted, NumericalError, UserError

VERBS = (
    models,
    data,
    pack,
    finetune,
    train,
    evaluate,
    compare,
    predict,
    embed,
    similar,
    probe,
    export,
    analyze,
    bench,
    demo,
)

EXIT_USER = 2
EXIT_NUMERICAL = 3
EXIT_INTERRUPTED = 75
EXIT_KEYBOARD = 130
EXIT_BROKEN_PIPE = 141

EPILOG = """\
examples:
  sequencer2d finetune photos/             a model for your own photos, a folder for each class
  sequencer2d predict runs/photos photo.jpg
  sequencer2d train --list                 the recipes

exit codes: 0 done; 2 a mistake that the message says how to put right; 3 the training loss was not finite;
4 sequencer2d data found something wrong in a data set; 75 stopped by a signal or a limit after saving (go on with:
sequencer2d train --resume RUN), under torchrun 0; 130 stopped by Ctrl-C; 141 the program that read the output has
ended"""


def entry_point() -> None:
    """What the installed command calls."""
    sys.exit(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (by default the process's own) and return its exit code.

    Errors that are not a user's mistake keep their traceback: they are faults of this package, to be reported whole.
    """
    terminal.install_log_handler(first=is_first_process())
    try:
        arguments = parse(argv)
        run_checks(arguments)
        code: int = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except SystemExit as done:  # argparse, after --help and --version
        return done.code if isinstance(done.code, int) else 0
    except UserError as error:
        return _fail(error, EXIT_USER)
    except NumericalError as error:
        return _fail(error, EXIT_NUMERICAL)
    except Interrupted as error:
        if is_first_process():
            _fail(error, EXIT_INTERRUPTED)
        return 0 if under_torchrun() and not error.by_launcher else EXIT_INTERRUPTED
    except KeyboardInterrupt:
        return _fail("stopped", EXIT_KEYBOARD)
    except BrokenPipeError:
        if not _discard_unread_output():
            raise
        return EXIT_BROKEN_PIPE
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        return _fail(no_room(error), EXIT_USER)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments of a command line; fields (field=value) may stand anywhere after the verb. Raises `ConfigError`."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser()
    arguments, rest = parser.parse_known_args(argv)
    fields = [argument for argument in rest if FIELD.match(argument)]
    if len(fields) < len(rest) or (fields and not hasattr(arguments, "fields")):
        raise unknown_arguments(parser.below(argv), rest)
    if fields:
        arguments.fields += fields
    return arguments


def build_parser() -> Parser:
    """The parser of the whole command line, every verb included."""
    parser = Parser(
        prog="sequencer2d",
        description="Sequencer: deep LSTMs for image classification. Train, evaluate and use the models.",
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"sequencer2d {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for verb in VERBS:
        verb.add_parser(verbs)
    for row in TASK_VERBS:
        add_task_verb(verbs, row, (train.add_parser, evaluate.add_parser, predict.add_parser))
    return parser


def _fail(reason: BaseException | str, code: int) -> int:
    message = " ".join(str(reason).split())
    terminal.write(terminal.printable(f"sequencer2d: {message}"), error=True)
    return code


def _discard_unread_output() -> bool:
    """Whether standard output is a pipe that nobody reads any more, as after `| head`. Drops what is left for it."""
    output = sys.stdout.fileno()
    try:
        os.write(output, b"\n")
    except BrokenPipeError:
        # Python flushes again when it exits, and would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
        return True
    return False
