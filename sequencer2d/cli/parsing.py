"""The parser of the command line: help at the terminal's width, near misses, checks that need no torch.

A verb's `add_parser` may call `check_first(parser, check)`: `check(arguments)` runs before the verb does, so that a
mistake is answered before torch is imported. A check raises a `UserError` and imports nothing heavy.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from sequencer2d.errors import ConfigError, did_you_mean

Check = Callable[[argparse.Namespace], None]
_COMMAND = re.compile(r"(?P<indent> +)(?P<text>\S.*?)(?: {2,}(?P<remark>\S.*))?")
_CHECKS = "checks"


class Help(argparse.HelpFormatter):
    """Fits all of a help to the terminal's width.

    In descriptions and epilogs a paragraph is filled. An indented line is a command or a term with a remark behind two
    or more spaces; a remark that does not fit stands below it, and a command is never broken.
    """

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = [paragraph.split("\n") for paragraph in text.strip("\n").split("\n\n")]
        return "\n\n".join("\n".join(self._paragraph(lines, width)) for lines in paragraphs)

    def _paragraph(self, lines: list[str], width: int) -> list[str]:
        indented = [_COMMAND.fullmatch(line) for line in lines]
        column = max(
            (len(line["indent"]) + len(line["text"]) for line in indented if line and line["remark"]), default=0
        )
        aligned = all(
            column + 2 + len(line["remark"]) <= width for line in indented if line is not None and line["remark"]
        )
        filled: list[str] = []
        pending: list[str] = []
        for line, command in zip(lines, indented, strict=True):
            if command is None:
                pending.append(line)
                continue
            filled += textwrap.wrap(" ".join(pending), width)
            pending = []
            filled += _command_lines(command, column if aligned else None, width)
        return filled + textwrap.wrap(" ".join(pending), width)


def _command_lines(command: re.Match[str], column: int | None, width: int) -> list[str]:
    indent, text, remark = command["indent"], command["text"], command["remark"]
    if not remark:
        return [indent + text]
    if column is not None:
        return [f"{(indent + text).ljust(column)}  {remark}"]
    below = indent + "    "
    return [indent + text, *textwrap.wrap(remark, width, initial_indent=below, subsequent_indent=below)]


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are errors like any other of a user, in one line, with the closest names."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options.setdefault("formatter_class", Help)
        super().__init__(*args, **options)

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        action: argparse.Action = super().add_argument(*names, **options)
        if action.nargs == argparse.ZERO_OR_MORE:
            action.required = False  # argparse would list it among the missing ones beside another that is missing
        return action

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        if isinstance(action, argparse._SubParsersAction):
            what = f"no {'verb' if action.metavar == 'VERB' else 'kind'} {value!r}"
            close = did_you_mean(value, action.choices)
            see = " See" if close.endswith("?") else "; see"
            raise ConfigError(f"{what}; {close}{see} {self.prog} --help")
        raise argparse.ArgumentError(
            action, f"no choice {value!r}; {did_you_mean(str(value), map(str, action.choices))}"
        )

    def below(self, argv: Iterable[str]) -> argparse.ArgumentParser:
        """The parser of the verb and sub-verb that a command line names."""
        parser: argparse.ArgumentParser = self
        for word in argv:
            for action in parser._actions:
                if isinstance(action, argparse._SubParsersAction) and word in action.choices:
                    parser = action.choices[word]
                    break
        return parser


def unknown_arguments(parser: argparse.ArgumentParser, rest: list[str]) -> ConfigError:
    """The error about arguments that a verb does not take, with the options that come close."""
    options = [name for action in parser._actions for name in action.option_strings if action.help != argparse.SUPPRESS]
    first = next((word for word in rest if word.startswith("-")), "").partition("=")[0]
    close = did_you_mean(first, options, otherwise="") if first else ""
    return ConfigError(
        f"unknown arguments: {' '.join(rest)}; {close + ' See' if close else 'see'} {parser.prog} --help"
    )


def check_first(parser: argparse.ArgumentParser, check: Check) -> None:
    """Run `check` before the verb, after the checks that are there already."""
    parser.set_defaults(**{_CHECKS: (*(parser.get_default(_CHECKS) or ()), check)})


def run_checks(arguments: argparse.Namespace) -> None:
    """Run what `check_first` added for the verb of a command line."""
    for check in getattr(arguments, _CHECKS, ()):
        check(arguments)
