"""Every kernel compiles for GPUs that are not here and fits their shared memory: the interpreter shows neither."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sequencer2d.ops import targets

FEW, MANY, LINE = (1, 14, 14), (1024, 14, 14), (1, 1, 196)


def gpu(major, minor):
    """Compute capability, and bytes of shared memory that a program can have, of a row of the table of devices."""
    (row,) = (row for row in targets.TARGETS if row.capability == (major, minor))
    return 10 * major + minor, row.shared_bytes


# (compute capability, bytes of shared memory that a program can have) and (tokens (B, H, W), D, cell, dtype): chosen so
# that all GPUs take a minute on one core. An A100 does not hold D 96, an H200 D 128 as the table of launches has them.
GPUS = {
    "A100": (
        gpu(8, 0),
        [
            (FEW, 96, "lstm", "bfloat16"),
            (LINE, 192, "lstm", "bfloat16"),
            (FEW, 24, "gru", "float32"),
            (FEW, 48, "rnn", "bfloat16"),
        ],
    ),
    # What the smallest shared memory takes where W_hh is in registers.
    "RTX": (gpu(8, 9), [(FEW, 96, "lstm", "float16"), (FEW, 64, "lstm", "bfloat16")]),
    "H200": (
        gpu(9, 0),
        [
            (MANY, 96, "lstm", "bfloat16"),
            (FEW, 48, "lstm", "bfloat16"),
            (FEW, 128, "lstm", "bfloat16"),
            (FEW, 24, "lstm", "float32"),
            (FEW, 192, "gru", "float32"),
            (FEW, 48, "gru", "bfloat16"),
            (FEW, 24, "rnn", "float32"),
        ],
    ),
}


def missing_compiler() -> str | None:
    spec = importlib.util.find_spec("triton")
    if spec is None or spec.origin is None:
        return "Triton is not installed"
    bundled = Path(spec.origin).parent / "backends/nvidia/bin/ptxas"
    if not (bundled.exists() or os.environ.get("TRITON_PTXAS_PATH") or shutil.which("ptxas")):
        return "Triton has no ptxas here, which it compiles for CUDA with"
    return None


def compile_kernels(capability, shared, cases, path=None, **options):
    """The answer of `compile_kernels`; path: of another Triton, to be taken before the installed one."""
    names = ("grid", "hidden", "cell", "dtype_name")
    order = {"capability": capability, "shared": shared, **options}
    order["cases"] = [dict(zip(names, case, strict=True)) for case in cases]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    if path is not None:
        environment["PYTHONPATH"] = os.pathsep.join([str(path), *filter(None, [environment.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "tests.ops.compile_kernels"],
        input=json.dumps(order), env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def repeated_launches(path=None):
    """The answer of `repeat_launches`; path: of another Triton, to be taken before the installed one."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    if path is not None:
        environment["PYTHONPATH"] = os.pathsep.join([str(path), *filter(None, [environment.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "tests.ops.repeat_launches"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check_repeated(answer, kernels):
    """Each kernel was launched through its handle as it was through Triton."""
    assert [first[0] for first, _ in answer["kernels"]] == kernels
    for first, second in answer["kernels"]:
        assert first == second
        assert first[3][:2] == ["tensor 0", "tensor 1"]
        assert sum(argument.startswith("tensor ") for argument in first[3]) >= 3


def check(answer, cases, gpu):
    """Every kernel of every case compiled; on the GPU that the table of launches is for, its first launch fits."""
    results = dict(zip(cases, answer["results"], strict=True))
    errors = {case: result["error"] for case, result in results.items() if "error" in result}
    assert not errors, errors
    if gpu == "H200":
        refused = {case: result["refused"] for case, result in results.items() if case[1] in (48, 96)}
        assert not any(any(counts.values()) for counts in refused.values()), refused


@pytest.mark.parametrize("gpu", GPUS)
def test_kernels_compile_and_fit(gpu):
    reason = missing_compiler()
    if reason:
        pytest.skip(reason)
    (capability, shared), cases = GPUS[gpu]
    answer = compile_kernels(capability, shared, cases)
    assert answer["problems"] == {"shared": None, "registers": None, "products": None, "blocks": None}
    check(answer, cases, gpu)


@pytest.mark.parametrize("kernels", [(16, "rnn", "float16"), (48, "lstm", "bfloat16")], ids=str)
def test_one_binary_serves_all_grids(kernels):
    """Batch, height and width are no constants to the compiler: a new size of image costs no compilation."""
    reason = missing_compiler()
    if reason:
        pytest.skip(reason)
    grids = [(1, 1, 1), (1, 16, 16), (2, 14, 14), (3, 7, 9), (16, 16, 32), (1, 32, 1)]
    (capability, shared), _ = GPUS["H200"]
    results = compile_kernels(capability, shared, [(grid, *kernels) for grid in grids])["results"]
    assert all("error" not in result for result in results), results
    assert results[0]["binaries"]
    assert all(result["binaries"] == results[0]["binaries"] for result in results)


def test_fp32_has_registers_enough():
    """At the most hidden units of kernels that the compiler unrolls, a thread kept up to 5 KB in local memory."""
    reason = missing_compiler()
    if reason:
        pytest.skip(reason)
    (capability, shared), _ = GPUS["H200"]
    limits = {"triton_forward.forward_kernel": 128, "triton_backward.backward_kernel": 256}
    answer = compile_kernels(capability, shared, [(FEW, 128, "lstm", "float32")], measured=list(limits))
    (result,) = answer["results"]
    assert "error" not in result, result
    assert set(result["spills"]) == set(limits)
    assert all(result["spills"][name] <= limit for name, limit in limits.items()), result["spills"]
