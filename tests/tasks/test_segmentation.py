"""The task segmentation goes through the real training, resuming, evaluation, prediction and command line."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from sequencer2d import create_model, recipes
from sequencer2d.analysis.app import build_app
from sequencer2d.analysis.found_page import found_in
from sequencer2d.cli.main import main
from sequencer2d.errors import ConfigError, DataError, Interrupted, NumericalError
from sequencer2d.evaluation.subject import load_checkpoint
from sequencer2d.tasks.overlap import OverlapMeter
from sequencer2d.tasks.segmentation import (
    SEGMENTATION,
    Segments,
    color_of,
    label_folder,
    pixel_cross_entropy,
    segmenter,
    segments,
)
from sequencer2d.training.config import TrainConfig
from sequencer2d.training.fields import with_overrides
from sequencer2d.training.loop import train
from tests.training.conftest import TINY, equal, logged

SIZE = (24, 32)
MODEL = {"depths": (1, 1), "dims": (16, 16), "hidden_dims": (4, 4), "patch_sizes": (4, 2)}


@pytest.fixture(scope="module")
def camvid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in CamVid's layout: sky above, road below, a car on it, a void rim."""
    root = tmp_path_factory.mktemp("camvid")
    generator = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 6)):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for number in range(count):
            labels = np.full(SIZE, 3, np.uint8)
            labels[: generator.integers(8, 14)] = 0
            left = generator.integers(2, 20)
            labels[14:20, left : left + 10] = 8
            colors = np.array([[90, 160, 250]] + [[120, 110, 110]] * 7 + [[230, 30, 30]], np.uint8)
            pixels = colors[labels] + generator.integers(0, 6, (*SIZE, 3)).astype(np.uint8)
            labels[:, 0] = 11
            Image.fromarray(pixels).save(root / "images" / split / f"{number}.webp", lossless=True)
            Image.fromarray(labels).save(root / "masks" / split / f"{number}.png")
    return root


def configuration(root: Path, output: Path, **fields: Any) -> TrainConfig:
    """The recipe, with a tiny model for a few steps on a CPU."""
    changes = {
        **{path: value for path, value in TINY.items() if path.startswith(("run.", "model."))},
        "model.overrides": MODEL,
        "data.root": str(root),
        "data.image_size": SIZE,
        "data.batch_size": 4,
        "data.workers": 0,
        "optimizer.lr": 3e-3,
        "schedule.warmup_epochs": 0,
        "precision": "fp32",
        "run.output": str(output),
        "run.epochs": 8,
        "run.eval_interval": 1,
    }
    return with_overrides(recipes.get("camvid"), {**changes, **{k.replace("__", "."): v for k, v in fields.items()}})


