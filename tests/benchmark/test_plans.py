"""Plans: at which batches and sizes their models are measured; workloads: what is rounded, and what autocast sees."""

import pytest
import torch
from torch import nn

from sequencer2d.benchmark import PLANS, Sweep, parse_contender
from sequencer2d.benchmark.gate import IMAGES
from sequencer2d.benchmark.workload import CLASSES, Workload, make_workload
from tests.benchmark.small import CPU

INFERENCE, TRAINING = "inference", "training"
WORKLOADS = {
    "headline": {(INFERENCE, 256, 224), (TRAINING, 128, 224), (INFERENCE, 1, 224), (INFERENCE, 16, 448),
                 (INFERENCE, 16, 896)},
    "quick": {(INFERENCE, 1, 224), (INFERENCE, 128, 224)},
    "peers": {(INFERENCE, 256, 224), (TRAINING, 128, 224)},
    "latency": {(INFERENCE, 1, 224)},
    "table1": {(mode, 16, size) for mode in (INFERENCE, TRAINING) for size in (224, 384, 392)},
    "batches": {(INFERENCE, batch, 224) for batch in (1, 4, 16, 64, 256)}
               | {(TRAINING, batch, 224) for batch in (16, 64, 128)},
    "resolutions": {(mode, 16, size) for mode in (INFERENCE, TRAINING) for size in (224, 448, 672, 896)},
    "implementations": {(INFERENCE, 1, 224), (INFERENCE, 256, 224), (TRAINING, 128, 224)},
}  # fmt: skip


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_measures_at_the_batches_and_sizes_that_it_is_for(name: str) -> None:
    found = {(case.mode, case.batch, case.size) for case in PLANS[name].cases(["bf16"], ["eager"])}
    assert found == WORKLOADS[name]


def test_table_1_is_measured_by_the_papers_protocol_in_fp32_too() -> None:
    cases = PLANS["table1"].cases(["bf16"], ["eager"])
    assert {(case.dtype, case.forms) for case in cases} == {("fp32", ("paper",)), ("bf16", ("eager",))}
    assert {name: plan.layout for name, plan in PLANS.items() if plan.layout != "workloads"} == {"table1": "table1"}


def test_a_sweep_is_of_inference_on_256_images_of_224_pixels_and_can_be_limited() -> None:
    sweep = Sweep(("sequencer2d_s",))
    assert (sweep.modes, sweep.batches, sweep.sizes) == (("inference",), (256,), (224,))
    assert sweep.limited(None, None) == sweep
    limited = sweep.limited(["fp32"], ["eager", "paper"])
    assert (limited.dtypes, limited.forms) == (("fp32",), ("eager", "paper"))
    again = limited.limited(["bf16"], ["paper", "graph"])
    assert (again.dtypes, again.forms) == ((), ("paper",))
    assert limited.limited(None, None) == limited


@pytest.mark.parametrize(
    "name", ["sequencer2d_n@auto", "sequencer2d_n@recompute", "gfnet_h_s", "timm:sequencer2d_s@fuse", "resnet50"]
)
def test_a_contender_is_written_as_it_is_read(name: str) -> None:
    assert str(parse_contender(name)) == name


def test_timms_sequencer_is_written_with_its_library() -> None:
    assert str(parse_contender("timm:sequencer2d_s")) == "timm:sequencer2d_s"
    contender = parse_contender("timm:sequencer2d_s@fuse")
    assert (contender.runs_our_code, contender.is_sequencer) == (True, True)
    assert [parse_contender(name).runs_our_code for name in ("sequencer2d_n", "timm:sequencer2d_s", "resnet50")] == [
        True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize("mode", [INFERENCE, TRAINING])
def test_weights_and_images_are_numbers_of_the_dtype_in_training_too(mode: str) -> None:
    torch.manual_seed(0)
    model = nn.Conv2d(3, 4, 3)
    exact = model.weight.detach().clone()
    work = make_workload(model, mode, torch.bfloat16, 2, 8, CPU)
    expected = torch.float32 if mode == TRAINING else torch.bfloat16
    assert (work.images.dtype, model.weight.dtype, model.training) == (expected, expected, mode == TRAINING)
    assert work.images.shape == (2, 3, 8, 8)
    assert work.images.is_contiguous(memory_format=torch.channels_last)
    for values in (work.images, model.weight):
        assert torch.equal(values.bfloat16().to(values.dtype), values)
    assert torch.equal(model.weight.float(), exact.bfloat16().float())
    assert (work.targets.shape, work.targets.dtype) == ((2,), torch.int64)
    again = make_workload(nn.Conv2d(3, 4, 3), mode, torch.bfloat16, 2, 8, CPU)
    assert torch.equal(again.images, work.images)
    assert torch.equal(again.targets, work.targets)
    drawn = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(work.images.float(), drawn.bfloat16().float())


def test_labels_are_of_a_thousand_classes_and_some_images_are_checked() -> None:
    assert CLASSES == 1000
    assert IMAGES == {"inference": 4, "training": 2}
    targets = make_workload(nn.Conv2d(3, 1, 1), INFERENCE, torch.float32, 4000, 1, CPU).targets
    assert (int(targets.min()) < 10, 990 < int(targets.max()) < 1000) == (True, True)


@pytest.mark.parametrize(
    ("mode", "dtype", "enabled"),
    [(TRAINING, torch.bfloat16, True), (TRAINING, torch.float32, False), (INFERENCE, torch.bfloat16, False)],
)
def test_autocast_is_for_training_in_16_bits_and_keeps_no_copies(mode: str, dtype: torch.dtype, enabled: bool) -> None:
    work = Workload(nn.Identity(), mode, dtype, torch.zeros(1), torch.zeros(1))
    with work.autocast():
        assert torch.is_autocast_enabled("cpu") is enabled
        assert not torch.is_autocast_cache_enabled()
        if enabled:
            assert torch.get_autocast_dtype("cpu") == dtype
