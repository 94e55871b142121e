"""The task detection: AP against a count by hand and pycocotools, a run on a tiny data set, boxes drawn and written."""

import functools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from sequencer2d import create_model, tasks
from sequencer2d.cli.main import main
from sequencer2d.data.config import DataConfig
from sequencer2d.data.detection import open_boxes
from sequencer2d.errors import ConfigError, DataError, NumericalError, UserError
from sequencer2d.tasks.average_precision import Compared, PrecisionMeter, as_coco, average_precision
from sequencer2d.tasks.detection import Objects, coco_file, detector, objects, sum_of_losses
from tests.data.test_coco import data_set

CORNERS = np.array([[0, 0, 40, 40], [50, 50, 90, 90]], np.float32)


def compared(number, found, scores, labels, true=CORNERS, true_labels=(0, 1), crowd=None):
    area = (true[:, 2] - true[:, 0]) * (true[:, 3] - true[:, 1])
    crowd = np.zeros(len(true), bool) if crowd is None else np.array(crowd)
    return Compared(number, (100, 100), np.array(found, np.float32).reshape(-1, 4), np.array(scores, np.float32),
                    np.array(labels, np.int64), true, np.array(true_labels), crowd, area, True)  # fmt: skip


def test_boxes_in_cocos_format_are_left_top_width_height_with_numbers_from_1(tmp_path):
    """What the evaluator compares, and the file of predictions, each written out."""
    one = Compared(
        5, (60, 80), np.array([[1, 2, 11, 22]], np.float32), np.array([0.5], np.float32), np.array([1]),
        np.array([[0, 0, 30, 40], [3, 4, 5, 6]], np.float32), np.array([0, 1]), np.array([False, True]),
        np.array([900.5, 4.0], np.float32), True,
    )  # fmt: skip
    truth, results = json.loads(json.dumps(as_coco([one], 2)))
    row = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 30, 40], "area": 900.5, "iscrowd": 0}
    crowd = {"image_id": 1, "category_id": 2, "bbox": [3, 4, 2, 2], "area": 4, "iscrowd": 1}
    assert truth == {
        "info": {},
        "images": [{"id": 1, "height": 60, "width": 80}],
        "annotations": [{"id": 1, **row}, {"id": 2, **crowd}],
        "categories": [{"id": 1}, {"id": 2}],
    }
    assert results == [{"image_id": 1, "category_id": 2, "bbox": [1, 2, 10, 20], "score": 0.5}]
    found = Objects((60, 80), one.found, one.scores, one.labels, ("a", "b"))
    with coco_file(tmp_path / "x.json", ("a", "b")) as add:
        add("none.jpg", replace(found, boxes=found.boxes[:0], scores=found.scores[:0], labels=found.labels[:0]))
        add("one.jpg", found)
    box = {"image_id": 2, "category_id": 2, "bbox": [1, 2, 10, 20], "area": 200, "iscrowd": 0, "score": 0.5}
    assert json.loads((tmp_path / "x.json").read_text()) == {
        "images": [
            {"id": 1, "file_name": "none.jpg", "height": 60, "width": 80},
            {"id": 2, "file_name": "one.jpg", "height": 60, "width": 80},
        ],
        "annotations": [{"id": 1, **box}],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }


def test_average_precision_by_hand():
    pytest.importorskip("faster_coco_eval")
    hit, wide = [0, 0, 40, 40], [0, 0, 40, 50]  # IoU 1, and 0.8: a hit at the thresholds 0.50 to 0.80, 7 of 10
    stats, per_class = average_precision([compared(1, [hit, wide], [0.9, 0.8], [0, 1])], 2)
    assert per_class == [pytest.approx(100), pytest.approx(0)]
    assert stats[0] == pytest.approx(50)
    # The box (0, 0, 40, 50) against (0, 0, 40, 40).
    stats, per_class = average_precision([compared(1, [wide], [0.9], [0], CORNERS[:1], (0,))], 2)
    assert per_class == [pytest.approx(70), None]
    assert stats[:3] == pytest.approx([70, 100, 100])
    # A surer miss in front of the hit: precision 1/2 at every recall.
    stats, _ = average_precision([compared(1, [[60, 0, 90, 20], hit], [0.9, 0.8], [0, 0], CORNERS[:1], (0,))], 1)
    assert stats[0] == pytest.approx(50)
    # A crowd takes what lies in it and is not to be found.
    stats, _ = average_precision(
        [compared(1, [hit, [50, 50, 90, 90]], [0.8, 0.9], [0, 0], true_labels=(0, 0), crowd=[0, 1])], 1
    )
    assert stats[0] == pytest.approx(100)


