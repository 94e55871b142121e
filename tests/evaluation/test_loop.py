import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn

from sequencer2d.data.classes import match
from sequencer2d.data.config import DataConfig
from sequencer2d.data.loader import Loader, build_loader
from sequencer2d.errors import DataError
from sequencer2d.evaluation.loop import _progress, evaluate
from tests.data.images import break_image, make_folder

DIGITS = DataConfig(source="digits", image_size=8, batch_size=50, workers=0, crop_pct=1.0)


def linear_model(classes: int = 10, pixels: int = 3 * 8 * 8) -> nn.Module:
    """A classifier with fixed random weights, a dropout that would show in training mode."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes), nn.Dropout(0.5))


def all_logits(model: nn.Module, loader: Loader) -> tuple[torch.Tensor, torch.Tensor]:
    batches = list(loader)
    images = torch.cat([loader.normalize(images) for images, _ in batches])
    with torch.no_grad():
        return model.eval()(images), torch.cat([targets for _, targets in batches])


def test_result_is_what_the_definitions_say() -> None:
    model, loader = linear_model(), build_loader(DIGITS, train=False)
    model.train()
    result = evaluate(model, loader, device="cpu")
    assert model.training
    assert model[2].training

    logits, targets = all_logits(model, loader)
    right = logits.argmax(1) == targets
    ranks = (logits > logits.gather(1, targets[:, None])).sum(1)
    assert result.count == len(targets) == 355
    assert result.top1 == 100 * right.sum().item() / 355
    assert result.top5 == 100 * (ranks < 5).sum().item() / 355
    assert 0 < result.top1 < result.top5 < 100
    assert result.cross_entropy == pytest.approx(nn.functional.cross_entropy(logits, targets).item(), rel=1e-5)
    per_class = [100 * right[targets == k].double().mean().item() for k in range(10)]
    assert result.per_class == pytest.approx(per_class, rel=1e-12)
    assert (result.class_names, result.broken) == (tuple("0123456789"), 0)
    assert json.loads(json.dumps(result.to_dict()))["top1"] == result.top1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_runs_the_model_in_its_dtype_and_stays_close(dtype: torch.dtype) -> None:
    model, loader = linear_model(), build_loader(DIGITS, train=False)
    seen = []
    model[1].register_forward_hook(lambda *arguments: seen.append(arguments[-1].dtype))
    full, half = evaluate(model, loader, device="cpu"), evaluate(model, loader, device="cpu", amp_dtype=dtype)
    assert set(seen[: len(loader)]) == {torch.float32}
    assert set(seen[len(loader) :]) == {dtype}
    assert half.cross_entropy == pytest.approx(full.cross_entropy, rel=0.02)
    assert half.top1 == pytest.approx(full.top1, abs=2)


def test_progress_counts_batches(capsys: pytest.CaptureFixture[str]) -> None:
    model, loader = linear_model(), build_loader(DIGITS, train=False)
    steps: list[int] = []
    evaluate(model, loader, device="cpu", progress=lambda: steps.append(1))
    assert len(steps) == len(loader) == 8
    evaluate(model, loader, device="cpu", progress=True)
    assert capsys.readouterr().out == "", "standard output is for results"


def test_broken_images_are_left_out_and_counted(tmp_path: Path) -> None:
    make_folder(tmp_path, {"val": {"a": 5, "b": 4}})
    break_image(tmp_path / "val" / "a" / "003.png")
    config = DataConfig(root=str(tmp_path), image_size=8, batch_size=4, workers=0)
    result = evaluate(linear_model(2), build_loader(config, train=False), device="cpu")
    assert (result.count, result.broken) == (8, 1)


def test_model_with_too_few_classes_is_refused() -> None:
    with pytest.raises(DataError, match=r"\(50, 3\), the data have 10 classes"):
        evaluate(linear_model(3), build_loader(DIGITS, train=False), device="cpu")


WORKERS = """
import json, sys
import torch.distributed as dist
from sequencer2d.data.loader import build_loader
from sequencer2d.evaluation.loop import evaluate
from tests.evaluation.test_loop import folder_config, linear_model
from tests.processes import forked

def work():
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    loader = build_loader(folder_config(sys.argv[1]), train=False, rank=rank, world_size=size)
    result = evaluate(linear_model(3), loader, device="cpu")
    open(f"{sys.argv[1]}/{rank}.json", "w").write(json.dumps(result.to_dict()))
    dist.destroy_process_group()
    return 0

sys.exit(forked(2, work))
"""


def folder_config(root: str) -> DataConfig:
    """26 images in global batches of 8, the last of 2; one is broken, so one process counts 13 and the other 12."""
    return DataConfig(root=root, image_size=8, batch_size=8, workers=0)


def test_two_processes_give_the_result_of_one(tmp_path: Path) -> None:
    make_folder(tmp_path, {"val": {"a": 9, "b": 9, "c": 8}})
    break_image(tmp_path / "val" / "b" / "004.png")
    alone = evaluate(linear_model(3), build_loader(folder_config(str(tmp_path)), train=False), device="cpu")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    assert subprocess.run([sys.executable, "-c", WORKERS, tmp_path], env=environment, timeout=120).returncode == 0
    results = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert results[0] == results[1]
    assert (alone.count, alone.broken) == (25, 1)
    expected = json.loads(json.dumps(alone.to_dict()))
    exact = [name for name in expected if name not in ROUNDED]
    assert {name: results[0][name] for name in exact} == {name: expected[name] for name in exact}
    for name in ROUNDED:  # a product of other batch sizes rounds differently
        assert results[0][name] == pytest.approx(expected[name], rel=1e-5)


ROUNDED = ("cross_entropy", "calibration_error")


class Gray(nn.Module):
    """Right about images whose gray level is 20 times their class's number."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot((images.mean((1, 2, 3)) / 20).round().long(), 12).float()


def test_folders_of_numbers_are_the_outputs_of_a_model_without_names(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / "val" / str(number)).mkdir(parents=True)
        Image.new("RGB", (8, 8), (20 * number,) * 3).save(tmp_path / "val" / str(number) / "x.png")
    config = DataConfig(source=str(tmp_path), image_size=8, workers=0, mean=(0, 0, 0), std=(1 / 255,) * 3)
    loader = build_loader(config, "val", train=False)
    assert evaluate(Gray(), loader, device="cpu").top1 == pytest.approx(100 * 2 / 12)
    result = evaluate(Gray(), loader, device="cpu", classes=match(None, 12, loader.source))
    assert (result.top1, result.class_names) == (100, tuple(str(number) for number in range(12)))
    assert result.per_class == (100.0,) * 12


def test_a_bar_counts_the_batches_on_standard_error_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    output, plain = io.StringIO(), io.StringIO()

    def console(*, error: bool) -> Console:
        assert error, "standard output is for results"
        return Console(file=output, force_terminal=True, width=80)

    monkeypatch.setattr("sequencer2d.terminal.console", console)
    with _progress(True, 4) as advance:
        for _ in range(4):
            advance()
    assert "evaluate" in output.getvalue()
    assert "100%" in output.getvalue()
    monkeypatch.setattr("sequencer2d.terminal.console", lambda *, error: Console(file=plain, force_terminal=False))
    with _progress(True, 1) as advance:
        advance()
    assert not plain.getvalue().strip()
