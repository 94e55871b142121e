"""`sequencer2d eval` of timm's models: by name, with weights from a file or from the hub's cache, their own input."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from sequencer2d.errors import CheckpointError
from sequencer2d.evaluation.subject import load_subject
from sequencer2d.models import save_weights
from tests.cli.conftest import Outcome
from tests.data.images import make_folder

VIT = "timm:test_vit"
CLASSES = ("a", "b", "c", "d")


def classifier(name: str, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    model = timm.create_model(name, num_classes=len(CLASSES))
    head = model.get_classifier()
    torch.nn.init.normal_(head.weight, std=0.5)
    return model.eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "data", {"val": dict.fromkeys(CLASSES, 6)})


def timm_top1(model: torch.nn.Module, folder: Path) -> float:
    """Top-1 (%) as timm's own evaluation computes it: its transform, its input specification."""
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    right = count = 0
    for target, name in enumerate(CLASSES):
        for path in sorted((folder / "val" / name).iterdir()):
            with Image.open(path) as image, torch.inference_mode():
                right += int(model(transform(image.convert("RGB"))[None]).argmax()) == target
            count += 1
    return 100 * right / count


def test_a_model_without_names_says_what_its_outputs_are_taken_for(
    command: Callable[..., Outcome], folder: Path, tmp_path: Path
) -> None:
    save_file(classifier("test_vit").state_dict(), tmp_path / "vit.safetensors")
    outcome = command("eval", f"{VIT}={tmp_path / 'vit.safetensors'}", "--data", folder, "--json")
    assert (
        "the model brings no class names: its outputs are taken for the data's classes in order (a, b, c" in outcome.err
    )


