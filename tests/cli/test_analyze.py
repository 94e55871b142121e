"""`sequencer2d analyze`: files and tables from a small checkpoint, and a clear sentence for each mistake."""

import importlib.util
import itertools
import json
import math
import shutil
import socket

import numpy as np
import pytest
import timm
from PIL import Image

from sequencer2d.analysis.report import PARTS, Limits, write_report
from sequencer2d.analysis.report_page import _table
from sequencer2d.cli.analyze.seeing import FIGURE_5
from sequencer2d.cli.main import build_parser, main
from sequencer2d.data.opening import open_source
from sequencer2d.evaluation.subject import load_subject
from sequencer2d.models import save_weights
from tests.analysis.test_hidden_states import subject

pytestmark = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint and nine images in three classes."""
    root = tmp_path_factory.mktemp("analyze")
    model = subject().model
    model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (3, 32, 32)}
    save_weights(model, root / "m.safetensors", {"class_names": ["a", "b", "c"]})
    generator = np.random.default_rng(0)
    for name in "abc":
        (root / "data" / name).mkdir(parents=True)
        for index in range(3):
            pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "data" / name / f"{index}.png")
    return root


def analyze(*arguments):
    return main(["analyze", *map(str, arguments), "--device", "cpu"])


def test_receptive_fields_and_memory(folder, tmp_path, capsys):
    out = ("--images", folder / "data", "--output", tmp_path, "--formats", "png,svg")
    assert analyze("erf", folder / "m.safetensors", *out) == 0
    table = capsys.readouterr().out
    assert "NHWC (probed)" in table
    assert "50 % in a square of, px" in table
    assert (tmp_path / "erf.png").exists()
    assert (tmp_path / "erf.svg").exists()
    assert len(list(tmp_path.glob("erf-*.npz"))) == 2
    assert analyze("memory", folder / "m.safetensors", *out) == 0
    assert "top to bottom" in capsys.readouterr().out


def test_receptive_fields_by_both_methods(folder, tmp_path, capsys):
    out = ("--images", folder / "data", "--output", tmp_path, "--formats", "png", "--limit", 3)
    assert analyze("erf", folder / "m.safetensors", *out, "--method", "paper", "energy") == 0
    table = capsys.readouterr().out
    assert table.count(" paper ") == 2
    assert table.count(" energy ") == 2
    assert {path.name for path in tmp_path.glob("*.png")} == {"erf-paper.png", "erf-energy.png"}


def test_the_models_of_figure_5_are_those_of_the_paper(capsys):
    """Without a model the command takes the three of the paper; they load by these names where there is a network."""
    assert [spec.split(":")[1].removeprefix("timm/").split(".")[0] for spec in FIGURE_5] == [
        "resnet50",
        "deit_small_patch16_224",
        "sequencer2d_s",
    ]
    for spec in FIGURE_5:
        assert timm.is_model_pretrained(spec.split(":")[1].removeprefix("timm/"))
    arguments = build_parser().parse_args(["analyze", "erf", "--images", "photos", "--method", "paper"])
    assert tuple(arguments.models) == FIGURE_5


def test_states_with_an_animation(folder, tmp_path):
    image = folder / "data" / "a" / "0.png"
    options = ("--images", image, "--animate", "--output", tmp_path, "--formats", "pdf")
    assert analyze("hidden-states", folder / "m.safetensors", *options) == 0
    assert {path.suffix for path in tmp_path.iterdir()} == {".npz", ".pdf", ".gif", ".json"}


def test_measurements_as_json(folder, tmp_path, capsys):
    options = ("--data", folder / "data", "--split", "", "--output", tmp_path, "--formats", "png", "--json")
    assert analyze("resolution", folder / "m.safetensors", *options, "--sizes", 16, 64) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["size"] for row in rows] == [16, 32, 64]
    assert analyze("attack", folder / "m.safetensors", *options, "--epsilons", "2", "--steps", 2) == 0
    assert [row["attack"] for row in json.loads(capsys.readouterr().out)] == ["fgsm", "pgd"]


def test_attacks_run_as_in_the_paper_unless_told_otherwise(folder, tmp_path, capsys):
    options = ("--data", folder / "data", "--split", "", "--output", tmp_path, "--formats", "png", "--json")

    def pgd(*more):
        assert analyze("attack", folder / "m.safetensors", *options, "--attacks", "pgd", *more) == 0
        told = capsys.readouterr()
        (row,) = json.loads(told.out)
        return row, told.err

    row, _ = pgd()
    assert (row["steps"], row["step, of 255"], row["start"], row["images"]) == (5, "0.5", "random", 9)
    assert "ε 1/255, %" in row
    row, _ = pgd("--preset", "radii", "--start", "image")
    assert (row["steps"], row["step, of 255"], row["start"]) == (10, "0.25, 1, 2", "image")
    row, err = pgd("--epsilons", "8")
    assert (row["steps"], row["step, of 255"]) == (5, "4")  # 2.5 ε / steps: the paper's step would not get there
    assert "cannot reach" not in err
    _, err = pgd("--epsilons", "8", "--step-size", "0.5")
    assert "5 steps of 0.5/255 cannot reach ε = 8/255" in err


def test_a_release_by_the_command_line(folder, tmp_path, capsys):
    """A folder in the release's layout; its few images are said to be no ImageNet-C."""
    for name in ("fog", "snow"):
        for severity in (1, 3):
            shutil.copytree(folder / "data", tmp_path / "c" / "weather" / name / str(severity))
    options = ("--data", tmp_path / "c", "--output", tmp_path, "--formats", "png", "--json", "--workers", 0)
    asked = ("--corruptions", "fog", "snow", "--severities", 1, 3)
    assert analyze("imagenet-c", folder / "m.safetensors", *options, *asked) == 0
    told = capsys.readouterr()
    (row,) = json.loads(told.out)
    assert row["images"] == 9
    assert row["mCE, %"] is None
    assert row["clean error, %"] is None
    assert row["mean error, %"] == pytest.approx(np.mean([row["errors, %"][name] for name in ("fog", "snow")]))
    assert "9 of 50,000 images in 3 of 1,000 classes, 2 of 15 corruptions at 2 of 5 severities" in told.err
    assert (tmp_path / "imagenet-c.png").exists()
    assert (tmp_path / "imagenet-c-calibration.png").exists()


