"""Mixed precision: fp16 as the paper's runs, whose gradients a scaler keeps in fp16's range, and bf16 without one."""

import json
from pathlib import Path

import pytest
import torch

from sequencer2d.errors import Interrupted
from sequencer2d.training.assemble import build_model, build_step, resolve
from sequencer2d.training.distributed import processes
from sequencer2d.training.loop import train
from sequencer2d.training.step import TrainStep
from sequencer2d.training.window import LossWindow
from tests.training.conftest import logged

LR = 1e-3


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (48, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 10, (48,), generator=generator)


def weights_of(step: TrainStep) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in step.model.named_parameters()}


@pytest.fixture
def steps(tiny):
    """Builds the optimizer step in a precision, on the CPU: the command line refuses fp16 there as too slow."""

    def build(precision: str, **fields: object) -> TrainStep:
        config = resolve(tiny(precision=precision, data__erasing=0.0, model__drop_path_rate=0.0, **fields), 10)
        with processes(config.distributed, "cpu") as here:
            return build_step(config, build_model(config, here.device), here)

    return build


def gradients(step: TrainStep, scale: float | None = None) -> torch.Tensor:
    """All gradients of the first step as the optimizer gets them: unscaled, and before clipping."""
    if scale is not None:
        step.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    images, targets = step.prepare(*batch(), step=0)
    step._accumulate(images, targets)
    if step.scaler.is_enabled():
        step.scaler.unscale_(step.optimizer)
    return torch.cat([parameter.grad.flatten() for parameter in step.model.parameters()])


def test_fp16_has_a_scaler_and_bf16_and_fp32_have_none(steps):
    scalers = {name: steps(name).scaler for name in ("fp32", "bf16", "fp16")}
    assert {name: scaler.is_enabled() for name, scaler in scalers.items()} == {
        "fp32": False,
        "bf16": False,
        "fp16": True,
    }
    assert scalers["fp16"].get_scale() == 2**16, "torch's first scale, as in the authors' code"


def test_gradients_in_fp16_are_those_of_fp32_to_its_rounding(steps):
    exact = gradients(steps("fp32"))
    errors = {name: (gradients(steps(name)) - exact).norm() / exact.norm() for name in ("fp16", "bf16")}
    assert 0 < errors["fp16"] < 8 * torch.finfo(torch.float16).eps
    assert errors["fp16"] < errors["bf16"], "fp16 has 3 bits more"


def test_the_scaler_keeps_what_would_vanish_in_fp16(steps):
    """Of gradients as small as those of a loss over many classes; without a scale most are 0 in fp16."""
    lost = {}
    for scale in (1.0, 2.0**16):
        step = steps("fp16")
        with torch.no_grad():
            for parameter in step.model.head.parameters():
                parameter.mul_(0).add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) * 1e-4)
        found = gradients(step, scale)
        lost[scale] = (found == 0).float().mean().item()
    assert lost[2.0**16] < 0.2 * lost[1.0]


def test_a_step_that_overflows_is_left_out_and_the_scale_halved(steps):
    step = steps("fp16")
    step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    before = weights_of(step)
    loss, norm = step(*batch(), 0, LR)
    assert loss.isfinite()
    assert not norm.isfinite()
    assert all(torch.equal(value, before[name]) for name, value in weights_of(step).items())
    assert step.scaler.get_scale() == 2.0**59
    for number in range(1, 60):
        step(*batch(), number, LR)
    assert step.scaler.get_scale() < 2.0**40
    after = weights_of(step)
    assert any(not torch.equal(value, before[name]) for name, value in after.items())
    assert all(value.isfinite().all() for value in after.values())


def test_a_step_that_was_left_out_has_no_norm_in_the_log():
    window = LossWindow(lambda losses: losses)
    for norm in (torch.tensor(2.0), torch.tensor(torch.inf)):
        window.add(torch.tensor(1.0), norm)
    window.drain(2)
    assert window.take_mean() == (1.0, None)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_the_norm_is_clipped_after_the_scale_is_taken_out(steps, accumulation):
    fields = {"optimizer__accumulation": accumulation}
    norms = {name: steps(name, **fields)(*batch(), 0, LR)[1].item() for name in ("fp32", "fp16")}
    assert norms["fp16"] == pytest.approx(norms["fp32"], rel=5e-3)


@pytest.mark.gpu
def test_on_a_gpu_fp16_trains_as_fp32_does_and_goes_on_with_its_scale(tiny, tmp_path: Path):
    fields = {"run__device": "cuda", "run__epochs": 2}
    losses = {}
    for precision in ("fp32", "bf16", "fp16"):
        train(tiny(precision, precision=precision, **fields))
        losses[precision] = [entry["loss"] for entry in logged(tmp_path / precision) if entry["kind"] == "step"]
    for precision, tolerance in (("fp16", 0.01), ("bf16", 0.05)):
        assert losses[precision] == pytest.approx(losses["fp32"], rel=tolerance)
    with pytest.raises(Interrupted):
        train(tiny("parts", precision="fp16", run__max_steps=13, **fields))
    assert scaler_of(tmp_path / "parts")["_growth_tracker"] == 13, "no step was left out"
    train(tiny("parts", precision="fp16", run__resume=True, **fields))
    assert scaler_of(tmp_path / "parts") == scaler_of(tmp_path / "fp16")
    resumed = [entry["loss"] for entry in logged(tmp_path / "parts") if entry["kind"] == "step"]
    assert resumed == pytest.approx(losses["fp16"], rel=1e-3)
    assert json.loads((tmp_path / "parts/config.json").read_text())["precision"] == "fp16"


def scaler_of(folder: Path) -> dict[str, float]:
    return torch.load(folder / "checkpoints/last.pt", weights_only=True)["scaler"]


@pytest.mark.gpu
@pytest.mark.parametrize("variant", ["sequencer2d_s", "sequencer2d_s_gru"])
def test_on_a_gpu_scaled_gradients_of_the_papers_model_stay_finite_in_fp16(tiny, variant):
    """224², as the ImageNet recipes train it: the kernels' backward pass holds the scale of 2^16."""
    config = tiny(
        model__name=variant, model__overrides={"depths": (1, 1, 1, 1)}, data__image_size=224, data__batch_size=16,
        precision="fp16", run__device="cuda",
    )  # fmt: skip
    config = resolve(config, 1000)
    with processes(config.distributed, "cuda") as here:
        step = build_step(config, build_model(config, here.device), here)
        torch.nn.init.normal_(step.model.head.fc.weight, std=0.02)
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (16, 3, 224, 224), dtype=torch.uint8, generator=generator).cuda()
        targets = torch.randint(0, 1000, (16,), generator=generator).cuda()
        for number in range(5):
            loss, norm = step(images, targets, number, LR)
            assert loss.isfinite()
            assert norm is not None
            assert norm.isfinite()
        assert step.scaler.get_scale() == 2**16
