"""The reader of COCO's format: what it gives, what it leaves out and counts, what it refuses."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sequencer2d.data.coco import CocoBoxes
from sequencer2d.data.config import DataConfig
from sequencer2d.data.detection import FitToSides, eval_boxes, pad_and_list, train_boxes
from sequencer2d.errors import ConfigError, DataError

CATEGORIES = [{"id": 90, "name": "cell"}, {"id": 3, "name": "disc"}]


def box(number, image, category, bbox, **more):
    return {"id": number, "image_id": image, "category_id": category, "bbox": bbox, **more}


GOOD = [box(1, 7, 90, [2, 4, 10, 6]), box(2, 7, 3, [15, 1, 10, 8], iscrowd=1), box(3, 9, 3, [0, 0, 30, 20], area=7)]


IMAGE = {"id": 7, "file_name": "000000000007.jpg", "width": 30, "height": 20}


def data_set(root: Path, annotations=GOOD, images=(7, 9, 11), categories=CATEGORIES, split="val", **changes) -> Path:
    """A data set in COCO's own layout, of 20 × 30 pixels."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    folder = root / f"{split}2017"
    folder.mkdir(exist_ok=True)
    for number in images:
        Image.new("RGB", (30, 20), (number, 0, 0)).save(folder / f"{number:012d}.jpg")
    rows = [{"id": n, "file_name": f"{n:012d}.jpg", "width": 30, "height": 20} for n in images]
    content = {"images": rows, "annotations": annotations, "categories": categories, **changes}
    (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))
    return root


def test_categories_are_classes_in_the_order_of_their_numbers(tmp_path):
    source = CocoBoxes(data_set(tmp_path), "val")
    assert source.class_names == ("disc", "cell")
    assert len(source) == 3
    image, target = source[0]
    assert image.size == (30, 20)
    assert target["id"] == 7
    assert target["boxes"].tolist() == [[2, 4, 12, 10], [15, 1, 25, 9]]
    assert (target["labels"].tolist(), target["crowd"].tolist()) == ([1, 0], [False, True])
    assert target["area"].tolist() == [60, 80]
    assert source[1][1]["area"].tolist() == [7]
    assert source[2][1]["boxes"].shape == (0, 4), "evaluation keeps images without boxes"


@pytest.mark.parametrize(
    ("bbox", "kept"),
    [
        ([-10, 0, 10, 5], False), ([-10, 0, 11, 5], True), ([30, 0, 5, 5], False), ([29, 0, 5, 5], True),
        ([0, -5, 5, 5], False), ([0, -5, 5, 6], True), ([0, 20, 5, 5], False), ([0, 19, 5, 5], True),
        ([3, 3, 0, 5], False), ([3, 3, 5, 0], False), ([3, 3, 0.5, 0.5], True),
    ],
)  # fmt: skip
def test_a_box_counts_if_some_of_it_lies_in_the_image(tmp_path, bbox, kept):
    source = CocoBoxes(data_set(tmp_path, [box(1, 7, 3, [1, 1, 5, 5]), box(2, 7, 3, bbox)], images=(7,)), "val")
    assert len(source[0][1]["boxes"]) == 1 + kept


def test_training_leaves_out_crowds_and_images_without_boxes_and_counts_them(tmp_path, caplog):
    odd = [box(4, 9, 3, [5, 5, 0, 3]), box(5, 9, 3, [40, 5, 3, 3]), box(6, 9, 3, [5, 5, 2, -3])]
    with caplog.at_level(logging.WARNING):
        source = CocoBoxes(data_set(tmp_path, [*GOOD, *odd]), "val", train=True)
    assert [source[i][1]["id"] for i in range(len(source))] == [7, 9]
    assert source[0][1]["labels"].tolist() == [1]
    assert len(source[1][1]["boxes"]) == 1
    for said in ("2 boxes without area (4, 6)", "1 boxes outside of their image (5)", "1 crowd boxes (2)",
                 "1 images without boxes (000000000011.jpg)"):  # fmt: skip
        assert said in caplog.text