def test_average_precision_is_the_references():
    pytest.importorskip("faster_coco_eval")
    pycocotools = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(0)
    images = []
    for number in range(40):
        corner = rng.uniform(0, 300, (12, 2))
        true = np.concatenate([corner, corner + rng.uniform(4, 160, (12, 2))], 1).astype(np.float32)
        found = (np.repeat(true, 3, 0) + rng.normal(0, 6, (36, 4))).astype(np.float32)
        labels = rng.integers(0, 4, 12)
        said = np.where(rng.random(36) < 0.8, np.repeat(labels, 3), 0)
        images.append(compared(number, found, rng.random(36).round(2), said, true, labels, rng.random(12) < 0.1))
    truth, results = as_coco(images, 4)
    reference = pycocotools.COCO()
    reference.dataset = truth
    reference.createIndex()
    theirs = COCOeval(reference, reference.loadRes(results), "bbox")
    theirs.evaluate(), theirs.accumulate(), theirs.summarize()
    stats, _ = average_precision(images, 4)
    assert stats == pytest.approx([100 * value for value in theirs.stats[:6]], abs=1e-9)


def output(boxes=CORNERS, finite=True):
    return {"boxes": torch.tensor(boxes) / 2, "scores": torch.tensor([0.9, 0.3])[: len(boxes)],
            "finite": torch.tensor(finite),
            "labels": torch.tensor([1, 0])[: len(boxes)], "size": torch.tensor([50, 50])}  # fmt: skip


def target(number):
    return {"id": torch.tensor(number), "file_size": torch.tensor([100, 100]), "file_boxes": torch.tensor(CORNERS),
            "labels": torch.tensor([0, 1]),
            "crowd": torch.zeros(2, dtype=torch.bool), "area": torch.full((2,), 1600.0)}  # fmt: skip


def test_the_meter_does_not_depend_on_processes_and_follows_the_models_classes():
    pytest.importorskip("faster_coco_eval")
    whole, *parts = (PrecisionMeter(("b", "a"), np.array([1, 0])) for _ in range(3))
    for number in range(4):
        whole.add([output()], [target(number)])
        parts[number % 2].add([output()], [target(number)])
    result = whole.result([whole.state()], 0)
    assert result == parts[0].result([part.state() for part in parts], 0)
    assert result.ap == pytest.approx(100)
    assert result.count == 4
    assert result.class_rows()[0] == ("b", "100.00 %")
    whole.add([output(finite=False)], [target(9)])
    with pytest.raises(NumericalError):
        whole.result([whole.state()], 0)
    with pytest.raises(DataError, match="no images"):
        parts[0].result([], 0)
    nothing = PrecisionMeter(("a", "b"))
    nothing.add([output(boxes=CORNERS[:0])], [target(1)])
    assert nothing.result([nothing.state()], 0).ap == 0


