"""fp8 in inference: which products are quantized, how far the logits move, and what the benchmark refuses."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from benchmarks import fp8, fp8_model_rows, fp8_products, tables
from benchmarks.fp8_model_rows import accuracy_rows, add_ratios, checkpoint_rows
from benchmarks.fp8_models import (
    ARMS,
    BASELINE,
    FUSION,
    INPUT,
    PRODUCTS,
    ROWS,
    SECOND,
    TENSOR,
    Arm,
    OpenMlp,
    OpenRNN2D,
    is_quantized,
    prepare,
    to_fp8,
)
from benchmarks.fp8_products import Shape, product_rows, shapes, share_in_fp8, time_product
from sequencer2d.benchmark.cost import count_macs
from sequencer2d.errors import ConfigError
from sequencer2d.models import create_model, save_weights
from sequencer2d.models.checkpoints import describe_model

TINY: dict[str, Any] = {"depths": (1, 1), "dims": (32, 64), "hidden_dims": (16, 16), "patch_sizes": (8, 2)}
CPU = torch.device("cpu")
needs_torchao = pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed")


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchao without its check of the hardware: PyTorch has the fp8 product on a CPU, too, only slow."""
    if not _scales_rows_on_cpu():
        pytest.skip("this PyTorch's fp8 product has no scale a row on a CPU (2.11 has not)")
    from torchao.quantization import quant_api

    monkeypatch.setattr(quant_api, "_check_hardware_support", lambda granularity: None)


def _scales_rows_on_cpu() -> bool:
    x, scale = torch.ones(16, 16).to(torch.float8_e4m3fn), torch.ones(16, 1)
    try:
        torch._scaled_mm(x, x.t(), scale_a=scale, scale_b=scale.t(), out_dtype=torch.bfloat16)
    except RuntimeError:
        return False
    return True


def tiny(**options: Any) -> nn.Module:
    """A small model whose head, zero at first, is random, else all logits are equal."""
    model = create_model("sequencer2d_n", **{**TINY, "num_classes": 3, **options}).eval()
    nn.init.normal_(model.get_submodule("head.fc").weight, std=0.1)
    return model


def logits(network: nn.Module) -> torch.Tensor:
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found: torch.Tensor = network(images.to(next(network.parameters()).dtype)).float()
    return found


def difference(network: nn.Module, other: nn.Module) -> float:
    expected = logits(other)
    return float((logits(network) - expected).norm() / expected.norm())


@needs_torchao
@pytest.mark.parametrize("arm", ARMS, ids=str)
def test_an_arm_quantizes_its_products_and_nothing_else(arm: Arm, on_cpu: None) -> None:
    model = tiny()
    network = prepare(model, arm)
    found = {name for name, module in network.named_modules() if is_quantized(module)}
    assert found == {f"stages.{stage}.blocks.0.{key}" for stage in range(2) for key in arm.products}
    assert {p.dtype for p in model.parameters()} == {torch.float32}, "the given model stays as it is"
    error = difference(network, model)
    # e4m3 keeps three bits after the leading one: single values err by up to 6 %, bf16's by 0.4 %.
    assert (0.005 if arm.scales else 0) < error < (0.06 if arm.scales else 0.01)


def test_layers_opened_for_torchao_compute_what_the_packed_ones_do() -> None:
    model = tiny()
    opened = prepare(model, Arm("optimize", products=tuple(PRODUCTS)))
    assert sum(isinstance(module, OpenRNN2D | OpenMlp) for module in opened.modules()) == 4
    assert difference(opened.float(), prepare(model, BASELINE).float()) < 2e-3  # the GELU's two forms


def test_shapes_and_their_share_of_the_arithmetic() -> None:
    model = create_model("sequencer2d_n", **TINY, num_classes=3)
    found = shapes(model, 32)
    assert found[Shape(INPUT, 16, 32, 4 * 4 * 16)] == 1
    assert found[Shape(FUSION, 4, 64, 64)] == 1
    assert found[Shape(SECOND, 4, 192, 64)] == 1
    macs = count_macs(model, 32)
    parts = [share_in_fp8(found, macs, (key,)) for key in PRODUCTS]
    assert share_in_fp8(found, macs, tuple(PRODUCTS)) == pytest.approx(sum(parts))
    assert parts[0] == pytest.approx((16 * 32 + 4 * 64) * 256 / macs)


@needs_torchao
def test_the_products_that_are_timed_are_the_same_product(on_cpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []

    def run_once(run: Any, device: torch.device) -> float:
        with torch.inference_mode():
            found.append(run().float())
        return 2.0 ** -len(found)

    monkeypatch.setattr(fp8_products, "graph_ms", run_once)
    monkeypatch.setattr(torch, "compile", lambda layer, **options: layer)
    times = time_product(40, 64, 32, CPU)
    bf16, rows, rows_quantizing, tensor, tensor_quantizing = found
    assert all(0.005 < float((y - bf16).norm() / bf16.norm()) < 0.06 for y in (rows, tensor))
    assert torch.equal(rows, rows_quantizing)
    assert torch.equal(tensor, tensor_quantizing)
    assert times["rows_quantizing_ms"] == 1 / 8
    assert times["rows_quantizing_speedup"] == 4


@needs_torchao
@pytest.mark.parametrize("scales", [ROWS, TENSOR])
def test_a_weight_of_the_size_of_a_block(scales: str, on_cpu: None) -> None:
    """torchao also knows scales for blocks of 128 × 128, and must not find such a block in a tensor of that size."""
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(128, 128, dtype=torch.bfloat16)).requires_grad_(False)
    x = torch.randn(2, 3, 5, 128, dtype=torch.bfloat16)
    expected = layer(x)
    to_fp8(layer, scales)
    assert is_quantized(layer[0])
    assert 0.005 < float((layer(x) - expected).norm() / expected.norm()) < 0.06


