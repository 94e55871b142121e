"""The tables of `analyze`: shares in percent, what was not measured as none; and the defaults of its options."""

import argparse
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sequencer2d.cli.analyze import common, corrupted, options, pages, robust
from sequencer2d.cli.main import build_parser
from sequencer2d.evaluation.attacks import AttackResult
from sequencer2d.evaluation.mce import CorruptionResult
from sequencer2d.evaluation.resolution import ResolutionResult
from sequencer2d.evaluation.shape_texture import ShapeTextureResult
from sequencer2d.models import create_model, save_weights
from tests.cli.conftest import TINY


def corruption(clean: float) -> CorruptionResult:
    error = np.asarray([[0.25, 0.5], [0.75, 0.5]])
    return CorruptionResult("m", ("fog", "snow"), (1, 5), error, error / 2, error / 4, clean, clean, clean, 11)


def test_corruptions_are_in_percent_and_what_was_not_measured_is_none() -> None:
    assert corrupted._row(corruption(0.125)) == {
        "model": "m", "images": 11, "clean error, %": 12.5, "mean error, %": 50, "clean ECE, %": 12.5,
        "mean ECE, %": 12.5,
    }  # fmt: skip
    row = corrupted._row(corruption(float("nan")))
    assert (row["clean error, %"], row["clean ECE, %"], row["mean error, %"]) == (None, None, 50)
    assert corrupted._by_corruption(corruption(0)) == {"fog": [25, 50], "snow": [75, 50]}


def test_attacks_are_in_percent_by_levels_of_255() -> None:
    epsilons, sizes = np.asarray([1, 4]) / 255, np.asarray([0.5, 2]) / 255
    result = AttackResult("m", "pgd", epsilons, np.asarray([0.5, 0.125]), 0.75, 5, sizes, False, 13)
    assert robust._attack_row(result) == {
        "model": "m", "attack": "pgd", "images": 13, "steps": 5, "step, of 255": "0.5, 2", "start": "image",
        "clean, %": 75, "ε 1/255, %": 50, "ε 4/255, %": 12.5,
    }  # fmt: skip


def test_resolutions_are_in_percent_of_images_and_of_the_native_size() -> None:
    result = ResolutionResult("m", 32, np.asarray([16, 32]), np.asarray([0.125, 0.5]), 9, {64: "too large"})
    assert robust._resolution_rows(result) == [
        {"model": "m", "size": 16, "top-1, %": 12.5, "relative, %": 25},
        {"model": "m", "size": 32, "top-1, %": 50, "relative, %": 100},
        {"model": "m", "size": 64, "top-1, %": None, "relative, %": None},
    ]


def test_the_shape_bias_is_in_percent_of_the_decisions_for_either_cue() -> None:
    row = robust._shape_texture_row(ShapeTextureResult("m", 3, 1, 4, {}))
    assert row == {
        "model": "m", "images": 8, "shape": 3, "texture": 1, "other": 4, "either cue, %": 50, "shape bias, %": 75,
    }  # fmt: skip
    assert robust._shape_texture_row(ShapeTextureResult("m", 0, 0, 4, {}))["shape bias, %"] is None


@pytest.fixture
def imagenet_a(tmp_path: Path) -> tuple[Path, Path]:
    """A model of ImageNet-A's classes that always says stingray, and three images, one of them of a stingray."""
    from sequencer2d.evaluation.shifted import _subset

    names = _subset("imagenet-a")
    model = create_model("sequencer2d_n", num_classes=200, **TINY)
    model.head.fc.bias.data[names.index("n01498041")] = 9
    save_weights(model, tmp_path / "m.safetensors", {"class_names": list(names)})
    for name in ("n01498041", "n01531178", names[-1]):
        (tmp_path / "a" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "a" / name / "0.png")
    return tmp_path / "m.safetensors", tmp_path / "a"


def test_a_shifted_set_is_measured_among_its_classes(command, imagenet_a: tuple[Path, Path]) -> None:
    import json

    model, data = imagenet_a
    outcome = command("analyze", "shifted", model, "--set", "imagenet-a", "--data", data, "--device", "cpu", "--json")
    (row,) = json.loads(outcome.out)
    assert (row["set"], row["classes"], row["images"]) == ("imagenet-a", 200, 3)
    assert row["top-1, %"] == pytest.approx(100 / 3)
    assert row["top-5, %"] >= row["top-1, %"]
    assert 0 < row["ECE, %"] <= 100


def parse(*words: str) -> argparse.Namespace:
    return build_parser().parse_args(["analyze", *words])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("erf", "--images", "x"), {"method": ["energy"], "limit": None, "output": Path("analysis"), "name": "erf"}),
        (("memory", "m", "--images", "x"), {"limit": 50, "name": "memory", "formats": ("pdf", "svg", "png")}),
        (("cka", "m", "--images", "x"), {"limit": 500, "batch_size": 32, "name": "cka"}),
        (("grad-cam", "m", "--images", "x"), {"limit": 8, "target": None, "name": "grad-cam"}),
        (("hidden-states", "m", "--images", "x"), {"animate": False, "channels": None, "name": "hidden-states"}),
        (("resolution", "m", "--data", "x"), {"limit": None, "split": "val", "sizes": None, "common_classes": False}),
        (
            ("attack", "m", "--data", "x"),
            {"attacks": ["fgsm", "pgd"], "preset": "paper", "batch_size": 32, "json": False},
        ),
        (("corruptions", "m", "--data", "x"), {"limit": None, "workers": 0, "name": "corruptions"}),
        (("imagenet-c", "m", "--data", "x"), {"limit": None, "workers": None, "batch_size": 128, "clean": None}),
        (("shape-texture", "m", "--data", "x"), {"limit": 1000, "split": "val", "categories": None}),
        (("report", "m", "--data", "x"), {"limit": 200, "workers": 0, "output": Path("report.html")}),
        (("app", "m"), {"port": 7860, "device": "auto", "image_size": None, "download": False}),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_defaults_are_those_of_the_help(words: tuple[str, ...], expected: dict[str, object]) -> None:
    found = vars(parse(*words))
    assert {name: found[name] for name in expected} == expected


def test_radii_and_steps_are_levels_of_255() -> None:
    assert options.epsilons("1,4.5,0") == (1 / 255, 4.5 / 255, 0)
    assert options.level("0.5") == 0.5 / 255
    assert options.level("255") == 1
    for wrong in ("1,x", "256", "-1", "1,,2", "nan"):
        with pytest.raises(argparse.ArgumentTypeError, match="between 0 and 255"):
            options.epsilons(wrong)
    for wrong in ("0", "256", "x"):
        with pytest.raises(argparse.ArgumentTypeError, match="above 0 and at most 255"):
            options.level(wrong)


def test_ports_go_up_to_65535() -> None:
    assert pages._port("65535") == 65535
    with pytest.raises(argparse.ArgumentTypeError, match="from 1 to 65535"):
        pages._port("65536")


def test_a_file_is_named_after_the_verb_and_the_model_without_what_folders_mean() -> None:
    arguments = argparse.Namespace(output="out", name="erf")
    assert common.output_path(arguments, ".npz") == Path("out/erf.npz")
    assert common.output_path(arguments, ".npz", "timm:a/b.1") == Path("out/erf-timm_a_b.1.npz")


def test_a_limit_above_the_number_of_images_is_that_number() -> None:
    assert common.count_images(argparse.Namespace(limit=None), range(7)) == 7
    assert common.count_images(argparse.Namespace(limit=3), range(7)) == 3
    assert common.count_images(argparse.Namespace(limit=9), range(7)) == 7
