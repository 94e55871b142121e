"""TF32 by either of PyTorch's interfaces, and the dtype under autocast, are read in one place and never an error."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
import torch

from sequencer2d.ops import precision, rnn2d

HAS_NEWER = hasattr(torch.backends.cudnn, "rnn") and hasattr(torch.backends.cudnn.rnn, "fp32_precision")
newer = pytest.mark.skipif(not HAS_NEWER, reason="this PyTorch has the older interface alone")

# Set in a process of its own, as it cannot be undone: how a user may have set TF32, and whether it is allowed then.
SETTINGS = {
    "pass": False,
    "torch.set_float32_matmul_precision('high')": True,
    "torch.backends.cuda.matmul.allow_tf32 = True": True,
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'": True,
    "torch.backends.cuda.matmul.fp32_precision = 'ieee'": False,
    "torch.backends.fp32_precision = 'tf32'": True,
    "torch.backends.fp32_precision = 'ieee'": False,
    "torch.backends.cudnn.rnn.fp32_precision = 'ieee'": False,
    "torch.backends.cudnn.fp32_precision = 'ieee'": False,
}
PROGRAM = """
import json, os, sys, traceback
import torch
from sequencer2d.ops import precision, rnn2d
def effective():
    b = torch.backends
    switches = (b.cuda.matmul, b.cudnn.conv, b.cudnn.rnn)
    return [s.fp32_precision == "tf32" for s in switches]
def check(setting, expected):
    exec(setting)
    before = effective()
    assert precision.allows_tf32() is expected, precision.allows_tf32()
    for allowed in (True, False):
        with precision.tf32(allowed):
            assert effective() == [allowed] * 3, effective()
            assert torch.backends.cuda.matmul.allow_tf32 is allowed
            assert torch.get_float32_matmul_precision() == ("high" if allowed else "highest")
            assert torch.backends.cudnn.allow_tf32 is allowed
        assert effective() == before, (allowed, before, effective())
    assert precision.allows_tf32() is expected
def run_kernels(value):
    torch.backends.cuda.matmul.fp32_precision = value
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shapes = ((1, 2, 3, 16), (4, 64, 16), (4, 64, 16), (4, 64), (4, 64))
    for dtype in (torch.float32, torch.float16):
        arguments = [torch.randn(*shape, device=device).to(dtype).requires_grad_() for shape in shapes]
        rnn2d(*arguments, implementation="triton").sum().backward()
        assert all(a.grad.isfinite().all() for a in arguments)
codes = {}
for setting, expected in json.loads(sys.argv[1]).items():
    child = os.fork()
    if not child:
        try:
            run_kernels(setting) if expected is None else check(setting, expected)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    codes[setting] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(json.dumps(codes))
"""


KERNELS = ("tf32", "ieee")
"""Values of the newer interface with which the kernels run; on a CPU, Triton's interpreter runs them."""


@pytest.fixture(scope="module")
def outcomes():
    """The exit code of a process for each setting, and what all of them wrote to standard error."""
    environment = os.environ if torch.cuda.is_available() else {**os.environ, "TRITON_INTERPRET": "1"}
    kernels = dict.fromkeys(KERNELS if importlib.util.find_spec("triton") else ())
    command = [sys.executable, "-c", PROGRAM, json.dumps(SETTINGS | kernels)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout), done.stderr


@newer
@pytest.mark.parametrize("setting", SETTINGS)
def test_either_interface_is_read_and_put_back(setting, outcomes):
    codes, errors = outcomes
    assert codes[setting] == 0, errors


@newer
@pytest.mark.parametrize("value", KERNELS)
def test_the_kernels_run_after_the_newer_interface_was_used(value, outcomes):
    """On a GPU the kernels, elsewhere Triton's interpreter; in training too."""
    pytest.importorskip("triton", reason="Triton is not installed")
    codes, errors = outcomes
    assert codes[value] == 0, errors


def test_autocast_leaves_float64_alone():
    x = torch.randn(1, 2, 3, 8, dtype=torch.float64)
    weights = [torch.randn(*shape, dtype=torch.float64) for shape in ((4, 32, 8), (4, 32, 8), (4, 32), (4, 32))]
    expected = rnn2d(x, *weights, implementation="reference")
    with torch.autocast("cpu", torch.bfloat16):
        assert precision.compute_dtype(x) is torch.float64
        assert precision.compute_dtype(x.float()) is torch.bfloat16
        for implementation in ("auto", "aten", "reference"):
            y = rnn2d(x, *weights, implementation=implementation)
            assert y.dtype is torch.float64
            torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