@pytest.mark.parametrize("layout", [("annotations/{}.json", "{}"), ("{}/_annotations.coco.json", "{}")])
def test_other_layouts_and_a_single_class(tmp_path, layout):
    data_set(tmp_path, GOOD[:1], categories=CATEGORIES[:1])
    annotations, folder = (tmp_path / part.format("valid") for part in layout)
    (tmp_path / "val2017").rename(folder)
    (tmp_path / "annotations" / "instances_val2017.json").rename(annotations)
    source = CocoBoxes(tmp_path, "val")
    assert source.class_names == ("cell",)
    assert len(source) == 3


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"annotations": [box(1, 7, 5, [1, 1, 2, 2])]}, "annotations name the categories 5, which it does not list"),
        ({"annotations": [box(1, 8, 3, [1, 1, 2, 2])]}, "annotations name the images 8, which it does not list"),
        ({"annotations": [box(1, 7, 3, [1, 1, 2])]}, "annotation 1 has bbox=[1, 1, 2]; expected left, top, width"),
        ({"annotations": [box(1, 7, 3, [1, 1, float("nan"), 1])]}, "annotation 1 has bbox"),
        ({"annotations": [box(1, 7, 3, [1, 1, 10**400, 1])]}, "annotation 1 has bbox"),
        ({"annotations": [box(1, 7, 3, [1, 1, True, 1])]}, "annotation 1 has bbox"),
        ({"annotations": [box(1, 7, 3, [1, 1, 2, 2], iscrowd="0")]}, "annotation 1 has iscrowd='0'; expected 0 or 1"),
        ({"annotations": [box(1, 7, 3, [1, 1, 2, 2], area="big")]}, "annotation 1 has area='big'; expected an area"),
        ({"annotations": [box(1, 7, 3, [1, 1, 2, 2], area=None)]}, "annotation 1 has area=None"),
        (
            {"annotations": [box(1, 7, [3], [1, 1, 2, 2])]},
            "annotation 1 has category_id=[3]; expected",
        ),
        ({"annotations": [box(1, "7", 3, [1, 1, 2, 2])]}, "annotation 1 has image_id='7'"),
        ({"annotations": [{"id": 1}]}, "annotation 1 lacks image_id, category_id, bbox"),
        ({"annotations": [3]}, "an annotation is no object: 3"),
        ({"images": [IMAGE | {"width": "30"}]}, "an entry of images has width='30'; expected a whole number of pixels"),
        ({"images": [IMAGE | {"height": 0}]}, "an entry of images has height=0"),
        ({"images": [IMAGE | {"file_name": 7}]}, "an entry of images has file_name=7"),
        ({"images": [IMAGE | {"file_name": "../a.jpg"}]}, "expected the path of a file in the folder of images"),
        ({"images": [IMAGE | {"file_name": "/etc/a.jpg"}]}, "expected the path of a file in the folder of images"),
        ({"images": [IMAGE | {"id": True}]}, "an entry of images has id=True"),
        ({"categories": [{"id": 3, "name": ["cell"]}]}, "an entry of categories has name="),
        ({"annotations": []}, "has no image with a box"),
        ({"categories": []}, "has no categories"),
        ({"categories": [*CATEGORIES, {"id": 4, "name": "cell"}]}, "names the categories cell twice"),
        ({"categories": [*CATEGORIES, {"id": 3, "name": "rod"}]}, "the number 3 stands twice in categories"),
        ({"images": [{"id": 7}]}, "an entry of images lacks file_name, width, height"),
        ({"images": None}, "is not in COCO's format"),
        ({"images": []}, "lists no images"),
        ({"images": [IMAGE, IMAGE | {"id": 9}]}, "lists the files 000000000007.jpg twice in images; put all boxes"),
        (
            {"annotations": [box(k, 7, 3, [10 + k, 8, 25, 19]) for k in range(4)]},
            "4 of 4 boxes leave their image, and all would fit as left, top, right, bottom; expected left, top, width",
        ),
        ({"annotations": [box(1, 7, 3, [0.1, 0.2, 0.5, 0.5])]}, "all boxes lie between 0 and 1; multiply them by the"),
    ],
)
def test_what_does_not_fit_is_one_error_before_the_first_step(tmp_path, changes, says):
    root = data_set(tmp_path)
    file = root / "annotations" / "instances_val2017.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(DataError) as error:
        CocoBoxes(root, "val")
    assert says in str(error.value)


