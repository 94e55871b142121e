"""A run whose blocks are compiled is the run that it is without."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sequencer2d.errors import ConfigError, Interrupted
from sequencer2d.training.loop import train
from tests.training.conftest import logged
from tests.training.exchange import FORMS

REPOSITORY = Path(__file__).parents[2]

# The compiler looks at `.grad` of the tensors that it is given.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


@pytest.fixture(autouse=True)
def without_code(monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    yield
    torch.compiler.reset()


def test_losses_are_those_without_a_compiler(tiny):
    logs = []
    for mode in (False, "blocks"):
        config = tiny(str(mode), run__compile=mode, run__max_steps=2)
        with pytest.raises(Interrupted):
            train(config)
        logs.append(logged(config.run.output))
    for expected, found in zip(*logs, strict=True):
        assert (found["loss"], found["grad_norm"]) == pytest.approx((expected["loss"], expected["grad_norm"]), rel=1e-5)


def test_a_model_without_such_blocks_is_refused(tiny):
    config = tiny(run__compile="blocks", model__name="timm:resnet10t", model__overrides={})
    with pytest.raises(ConfigError, match=r"run\.compile=true"):
        train(config)


@pytest.fixture(scope="module")
def exchange(tmp_path_factory):
    """What `exchange` writes, by form, and what it prints."""
    path = tmp_path_factory.mktemp("exchange") / "events.json"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "tests.training.exchange", str(path)]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(path.read_text()), done.stderr


@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_exchanged_while_backward_still_computes(exchange, form):
    """Compiled as a whole too: within DDP, PyTorch cuts the compiled model where buckets end."""
    events = exchange[0][form]
    assert events.count("computed") >= 3
    last = len(events) - 1 - events[::-1].index("computed")
    assert events[:last].count("exchanged") >= 2


def test_gradients_have_the_strides_that_ddp_expects(exchange):
    assert "strides" not in exchange[1]
