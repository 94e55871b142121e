"""Compiles and starts kernels, and tries the next launch configuration where one does not fit the device."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from triton.compiler.errors import CompilationError
from triton.runtime.errors import OutOfResources, PTXASError

from sequencer2d.ops import compile_errors
from sequencer2d.ops.kernels.prepared import Handle, make_handle

Candidate = TypeVar("Candidate")

_REFUSED: set[tuple[Any, ...]] = set()


def run_kernel(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> Handle | None:
    """Launch a kernel. With fake tensors it is only compiled.

    Returns a handle that repeats the launch with other tensors; None in the interpreter and for fake tensors.
    """
    options["enable_fp_fusion"] = True  # Triton's default until 3.10. From 3.9 on it warns where the option is missing.
    if isinstance(arguments[0], FakeTensor):
        kernel.warmup(*(a.dtype if isinstance(a, Tensor) else a for a in arguments), grid=grid, **options)
        return None
    compiled = kernel[grid](*arguments, **options)
    return make_handle(kernel, compiled, grid, arguments, options)


def first_that_fits(
    key: tuple[Any, ...], candidates: Sequence[Candidate], start: Callable[[Candidate], Handle | None]
) -> Handle | None:
    """Start a kernel with the first of `candidates` that compiles and that the device has room for.

    How much shared memory and how many registers a kernel takes is known only after it is compiled. A candidate that
    was refused is not tried again.

    Args:
        key: what the kernel is compiled for apart from the candidate, and the device.
        candidates: launch configurations, best first.
        start: launches the kernel with a candidate.

    Returns:
        What `start` returned for the candidate that ran.

    Raises:
        CompileError: the last candidate does not compile.
        OutOfResources: the device has no room for the last candidate.
    """
    for candidate in candidates:
        last = candidate is candidates[-1]
        if last or (*key, candidate) not in _REFUSED:
            try:
                return start(candidate)
            except OutOfResources:
                if last:
                    raise
            except Exception as error:
                if not is_compile_error(error):
                    raise
                if last:
                    raise compile_errors.compile_error(error, *key) from error
                compile_errors.rule_out(*key, candidate, error=error, instead="the next launch of the table runs")
            _REFUSED.add((*key, candidate))
    return None


@contextlib.contextmanager
def compiling(*problem: Any) -> Iterator[None]:
    """Turn a failure to compile into a `CompileError` that names the problem."""
    try:
        yield
    except Exception as error:
        if not is_compile_error(error):
            raise
        raise compile_errors.compile_error(error, *problem) from error


def is_compile_error(error: Exception) -> bool:
    """Whether Triton failed to compile a kernel. A mistake that the interpreter finds does not count."""
    pass_failed = isinstance(error, RuntimeError) and "PassManager" in str(error)
    return pass_failed or isinstance(error, (CompilationError, PTXASError))