def test_shape_and_texture_say_how_often_either_was_named(folder, capsys):
    assert analyze("shape-texture", folder / "m.safetensors", "--data", folder / "data", "--split", "", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["images"] == 9
    assert row["either cue, %"] == pytest.approx(100 * (row["shape"] + row["texture"]) / 9)


@pytest.mark.skipif(
    importlib.util.find_spec("imagecorruptions") is None, reason="imagecorruptions-imaug is not installed"
)
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_the_report_holds_everything_in_one_file(folder, tmp_path):
    target = tmp_path / "report.html"
    options = ("--data", folder / "data", "--split", "", "--limit", 8, "--output", target)
    assert analyze("report", folder / "m.safetensors", *options) == 0
    text = target.read_text()
    for title in ("Receptive fields", "Hidden states", "Reach of the memory", "Corruptions", "Attacks"):
        assert title in text
    assert text.count("data:image/png;base64,") >= 8
    assert "data:image/gif;base64," in text
    assert "http://" not in text
    assert "https://" not in text
    assert "Not done" not in text
    assert "9 images in 3 classes; measured on 8, drawn with 8" in text
    assert "±35 points" in text  # 1.96 √(0.25 / 8)
    assert '<th class="number">named the shape&#x27;s class</th>' in text
    assert '<th class="number">clean error, %</th>' in text


def test_numbers_that_do_not_exist_are_dashes_in_the_report():
    table = _table(({"model": "m", "arms over rest": math.nan},))
    assert '<td class="number">–</td>' in table
    assert "nan" not in table


def test_the_report_says_which_part_is_being_made(folder, tmp_path):
    heard = []
    limits = Limits(images=4, labeled=4, severities=(1,), epsilons=(1 / 255,), attack_steps=1)
    source = open_source(str(folder / "data"), "")
    model = load_subject(folder / "m.safetensors")
    write_report([model], source, tmp_path / "r.html", limits=limits, on_part=heard.append, progress=heard.append)
    parts = [entry for entry in heard if isinstance(entry, str)]
    assert parts[:3] == ["Receptive fields", "Hidden states", "Reach of the memory"]
    assert len(parts) == len(PARTS)
    for title in ("Receptive fields", "Reach of the memory", "Similarity of layers"):
        after = heard[heard.index(title) + 1 :]
        assert sum(itertools.takewhile(lambda entry: isinstance(entry, int), after)) == 4


def mistakes(folder, tmp_path):
    model, data = folder / "m.safetensors", folder / "data"
    names = ("empty", "broken", "other", "mixed", "small", "damaged")
    empty, broken, other, mixed, small, damaged = (tmp_path / name for name in names)
    for path in (empty, broken, other / "zebra", mixed, small, damaged / "b"):
        path.mkdir(parents=True)
    (broken / "x.png").write_bytes(b"no image")
    Image.new("RGB", (32, 32)).save(other / "zebra" / "0.png")
    photo = (data / "a" / "0.png").read_bytes()
    for path in (mixed, damaged / "b"):
        (path / "good.png").write_bytes(photo)
        (path / "half.png").write_bytes(photo[: len(photo) // 2])
    Image.new("RGB", (30, 4)).save(small / "tiny.png")
    labeled = ("--data", data, "--split", "")
    return {
        "no images in": ("erf", model, "--images", empty),
        f"cannot read the image {broken / 'x.png'}": ("erf", model, "--images", broken),
        f"cannot read the image {mixed / 'half.png'}": ("grad-cam", model, "--images", mixed),
        f"cannot read the image {damaged / 'b' / 'half.png'}": ("report", model, "--data", damaged, "--split", ""),
        f"{small / 'tiny.png'} is too small: it has 4×30 pixels": ("memory", model, "--images", small),
        "is a folder: give one image": ("hidden-states", model, "--images", data),
        "has no block 'stages.7'; its blocks: stages.0.blocks.0, ": (
            "erf",
            model,
            "--images",
            data,
            "--blocks",
            "stages.7",
        ),
        "has no block 'stem.7'": ("hidden-states", model, "--images", data / "a" / "0.png", "--block", "stem.7"),
        "are not among the 3 of": ("resolution", model, "--data", other, "--split", ""),
        "images of 4×4 pixels are too small": (
            "hidden-states",
            model,
            "--images",
            data / "a" / "0.png",
            "--image-size",
            4,
        ),
        "images of 3×3 pixels are too small": ("report", model, *labeled, "--image-size", 3),
        "no checkpoint at": ("erf", folder / "missing", "--images", data),
        "timm has no model 'resnot'": ("erf", "timm:resnot", "--images", data),
        "NCHW was stated": ("erf", model, "--images", data, "--layout", "NCHW"),
        "layout tokens was stated": ("grad-cam", model, "--images", data, "--layout", "tokens"),
        "no corruption 'rain'": ("corruptions", model, *labeled, "--corruptions", "rain"),
        "is not ImageNet-C: it has no folder gaussian_noise": ("imagenet-c", model, "--data", data),
        "no severity 6": ("corruptions", model, *labeled, "--severities", 6),
        "integer of at least 1, got '-1'": ("corruptions", model, *labeled, "--workers", -1),
        "levels between 0 and 255 such as 1,4,8, got '1,-2'": ("attack", model, *labeled, "--epsilons=1,-2"),
        "levels above 0 and at most 255 such as 0.5, got '0'": ("attack", model, *labeled, "--step-size", 0),
        "no figure format 'jpg'": ("cka", model, "--images", data, "--formats", "jpg", "--output", tmp_path / "o"),
        "expected a port from 1 to 65535": ("app", model, "--port", 70000),
        "2 models are called 'sequencer2d_n'": ("memory", model, model, "--images", data),
        "is not imagenet-a": ("shifted", model, "--set", "imagenet-a", "--data", data),
    }


def test_each_mistake_is_one_clear_sentence(folder, tmp_path, capsys):
    for expected, command in mistakes(folder, tmp_path).items():
        assert analyze(*command) == 2, command
        error = capsys.readouterr().err
        assert expected in error
        assert "Traceback" not in error
        assert len(error) < 800, error
    assert not (tmp_path / "o").exists()  # refused before anything was made


def test_a_port_in_use_is_a_clear_sentence(folder, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert analyze("app", folder / "m.safetensors", "--port", other.getsockname()[1]) == 2
    assert "choose another one with --port" in capsys.readouterr().err


def test_weights_of_another_model_are_refused_in_a_short_sentence(folder, capsys):
    spec = f"timm:convnext_atto={folder / 'm.safetensors'}"
    assert analyze("erf", spec, "--images", folder / "data") == 2
    error = capsys.readouterr().err
    assert "does not fit ConvNeXt" in error
    assert len(error) < 800


def test_a_size_that_a_model_does_not_take_is_said_with_its_reason(folder, tmp_path, capsys):
    options = ("--data", folder / "data", "--split", "", "--output", tmp_path, "--formats", "png", "--json")
    assert analyze("resolution", folder / "m.safetensors", *options, "--sizes", 2) == 0
    told = capsys.readouterr()
    assert [row["top-1, %"] is None for row in json.loads(told.out)] == [False, True]
    assert "sequencer2d_n does not take 2 pixels: images of 2×2 pixels are too small" in told.err
