"""One optimizer step: its arithmetic, its memory format, and its gradients in any division of the batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sequencer2d.training.assemble import build_model, build_step, resolve
from sequencer2d.training.distributed import processes
from tests.training import two_processes

REPOSITORY = Path(__file__).parents[2]
IMAGES = torch.randint(0, 256, (48, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(48) % 10


@pytest.fixture
def steps(tiny):
    """Builds the optimizer step of a configuration, on the CPU."""

    def build(**fields):
        config = resolve(tiny(data__erasing=0.0, model__drop_path_rate=0.0, **fields), 10)
        with processes(config.distributed, "cpu") as here:
            return build_step(config, build_model(config, here.device), here)

    return build


@pytest.mark.parametrize(
    "precision, dtype", [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_layers_compute_in_the_precision_of_the_run_and_parameters_stay_in_fp32(steps, precision, dtype):
    step = steps(precision=precision)
    found = []
    step.model.get_classifier().register_forward_hook(lambda module, inputs, output: found.append(output.dtype))
    step(IMAGES, TARGETS, 0, 1e-3)
    assert found == [dtype]
    assert {parameter.dtype for parameter in step.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("given", [torch.channels_last, torch.contiguous_format])
def test_the_model_gets_images_in_the_memory_format_of_the_run(steps, channels_last, given):
    step = steps(run__channels_last=channels_last)
    found = []
    step.model.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0]))
    step(IMAGES.contiguous(memory_format=given), TARGETS, 0, 1e-3)
    wanted = torch.channels_last if channels_last else torch.contiguous_format
    assert [images.is_contiguous(memory_format=wanted) for images in found] == [True]
    assert not found[0].is_contiguous(memory_format=torch.contiguous_format if channels_last else torch.channels_last)


@pytest.fixture(scope="module")
def divided(tmp_path_factory):
    """What `two_processes` writes, by file name."""
    folder = tmp_path_factory.mktemp("divided")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-W", "ignore", "-m", "tests.training.two_processes", str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    return {path.stem: torch.load(path, weights_only=True) for path in folder.glob("*.pt")}


def relative_error(found, wanted):
    return ((found - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("accumulation", two_processes.ACCUMULATIONS)
def test_two_processes_have_the_gradients_of_one(divided, accumulation):
    alone = divided[f"alone-{accumulation}"]["gradients"]
    assert alone.norm() > 0.1
    first, second = (divided[f"rank{rank}-{accumulation}"]["gradients"] for rank in range(2))
    assert torch.equal(first, second)
    assert relative_error(first, alone) < 16 * torch.finfo(torch.float32).eps


def test_micro_batches_have_the_gradients_of_the_whole_batch(divided):
    assert relative_error(divided["alone-3"]["gradients"], divided["alone-1"]["gradients"]) < 1e-6


def test_processes_exchange_gradients_once_a_step_however_many_micro_batches(divided):
    assert divided["rank0-1"]["exchanges"] > 0
    assert divided["rank0-3"]["exchanges"] == divided["rank0-1"]["exchanges"]