@pytest.fixture(scope="module")
def run(camvid: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("segmentation") / "run"
    train(configuration(camvid, folder))
    return folder


def test_the_recipe_learns_on_tiny_data(run: Path) -> None:
    epochs = [entry for entry in logged(run) if entry["kind"] == "epoch"]
    assert epochs[-1]["train_loss"] < 0.5 * epochs[0]["train_loss"]
    best = json.loads((run / "summary.json").read_text())["best"]
    assert best["miou"] == max(entry["miou"] for entry in epochs) > 50
    assert best["pixel_accuracy"] > 80


def test_the_decoder_is_chosen_by_name(camvid: Path, run: Path, tmp_path: Path) -> None:
    train(configuration(camvid, tmp_path, model__decoder="upernet", run__epochs=1))
    upernet, fpn = (load_checkpoint(folder).model.decoder for folder in (tmp_path, run))
    assert (type(upernet).__name__, type(fpn).__name__) == ("UPerNet", "SemanticFPN")
    with pytest.raises(ConfigError, match=r"model\.decoder='uper' is none of task=segmentation; .*upernet"):
        train(configuration(camvid, tmp_path / "other", model__decoder="uper"))


def test_a_resumed_run_is_that_of_an_uninterrupted_one(camvid: Path, run: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(configuration(camvid, tmp_path / "parts", run__max_steps=13))
    train(configuration(camvid, tmp_path / "parts", run__resume=True, data__workers=1))
    assert logged(tmp_path / "parts") == logged(run)
    whole, parts = (torch.load(folder / "checkpoints/last.pt") for folder in (run, tmp_path / "parts"))
    assert equal(whole["model"], parts["model"])


@pytest.mark.gpu
def test_a_run_is_evaluated_on_a_gpu_as_on_a_cpu(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for device in ("cpu", "cuda"):
        assert main(["segment", "eval", str(run), "--json", "--device", device]) == 0
        found.append(json.loads(capsys.readouterr().out)["mean_iou"])
    assert found[1] == pytest.approx(found[0], abs=0.1)


def test_the_command_line_evaluates_as_in_training(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = json.loads((run / "summary.json").read_text())["best"]
    assert main(["eval", str(run), "--json", "--device", "cpu"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mean_iou"] == pytest.approx(best["miou"], rel=1e-6)
    assert found["per_class"][0] > 50
    options = ["--window", "32", "--scales", "0.75,1", "--flip"]
    assert main(["segment", "eval", str(run), "--json", "--device", "cpu", *options]) == 0
    averaged = json.loads(capsys.readouterr().out)
    assert averaged["mean_iou"] != found["mean_iou"]
    assert averaged["per_class"][0] > 50
    for wrong, message in (
        (["--window", "8"], "at least 32"),
        (["--scales", "1,0"], "expected factors from 0.1 to 10"),
    ):
        assert main(["segment", "eval", str(run), *wrong]) == 2
        assert message in capsys.readouterr().err
    assert main(["eval", str(run), "--per-class", "--device", "cpu"]) == 0
    table = capsys.readouterr().out
    assert "mIoU" in table
    assert ["Tree", "none"] in [line.split() for line in table.splitlines()]


def test_the_command_line_predicts_and_draws(
    run: Path, camvid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "photo.png"
    Image.open(camvid / "images/val/0.webp").resize((320, 240)).save(photo)
    twin = tmp_path / "twin" / "photo.png"
    twin.parent.mkdir()
    Image.open(camvid / "images/val/0.webp").save(twin)
    command = ["segment", "predict", str(run), str(photo)]
    assert main([*command, "--device", "cpu", "--pictures", str(tmp_path / "drawn")]) == 0
    assert "Sky" in capsys.readouterr().out
    assert main([*command, str(twin), "--labels", str(tmp_path / "labels"), "--device", "cpu"]) == 0
    with Image.open(tmp_path / "labels/photo.png") as labels, Image.open(tmp_path / "labels/photo-2.png") as other:
        assert (labels.mode, labels.size, other.size) == ("P", (320, 240), (32, 24))
        assert (labels.getpixel((160, 5)), other.getpixel((16, 0))) == (0, 0)
        assert labels.convert("RGB").getpixel((160, 5)) == color_of(0)
    (picture,) = (tmp_path / "drawn").iterdir()
    with Image.open(picture) as drawn:
        assert drawn.width == 320
        assert drawn.height > 240
        sky = np.asarray(drawn.convert("RGB"))[5, 160].astype(int)
    expected = 0.45 * np.array([92, 162, 252]) + 0.55 * np.array(color_of(0))
    assert np.abs(sky - expected).max() < 8


def test_the_command_line_exports_the_logits_of_every_pixel(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    file = tmp_path / "segmenter.onnx"
    assert main(["export", str(run), "--format", "onnx", "--output", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "onnx"
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    subject, images = load_checkpoint(run), torch.randn(2, 3, 40, 70)
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), subject.model(images), rtol=1e-4, atol=1e-4)
    assert json.loads(session.get_modelmeta().custom_metadata_map["class_names"]) == list(subject.class_names)
    assert main(["export", str(run), "--format", "torch"]) == 2
    assert "with --format onnx alone" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # gradio's
def test_the_local_page_shows_the_overlay(run: Path, camvid: Path) -> None:
    subject = load_checkpoint(run)
    picture, rows = found_in(subject, camvid / "images/val/0.webp")
    assert picture.width == 224  # enlarged: the photo has 32 pixels
    assert "Sky" in {row[0] for row in rows}
    gradio = pytest.importorskip("gradio")
    page = build_app(subject)
    assert isinstance(page, gradio.Blocks)
    shown = [block.elem_id for block in page.blocks.values() if getattr(block, "elem_id", None)]
    assert sorted(shown) == ["found", "image", "picture"]
    (show,) = page.fns.values()
    html, table = show.fn(str(camvid / "images/val/0.webp"))
    assert html.startswith('<img alt="what was found"')
    assert [row[0] for row in table] == [row[0] for row in rows]
    with pytest.raises(gradio.Error, match="drop an image"):
        show.fn(None)
    with pytest.raises(gradio.Error, match="cannot be read"):
        show.fn(str(run / "log.jsonl"))


def test_a_wrong_mask_ends_the_run_before_its_first_step(camvid: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    for path in camvid.rglob("*.*"):
        target = root / path.relative_to(camvid)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    Image.new("L", SIZE[::-1], 12).save(root / "masks/val/3.png")
    with pytest.raises(DataError, match=r"3\.png holds the value 12; expected 11 classes"):
        train(configuration(root, tmp_path / "run"))


def test_the_loss_is_the_sum_over_labeled_pixels_divided_by_all() -> None:
    logits = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    targets = torch.randint(3, (2, 4, 5))
    targets[0, :2] = 255
    rows = -logits.log_softmax(1).gather(1, targets.clamp(max=2)[:, None])[:, 0]
    expected = rows[targets != 255].sum() / targets.numel()
    found = pixel_cross_entropy(lambda images: logits, torch.zeros(2, 3, 4, 5), targets, 0.0)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert pixel_cross_entropy(lambda images: logits, torch.zeros(2, 3, 4, 5), torch.full_like(targets, 255), 0.1) == 0
    half = pixel_cross_entropy(lambda images: logits.bfloat16(), torch.zeros(2, 3, 4, 5), targets, 0.0)
    assert half.dtype == torch.float32
    exact = pixel_cross_entropy(lambda images: logits.bfloat16().double(), torch.zeros(2, 3, 4, 5), targets, 0.0)
    assert half.item() == pytest.approx(exact.item(), rel=1e-5)


def test_labels_in_the_files_size_are_those_of_resized_logits() -> None:
    logits = torch.randn(2, 5, 6, 7)
    found = segments(logits, [(13, 20), (6, 7)], "abcde", 3)
    for one, finding, size in zip(logits, found, [(13, 20), (6, 7)], strict=True):
        expected = F.interpolate(one[None], size, mode="bilinear")[0].argmax(0)
        np.testing.assert_array_equal(finding.labels, expected)
    assert len(found[0].rows()) == 3
    logits[1, 0, 0, 0] = float("nan")
    with pytest.raises(NumericalError, match="1 of 2"):
        segments(logits, [(6, 7)] * 2, "abcde", 3)


def test_a_finding_lists_the_largest_classes_first() -> None:
    found = Segments(np.array([[2, 2, 0, 2]], np.uint8), ("road", "car", "sky"), 5)
    assert found.to_dict() == {"shares": {"sky": 0.75, "road": 0.25}}
    assert found.rows() == [("sky", " 75.00%"), ("road", " 25.00%")]


def test_a_legend_has_every_class_that_can_be_seen_in_columns() -> None:
    labels = np.repeat(np.arange(6, dtype=np.uint8), 6800).reshape(102, 400)
    labels[0, 0] = 6  # a single pixel of 40,800
    found = Segments(labels, tuple("abcdefg"), most=2)
    assert len(found.rows()) == 2
    drawn = np.asarray(found.draw(Image.new("RGB", (400, 102))))
    legend = {tuple(color) for color in drawn[102:].reshape(-1, 3).tolist()}
    assert [color_of(k) in legend for k in range(7)] == [True] * 6 + [False]
    assert len(drawn) == 102 + 2 * 19 + 6, "two rows for six classes: the text is 13 pixels high"
    few = np.asarray(found.above(0.9).draw(Image.new("RGB", (400, 102))))
    assert len(few) == 102 + 6, "no class has so large a share"


@pytest.mark.parametrize(("size", "millions"), [("s", 32), ("m", 42), ("l", 58)])
def test_parameters_with_the_pyramid_are_those_of_table_3(size: str, millions: int) -> None:
    with torch.device("meta"):
        model = segmenter(functools.partial(create_model, f"sequencer2d_{size}"), 150)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == millions


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("sequencer2d_s", [192, 192, 384, 384]),
        ("timm:resnet18", [64, 128, 256, 512]),
        ("pvt_tiny", [64, 128, 320, 512]),
    ],
)
def test_the_decoder_stands_on_maps_of_strides_4_to_32(name: str, channels: list[int]) -> None:
    with torch.device("meta"):
        model = segmenter(functools.partial(create_model, name, drop_path_rate=0.1), 150)
    assert model.backbone.feature_info.reduction() == [4, 8, 16, 32]
    assert model.backbone.feature_info.channels() == channels


def test_a_backbone_of_one_size_is_refused_unless_it_takes_others_too() -> None:
    swin = functools.partial(create_model, "timm:swin_tiny_patch4_window7_224", img_size=(64, 96))
    with torch.device("meta"):
        with pytest.raises(ConfigError, match=r"one size only.*model\.overrides\.strict_img_size=false"):
            segmenter(swin, 3)
        assert segmenter(functools.partial(swin, strict_img_size=False), 3).divisor == 32


def test_colors_of_classes_differ() -> None:
    colors = np.array([color_of(k) for k in range(20)])
    distances = np.abs(colors[:, None] - colors[None]).sum(-1) + 999 * np.eye(20)
    assert distances.min() > 60
    assert distances[:11, :11].min() > 90


def test_colors_of_the_first_classes_by_hand() -> None:
    """Hues 0.6, 0.218, 0.836 and 0.454 of a circle, with saturations of 1, 0.65, 0.35 and values of 1 and 0.85."""
    assert [color_of(k) for k in range(4)] == [(0, 102, 255), (173, 217, 76), (255, 166, 254), (0, 217, 157)]


def test_a_share_at_the_threshold_is_shown_and_one_of_a_2000th_is_in_the_legend() -> None:
    found = Segments(np.array([[2, 2, 0, 2]], np.uint8), ("road", "car", "sky"), 5)
    assert found.above(0.25).rows() == found.rows()
    assert found.above(0.26).rows() == [("sky", " 75.00%")]
    labels = np.zeros((100, 400), np.uint8)
    labels[0, :28] = 1  # 0.0007 of the pixels
    labels[1, :19] = 2  # 0.000475
    drawn = np.asarray(Segments(labels, tuple("abc"), 5).draw(Image.new("RGB", (400, 100))))
    legend = {tuple(color) for color in drawn[100:].reshape(-1, 3).tolist()}
    assert [color_of(k) in legend for k in range(3)] == [True, True, False]


def test_images_that_are_not_finite_are_counted_once_each() -> None:
    logits = torch.zeros(3, 2, 4, 5)
    logits[1, 0, 0, 0] = logits[1, 1, 3, 2] = logits[1, 0, 2, 2] = float("nan")
    with pytest.raises(NumericalError, match="1 of 3"):
        segments(logits, [(4, 5)] * 3, "ab", 3)
    meter = OverlapMeter(("a", "b"))
    meter.add(logits, torch.zeros(3, 4, 5, dtype=torch.int64))
    assert meter.state().not_finite == 1


def test_logits_in_16_bits_are_resized_in_float32_and_the_first_of_equal_classes_is_taken() -> None:
    logits = torch.tensor([[[[1.0, 1.0]], [[1.0, 1.0078125]]]]).bfloat16()
    (found,) = segments(logits, [(1, 4)], "ab", 2)
    assert found.labels.tolist() == [[0, 1, 1, 1]]


def test_files_of_labels_have_the_classes_colors(tmp_path: Path) -> None:
    found = Segments(np.array([[2, 1, 0]], np.uint8), ("a", "b", "c"), 5)
    for _ in range(2):  # the folder may be there already
        with label_folder(tmp_path / "new" / "labels", found.names) as add:
            for image in ("x/one.jpg", "y/one.png", "z/one.png"):
                add(image, found)
    folder = tmp_path / "new" / "labels"
    assert sorted(path.name for path in folder.iterdir()) == ["one-2.png", "one-3.png", "one.png"]
    with Image.open(folder / "one-3.png") as labels:
        assert np.asarray(labels).tolist() == [[2, 1, 0]]
        assert [labels.convert("RGB").getpixel((x, 0)) for x in range(3)] == [color_of(k) for k in (2, 1, 0)]


def test_the_row_of_segmentation() -> None:
    metrics = [(metric.key, metric.field, metric.unit, metric.brief) for metric in SEGMENTATION.metrics]
    assert metrics == [("miou", "mean_iou", "%", True), ("pixel_accuracy", "pixel_accuracy", "%", False)]
    assert (SEGMENTATION.top_k, SEGMENTATION.threshold) == (5, 0.0)
