"""A run whose blocks are compiled is the run that it is without."""

import functools

import pytest
import torch

from sequencer2d.errors import ConfigError, Interrupted
from sequencer2d.training.loop import train
from tests.training.conftest import logged

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
