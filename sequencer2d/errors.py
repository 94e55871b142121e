"""Errors that a user can cause. Each says what was given, what was expected and what to do."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Base of everything a user can put right; the command line prints it in one line and exits with 2."""


class ConfigError(UserError, ValueError):
    """A configuration field, recipe, model name or option that does not exist or does not fit."""


class CheckpointError(UserError, RuntimeError):
    """A checkpoint that is missing, corrupt, truncated or does not fit the model."""


class RunError(UserError, RuntimeError):
    """A run's folder, or a file in it, that is missing, damaged, in use or of another run."""


class DataError(UserError, RuntimeError):
    """A data source that is missing, empty, inconsistent or too broken to use."""


class InputError(UserError, ValueError):
    """An input tensor or image whose shape, dtype or size the model cannot take."""


class ImplementationError(UserError, RuntimeError):
    """A named implementation of an operation that cannot run here; the message says why."""


class ExportError(UserError, RuntimeError):
    """A model that cannot be exported as asked for, or an artifact that differs from its model."""


class TrustError(UserError, RuntimeError):
    """A file that runs code when it is loaded, without the user's consent."""


class DeviceError(UserError, RuntimeError):
    """A device that was asked for and is not there."""


class NumericalError(Exception):
    """A loss in training, or the output of a model that is judged, is not finite; the command line exits with 3."""


class Interrupted(Exception):
    """Training was asked to stop, by a signal or a limit, and has saved; the command line exits with 75.

    Args:
        message: why, and how to go on.
        by_launcher: whether torchrun ends its processes (SIGTERM, Ctrl-C), perhaps to start them again with others.
            If not, the run itself stops: under torchrun the command line then exits with 0, because torchrun takes
            any other code for a failure, prints a stack of errors and starts the processes again.
    """

    def __init__(self, message: str, *, by_launcher: bool = False) -> None:
        super().__init__(message)
        self.by_launcher = by_launcher


def how_to_install(extra: str) -> str:
    """The command that installs the packages of an extra of `pyproject.toml`, by name and in a checkout."""
    return f"pip install 'sequencer2d[{extra}]', or in a checkout pip install '.[{extra}]'"


def counted(number: int, noun: str, plural: str = "") -> str:
    """ "1 image", "1,234 images"; `plural` where that is not the noun with an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def first_line(error: BaseException, longest: int = 200) -> str:
    """The first line of an error's message that holds something, cut to `longest` characters; else the error's type."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)[:longest]


def did_you_mean(name: str, names: Iterable[str], *, otherwise: str | None = None, cutoff: float = 0.6) -> str:
    """The end of a message about an unknown name.

    Args:
        name: what was given.
        names: what there is.
        otherwise: what to say if nothing comes close; by default all the names.
        cutoff: how alike two names must be to be suggested, from 0 (not at all) to 1 (equal).

    Returns:
        "did you mean a or b?" with up to four of the closest names, or `otherwise`.
    """
    names = list(names)
    close = difflib.get_close_matches(name, names, n=4, cutoff=cutoff)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known: {', '.join(names)}" if otherwise is None else otherwise