@needs_torchao
def test_what_torchao_passes_over_is_no_silent_bf16(on_cpu: None) -> None:
    model = tiny(dims=(24, 40), hidden_dims=(16, 16))
    with pytest.raises(ConfigError, match="torchao left in bf16: input product"):
        prepare(model, Arm("optimize", ROWS, (INPUT,)))


def test_a_mixer_that_is_not_measured_is_refused() -> None:
    with pytest.raises(ConfigError, match="LSTMs along both axes"):
        prepare(tiny(cell="gru"), Arm("optimize", products=(INPUT,)))


@needs_torchao
def test_accuracy_of_all_arms_on_a_checkpoint(on_cpu: None, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("cat", "cow", "dog"):
        (tmp_path / "val" / name).mkdir(parents=True)
        for index in range(2):
            pixels = random.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "val" / name / f"{index}.png")
    model: Any = tiny()
    save_weights(model, tmp_path / "model.safetensors", describe_model(model, ["cat", "cow", "dog"]))
    arguments = fp8.parse(
        ["--checkpoint", str(tmp_path / "model.safetensors"), "--data", str(tmp_path), "--batch", "4"]
    )
    rows = accuracy_rows(arguments, CPU)
    assert [row["arithmetic"] for row in rows] == ["fp32", *(arm.said["arithmetic"] for arm in ARMS)]
    assert {row["images"] for row in rows} == {6}
    assert rows[0]["relative_difference"] == 0
    assert all(0 < row["relative_difference"] < 0.06 for row in rows[1:])
    assert rows[3]["top1_change_points"] == 0
    text = rendered("fp8-accuracy", rows)
    assert "| sequencer2d_n | 6 | optimize | fp8, a scale a tensor | all |" in text


def test_an_arm_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def judge(model: nn.Module, arm: Arm | None, *rest: Any) -> Any:
        if arm is not None and arm.scales:
            raise RuntimeError("CUBLAS_STATUS_NOT_SUPPORTED\nand more")
        return SimpleNamespace(count=4, top1=50.0, cross_entropy=1.0), torch.ones(4, 3)

    monkeypatch.setattr(fp8_model_rows, "judge", judge)
    rows = checkpoint_rows(tiny(), SimpleNamespace(class_names=("cat", "cow", "dog")), CPU)  # type: ignore[arg-type]
    assert ["error" in row for row in rows] == [False, *(bool(arm.scales) for arm in ARMS)]
    assert rows[2]["error"] == "RuntimeError: CUBLAS_STATUS_NOT_SUPPORTED"
    assert "| optimize | fp8, a scale a tensor | all | – | – | – | – |" in rendered("fp8-accuracy", rows)
    monkeypatch.setattr(
        fp8_products, "time_product", lambda m, *rest: {"bf16_ms": 1.0} if m == 8 else judge(tiny(), ARMS[1])
    )
    arguments = fp8.parse(["--model", "sequencer2d_n", "--size", "28", "--batch", "2"])
    rows = product_rows(arguments, CPU)
    assert {row["m"]: "error" in row for row in rows} == {32: True, 8: False}


def test_rates_are_compared_within_a_form_and_with_optimize() -> None:
    rows = [{"model": "m", **arm.said, "ms": ms} for arm, ms in zip(ARMS, (8.0, 4.0, 4.0, 2.0), strict=False)]
    failed = {"model": "m", **ARMS[4].said, "error": "out of memory"}
    add_ratios([*rows, failed])
    assert [row["over_bf16"] for row in rows] == [1, 2, 1, 2]
    assert [row["over_optimize"] for row in rows] == [0.5, 1, 1, 2]
    assert "over_bf16" not in failed
    text = rendered("fp8", [*rows, failed])
    assert "| optimize | fp8, a scale a row | input product | – | 2.00 | – | 2.00 | 2.00 | – | – |" in text
    assert "out of memory |" in text


def rendered(name: str, rows: list[dict[str, Any]]) -> str:
    result = {"date": "2030-01-02", "commit": "0123456789", "versions": {"torch": "2.99"}, "rows": rows}
    result["device"] = {"kind": "cuda", "name": "A GPU", "count": 1}
    return tables.render(f"<!-- table: {name} -->\n<!-- end: {name} -->", {name: result})


def test_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert fp8.parse([]).parts == ["products", "speed"]
    assert fp8.parse(["--checkpoint", "a", "--data", "b"]).parts == list(fp8.PARTS)
    for wrong in (["--checkpoint", "a"], ["--parts", "accuracy"], ["--parts", "latency"]):
        with pytest.raises(SystemExit):
            fp8.parse(wrong)
    assert "give each --checkpoint its --data" in capsys.readouterr().err


def test_without_torchao_or_fp8_units_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fp8.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="torchao is not installed: pip install torchao"):
        fp8.main([])
    monkeypatch.setattr(fp8.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="needs a CUDA device"):
        fp8.main([])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A100")
    with pytest.raises(SystemExit, match=r"A100 has compute capability 8\.0; fp8 products need 8\.9"):
        fp8.main([])
