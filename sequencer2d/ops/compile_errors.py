"""Kernels that do not compile: the error, its one line, and what is remembered so that it is not tried again."""

import warnings
from collections.abc import Hashable

from sequencer2d.errors import ImplementationError

_RULED_OUT: dict[Hashable, str] = {}


class CompileError(ImplementationError):
    """The installed Triton does not compile a kernel for a device."""


def ruled_out(*problem: Hashable) -> str | None:
    """Why the kernels did not compile for a problem that was run; None if they did or were not tried."""
    return _RULED_OUT.get(problem)


def rule_out(*problem: Hashable, error: Exception, instead: str) -> None:
    """Remember that kernels do not compile for a problem, and warn once."""
    if problem not in _RULED_OUT:
        _RULED_OUT[problem] = reason = f"its kernels do not compile with Triton {triton_version()}: {first_line(error)}"
        names = " ".join(str(part) for part in problem)
        warnings.warn(f"{names}: {reason}; {instead}", RuntimeWarning, stacklevel=2)


def compile_error(error: Exception, *problem: Hashable) -> CompileError:
    """The error to raise where a kernel does not compile for a problem, from Triton's error."""
    return CompileError(f"{' '.join(str(part) for part in problem)}: {first_line(error)}")


def triton_version() -> str:
    import triton

    return str(triton.__version__)


def first_line(error: Exception) -> str:
    """The line of a compiler's error that says what is wrong: the last line with text of the first cause."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip(" ^\t")]
    return f"{type(cause).__name__}: {lines[-1] if lines else ''}"[:300]