@pytest.mark.parametrize(
    "input_",
    [
        {},
        {"mean": (0.5, 0.4, 0.6), "std": (0.2, 0.3, 0.1), "interpolation": "bilinear", "crop_pct": 0.7},
        {"crop_mode": "squash", "crop_pct": 1.0},
        {"crop_mode": "border", "crop_pct": 1.0},
    ],
)
def test_the_models_own_input_is_used(
    input_: dict, command: Callable[..., Outcome], tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = timm.get_pretrained_cfg("test_vit")
    monkeypatch.setitem(
        timm.models._registry._model_pretrained_cfgs,
        f"test_vit.{cfg.tag}",
        dataclasses.replace(cfg, **input_),
    )
    found = set()
    for seed in range(4):
        model = classifier("test_vit", seed)
        file = tmp_path / f"{seed}.safetensors"
        save_file(model.state_dict(), file)
        outcome = command("eval", f"{VIT}={file}", "--data", folder, "--json")
        found.add(json.loads(outcome.out)["top1"])
        assert json.loads(outcome.out)["top1"] == pytest.approx(timm_top1(model, folder))
    assert len(found) > 1, "the models all have one accuracy: the comparison says nothing"


def test_another_size_is_interpolated_or_refused(
    command: Callable[..., Outcome], mistake: Callable[..., str], tmp_path: Path, folder: Path
) -> None:
    for name in ("test_vit", "mixer_s32_224"):
        save_file(classifier(name).state_dict(), tmp_path / f"{name}.safetensors")
    command("eval", f"{VIT}={tmp_path}/test_vit.safetensors", "--data", folder, "--image-size", 192)
    mixer = f"timm:mixer_s32_224={tmp_path}/mixer_s32_224.safetensors"
    assert "refuses images of 192×192 pixels: Input" in mistake("eval", mixer, "--data", folder, "--image-size", 192)


def test_published_weights_come_from_the_cache_or_not_at_all(
    command: Callable[..., Outcome],
    mistake: Callable[..., str],
    tmp_path: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr("socket.socket.connect", no_network)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    line = mistake("eval", VIT, "--data", folder)
    assert "--download" in line
    assert f"{VIT}=FILE" in line
    repository = timm.get_pretrained_cfg("test_vit").hf_hub_id
    snapshot = tmp_path / "cache" / f"models--{repository.replace('/', '--')}" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0123")
    torch.manual_seed(0)
    save_file(timm.create_model("test_vit").state_dict(), snapshot / "model.safetensors")
    line = mistake("eval", VIT, "--data", folder)
    assert "the model has 1000 classes and the data 4" in line


def test_a_run_of_a_peer_is_evaluated(command: Callable[..., Outcome], tmp_path: Path) -> None:
    run = tmp_path / "run"
    data = ("data.source=digits", "data.image_size=16", "data.cache=false", "data.workers=0", "data.mean=0.3,0.3,0.3")
    options = ("run.epochs=1", "schedule.warmup_epochs=0", "schedule.cooldown_epochs=0", "run.tensorboard=false")
    small = ("model.overrides.depth=1", "run.device=cpu", "run.compile=false", "precision=fp32", f"run.output={run}")
    command("train", "tiny_imagenet_vit", *data, *options, *small)
    outcome = command("eval", run, "--json")
    best = json.loads((run / "summary.json").read_text())["best"]["top1"]
    assert json.loads(outcome.out)["top1"] == pytest.approx(best)


def test_a_run_of_the_papers_peers_is_evaluated_and_goes_on_from_its_file(
    command: Callable[..., Outcome], tmp_path: Path
) -> None:
    sizes = {"depths": [2], "dims": [8], "patch_size": 4}
    small = (
        "model.name=gfnet_s", "data.cache=false", "data.workers=0", "run.epochs=1", "schedule.warmup_epochs=0",
        "schedule.cooldown_epochs=0", "run.tensorboard=false", "run.device=cpu", "run.compile=false", "precision=fp32",
    )  # fmt: skip
    first = ("data.image_size=16", f"model.overrides={json.dumps(sizes)}", f"run.output={tmp_path}/one")
    command("train", "digits", *small, *first)
    outcome = command("eval", tmp_path / "one", "--json")
    best = json.loads((tmp_path / "one" / "summary.json").read_text())["best"]["top1"]
    assert json.loads(outcome.out)["top1"] == pytest.approx(best)
    # Another size: positions and filters are resampled, and the new run's file says so.
    second = ("data.image_size=24", f"model.overrides={json.dumps(sizes)}", f"run.output={tmp_path}/two")
    command("train", "digits", *small, *second, f"model.checkpoint={tmp_path}/one")
    outcome = command("eval", tmp_path / "two", "--json")
    assert json.loads(outcome.out)["image_size"] == [24, 24]


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"overrides": {"checkpoint_path": "/etc/passwd"}}, "option 'checkpoint_path' of timm's model"),
        ({"overrides": {"pretrained_cfg": {"url": "http://x"}}}, "option 'pretrained_cfg'"),
        ({"overrides": {"depth": 10**9}}, "option 'depth'"),
        ({"overrides": {"embed_dim": 18_000}}, "does not fit"),
        ({"overrides": {"no_such": 1}}, "is of no model: timm cannot create"),
        ({"model": "timm:nothing"}, "is of no model: timm has no model 'nothing'"),
        ({"num_classes": None}, "num_classes is None"),
        ({"input": {"size": [224, 224]}}, r"lacks input\.mean"),
    ],
)
def test_descriptions_of_peers_are_checked_before_they_are_built(
    tmp_path: Path, change: dict[str, Any], complaint: str
) -> None:
    model = timm.create_model("test_vit", num_classes=2)
    said = {"size": [160, 160], "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "crop_pct": 0.9}
    meta = {"format": 1, "model": VIT, "overrides": {}, "num_classes": 2, "in_chans": 3, "input": said}
    save_weights(model, tmp_path / "m.pt", meta)
    assert load_subject(tmp_path / "m.pt").data.size == (160, 160)
    save_weights(model, tmp_path / "m.pt", meta | change)
    with pytest.raises(CheckpointError, match=complaint):
        load_subject(tmp_path / "m.pt")