def test_objects_are_in_pixels_of_the_file_and_drawn_there(tmp_path):
    (found,) = objects([output()], [(100, 200)], ("cell", "disc"), 5)
    assert found.to_dict()["objects"][0] == {
        "name": "disc",
        "index": 1,
        "score": pytest.approx(0.9),
        "box": [0, 0, 80, 40],
    }
    sure = found.above(0.5)
    assert sure.rows() == [("disc", " 90.00%", "0 0 80 40")]
    drawn = np.asarray(sure.draw(Image.new("RGB", (200, 100), "white")))
    changed = (drawn != 255).any(-1)
    assert drawn.shape == (100, 200, 3)
    assert changed[:41, :81].any()
    assert not changed[45:, 90:].any()
    assert changed[20, 79:82].any(), "the right side of the box"
    with coco_file(tmp_path / "boxes.json", ("cell", "disc")) as write:
        write("a.jpg", found)
        write("b.jpg", Objects((5, 5), CORNERS[:0], CORNERS[:0, 0], np.zeros(0, np.int64), ("cell", "disc")))
    content = json.loads((tmp_path / "boxes.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["a.jpg", "b.jpg"]
    assert content["annotations"][1]["category_id"] == 1
    assert content["annotations"][1]["bbox"] == [100, 50, 80, 40]


def drawn_box(side):
    box = np.array([[50, 100, 250, 250]], np.float32)
    found = Objects((side, side), box, np.array([0.9]), np.array([0]), ("cell",))
    return np.asarray(found.draw(Image.new("RGB", (side, side), "gray"))).astype(int)


def test_a_name_stands_in_the_middle_of_its_label():
    """Lines are 2 pixels wide; the label's margins are 1.5 lines on both sides and a line above and below."""
    drawn = drawn_box(300)
    rows, columns = np.nonzero((drawn[:98] != 128).any(-1))  # above the box only the label is drawn
    label = drawn[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    contrast = np.abs(label - label[0, 0]).sum(-1)
    down, across = np.nonzero(contrast > 0.4 * contrast.max())
    assert (columns.min(), across.min(), down.min()) == (50, 3, 2)
    assert 3 <= label.shape[1] - 1 - across.max() <= 5


@pytest.mark.parametrize("side, width", [(300, 2), (440, 2), (660, 3)])
def test_lines_are_a_220th_of_the_image_wide_and_at_least_2_pixels(side, width):
    across = drawn_box(side)[200, 30:100]
    assert np.nonzero((across == across[20]).all(-1))[0].tolist() == list(range(20, 20 + width))
    assert (across[19] < 128).all(), "a dark edge beside the line"
    assert (across[:19] == 128).all()


@pytest.mark.parametrize("decoder", ["retinanet", "fcos", "faster_rcnn"])
def test_a_run_in_cocos_layout_is_trained_resumed_evaluated_and_predicts(tmp_path, capsys, decoder):
    pytest.importorskip("faster_coco_eval")
    for split in ("train", "val"):
        data_set(tmp_path / "data", images=(7, 9, 11), split=split)
    run, out = tmp_path / "run", tmp_path / "out"
    fields = [
        f"data.root={tmp_path / 'data'}", f"run.output={run}", f"model.decoder={decoder}", "model.name=sequencer2d_n",
        "model.overrides.depths=1,1", "model.overrides.dims=8,16", "model.overrides.hidden_dims=2,4",
        "model.overrides.patch_sizes=7,2", "data.image_size=40,60", "data.short_sides=32,40", "data.batch_size=2",
        "model.pretrained=false", "data.workers=0", "precision=fp32", "run.device=cpu", "run.epochs=2",
        "schedule.milestones=1", "schedule.warmup_epochs=0.5", "run.progress=none", "run.tensorboard=false",
    ]  # fmt: skip
    assert main(["detect", "train", "coco_retinanet_s", *fields, "run.max_steps=1"]) == 75
    assert main(["detect", "train", "--resume", str(run)]) == 0
    summary = json.loads((run / "summary.json").read_text())
    assert {"ap", "ap50", "ap75"} <= summary["final"].keys()
    whole = tmp_path / "whole"
    assert main(["detect", "train", "coco_retinanet_s", *fields, f"run.output={whole}"]) == 0
    assert json.loads((whole / "summary.json").read_text())["final"] == summary["final"], "resuming is exact"
    capsys.readouterr()
    assert main(["detect", "eval", str(run), "--json", "--device", "cpu", "data.workers=0"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["count"] == 3
    assert measured["ap"] == pytest.approx(summary["best"]["ap"] if summary["best"] else 0)
    photo = str(tmp_path / "data" / "val2017" / "000000000007.jpg")
    arguments = ["--threshold", "0", "--coco", str(tmp_path / "found.json"), "--pictures", str(out), "--device", "cpu"]
    assert main(["detect", "predict", str(run), photo, *arguments]) == 0
    assert json.loads((tmp_path / "found.json").read_text())["categories"][0]["name"] == "disc"
    with Image.open(next(out.iterdir())) as drawn:
        assert drawn.size == (210, 140), "enlarged, so that there is room for labels"
    (tmp_path / "taken").mkdir()
    for flag, path in (("--coco", tmp_path / "taken"), ("--pictures", tmp_path / "found.json")):
        assert main(["detect", "predict", str(run), photo, flag, str(path), "--device", "cpu"]) == 2
        assert f"cannot write to {path}" in capsys.readouterr().err
    assert main(["segment", "eval", str(run)]) == 2
    assert "is for task=detection, not for segment" in capsys.readouterr().err


def test_a_missing_evaluator_is_said_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'sequencer2d\[detection\]'"):
        open_boxes(DataConfig(root=str(tmp_path)), "val")


def test_losses_in_16_bits_are_summed_in_float32():
    """1 + 2⁻⁹ has no bfloat16."""
    parts = {"boxes": torch.tensor(1.0).bfloat16(), "classes": torch.tensor(2.0**-9).bfloat16()}
    total = sum_of_losses(lambda images, targets: parts, torch.zeros(1, 3, 1, 1), [], 0.0)
    assert total.dtype == torch.float32
    assert total.item() == 1 + 2**-9


def test_the_task_is_a_row():
    row = tasks.get("detection")
    assert row.decides.key == "ap"
    assert set(row.decoders) == {"retinanet", "fcos", "faster_rcnn"}


@pytest.mark.parametrize("name", ["timm:swin_tiny_patch4_window7_224", "timm:levit_128s"])
def test_a_backbone_of_one_size_is_refused_before_the_first_step(name):
    """timm's Swin says so of itself; LeViT has a table of one size and only fails in it."""
    with pytest.raises(ConfigError, match=r"takes images of one size only.*choose another backbone \("):
        detector("retinanet")(functools.partial(create_model, name), 2)


def test_the_ap_of_a_class_counts_a_hundred_boxes_an_image():
    """Fifteen boxes are found: with ten, recall would end at two thirds."""
    pytest.importorskip("faster_coco_eval")
    corner = np.stack([np.arange(15) * 50, np.zeros(15)], 1)
    true = np.concatenate([corner, corner + 40], 1).astype(np.float32)
    stats, per_class = average_precision([compared(1, true, np.linspace(1, 0.5, 15), [0] * 15, true, [0] * 15)], 1)
    assert (stats[0], per_class) == (pytest.approx(100), [pytest.approx(100)])


def test_a_result_shows_none_for_sizes_without_objects():
    pytest.importorskip("faster_coco_eval")
    meter = PrecisionMeter(["cell", "disc"])
    half = {name: value.bfloat16() if name in ("boxes", "scores") else value for name, value in output().items()}
    meter.add([{**half, "labels": torch.tensor([0, 1])}], [target(3)])
    result = meter.result([meter.state()], 2)
    assert (result.class_names, result.broken) == (("cell", "disc"), 2)
    shown = ["100.00 %", "100.00 %", "100.00 %", "none", "100.00 %", "none"]
    assert result.rows() == [*zip(("AP", "AP50", "AP75", "AP small", "AP medium", "AP large"), shown, strict=True)]
    assert json.loads(json.dumps(result.to_dict()))["ap_small"] is None
    with pytest.raises(DataError, match=r"no images to evaluate \(2 could not be read\)"):
        meter.result([[]], 2)
    empty = PrecisionMeter(["cell", "disc"])
    crowd = {**target(1), "crowd": torch.ones(2, dtype=torch.bool)}
    empty.add([output()], [crowd])
    with pytest.raises(DataError, match="no image has a box that counts"):
        empty.result([empty.state()], 0)


def test_objects_in_16_bits_are_plain_numbers_and_those_at_the_threshold_stay():
    half = {name: value.bfloat16() if name in ("boxes", "scores") else value for name, value in output().items()}
    (found,) = objects([half], [(100, 100)], ["cell", "disc"], 5)
    assert json.loads(json.dumps(found.to_dict()))["objects"][1]["box"] == [50, 50, 40, 40]
    assert len(objects([output()], [(100, 100)], ["cell", "disc"], 1)[0].rows()) == 1
    exact = replace(found, scores=np.array([0.75, 0.5], np.float32))
    assert [len(exact.above(least).rows()) for least in (0.5, 0.51, 0.75)] == [2, 1, 1]


def test_numbers_of_the_row():
    row = tasks.get("detection")
    assert (row.top_k, row.threshold) == (100, 0.5)
    assert [(metric.key, metric.unit, metric.brief) for metric in row.metrics] == [
        ("ap", "%", True), ("ap50", "%", True), ("ap75", "%", False),
    ]  # fmt: skip
    assert (tasks.CLASSIFICATION.top_k, tasks.CLASSIFICATION.threshold) == (5, 0.0)