def test_boxes_that_reach_beyond_their_image_are_no_corners_by_mistake(tmp_path):
    """One of four may fit both ways, and one that fits only as width and height decides for all."""
    few = [box(1, 7, 3, [20, 8, 25, 19]), *(box(k, 7, 3, [2, 2, 9, 9]) for k in range(2, 7))]
    mixed = [box(k, 7, 3, [20, 8, 25, 19]) for k in range(3)] + [box(3, 7, 3, [20, 8, 9, 9])]
    for annotations in (few, mixed):
        assert len(CocoBoxes(data_set(tmp_path, annotations), "val")) == 3


def test_boxes_that_stand_twice_are_left_out_of_training_and_counted(tmp_path, caplog):
    root = data_set(tmp_path, [*GOOD, box(8, 7, 90, [2, 4, 10, 6])])
    with caplog.at_level(logging.WARNING):
        source = CocoBoxes(root, "val", train=True)
    assert len(source[0][1]["boxes"]) == 1
    assert "1 boxes that stand twice (8)" in caplog.text
    assert len(CocoBoxes(root, "val")[0][1]["boxes"]) == 3, "evaluation counts as the reference does"


def test_a_file_that_is_no_json_or_nested_too_deep_is_one_error(tmp_path):
    file = data_set(tmp_path) / "annotations" / "instances_val2017.json"
    for content in ("{", "[" * 200_000):
        file.write_text(content)
        with pytest.raises(DataError, match=r"JSON|nested too deep"):
            CocoBoxes(tmp_path, "val")


def test_what_detection_cannot_keep_is_refused():
    whole = {"auto_augment": "", "erasing": 0.0, "eval_crop": "squash", "crop_pct": 1.0}
    assert train_boxes(DataConfig(**whole)).train
    assert not eval_boxes(DataConfig(**whole)).train
    for make, changed in (
        (train_boxes, {"auto_augment": "rand-m9-mstd0.5-inc1"}), (train_boxes, {"erasing": 0.25}),
        (train_boxes, {"crop": "pad"}), (eval_boxes, {"eval_crop": "center"}), (eval_boxes, {"crop_pct": 0.9}),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=f"data.{next(iter(changed))}.* does not fit task=detection.*: set data."):
            make(DataConfig(**{**whole, **changed}))


def test_missing_files_are_counted_up_to_a_limit(tmp_path, caplog):
    root = data_set(tmp_path)
    (root / "val2017" / "000000000009.jpg").unlink()
    with pytest.raises(DataError, match="images that cannot be read: 1"):
        CocoBoxes(root, "val")
    with caplog.at_level(logging.WARNING):
        assert len(CocoBoxes(root, "val", max_missing=1)) == 2
    assert "1 images without a file (000000000009.jpg)" in caplog.text
    with pytest.raises(DataError, match=r"looked for annotations/instances_train2017.json"):
        CocoBoxes(root, "train")


def test_an_image_of_another_size_than_its_annotations_say(tmp_path):
    root = data_set(tmp_path)
    Image.new("RGB", (20, 30)).save(root / "val2017" / "000000000009.jpg")
    with pytest.raises(DataError, match="has 20×30 pixels, but its annotations say 30×20"):
        CocoBoxes(root, "val")


def test_boxes_follow_their_image(tmp_path):
    config = DataConfig(image_size=(40, 45), hflip=1.0, auto_augment="", eval_interpolation="bilinear")
    image, target = CocoBoxes(data_set(tmp_path), "val")[0]
    target["boxes"][1] = [-4, 1, 25, 9]
    pixels, moved = FitToSides(config, train=False)(image, target)
    assert pixels.shape == (30, 45, 3), "the longer side is the tighter one: 1.5 times as large"
    assert np.allclose(moved["boxes"], target["boxes"] * 1.5)
    assert np.allclose(moved["file_boxes"], target["boxes"])
    pixels, moved = FitToSides(config, train=True)(image, target)
    assert np.allclose(moved["boxes"], [[27, 6, 42, 15], [7.5, 1.5, 45, 13.5]]), "mirrored, and cut at the border"
    small = DataConfig(image_size=(40, 600), short_sides=(10,), auto_augment="")
    assert FitToSides(small, train=True)(image, target)[0].shape == (10, 15, 3)
    images, listed = pad_and_list([FitToSides(c, train=False)(image, target) for c in (config, small)])
    assert images.shape == (2, 40, 60, 3)
    assert [t["size"].tolist() for t in listed] == [[30, 45], [40, 60]]
