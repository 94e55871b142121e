"""ImageNet-A, -V2 and -ReaL: their classes, folders and labels, on folders of their layouts."""

import json

import pytest
from PIL import Image

from sequencer2d.data.config import DataConfig
from sequencer2d.data.words import imagenet_wnids
from sequencer2d.errors import ConfigError, DataError
from sequencer2d.evaluation.pixels import match_classes
from sequencer2d.evaluation.shifted import evaluate_shifted, open_shifted
from sequencer2d.evaluation.subject import Subject
from tests.evaluation.subjects import Always, MeanColor, imagenet_subject


def wnid_folder(root, names, count=1):
    for name in names:
        (root / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (32, 32), (index, 0, 0)).save(root / name / f"{name}_{index}.png")
    return root


def test_imagenet_a_asks_about_its_200_classes_only(tmp_path):
    """Output 0 (tench) is no class of ImageNet-A: a model that prefers it is judged by its next choice."""
    wnids = imagenet_wnids()
    stingray, ostrich = wnids.index("n01498041"), wnids.index("n01518878")
    root = wnid_folder(tmp_path / "a", ["n01498041", "n01531178"])
    result = evaluate_shifted(imagenet_subject([0, stingray, ostrich]), open_shifted("imagenet-a", root))
    assert result.top1 == 50
    assert len(result.class_names) == 200
    with pytest.raises(DataError, match="is not imagenet-r"):
        open_shifted("imagenet-r", wnid_folder(tmp_path / "x", ["n01440764", "n99999999"]))


def test_imagenet_v2_folders_are_numbers(tmp_path):
    shifted = open_shifted("imagenet-v2", wnid_folder(tmp_path / "v2", ["0", "10", "2"]))
    assert shifted.wnids == tuple(imagenet_wnids()[number] for number in (0, 10, 2))
    assert evaluate_shifted(imagenet_subject([10]), shifted).top1 == pytest.approx(100 / 3)


def test_real_takes_any_of_its_labels_and_leaves_out_images_without(tmp_path):
    from sequencer2d.evaluation.shifted import _timm_file

    labels = json.loads(_timm_file("imagenet_real_labels.json"))
    several = next(i for i, given in enumerate(labels) if len(given) > 1)
    none = next(i for i, given in enumerate(labels) if not given)
    other = next(i for i, given in enumerate(labels) if given and not set(given) & set(labels[several]))
    folder = tmp_path / "val" / "n01440764"
    folder.mkdir(parents=True)
    for index in (several, none, other):
        Image.new("RGB", (32, 32)).save(folder / f"ILSVRC2012_val_{index + 1:08d}.png")
    result = evaluate_shifted(imagenet_subject([labels[several][-1]]), open_shifted("imagenet-real", tmp_path / "val"))
    assert result.count == 2
    assert result.top1 == 50


def test_files_of_real_are_numbered_from_1_to_50000(tmp_path):
    from sequencer2d.evaluation.shifted import _timm_file

    labels = json.loads(_timm_file("imagenet_real_labels.json"))
    folder = tmp_path / "n01440764"
    folder.mkdir()
    for name in ("00000001_n01440764", "00050000"):
        Image.new("RGB", (4, 4)).save(folder / f"ILSVRC2012_val_{name}.png")
    assert open_shifted("imagenet-real", tmp_path).labels == (tuple(labels[0]), tuple(labels[-1]))
    for name in ("ILSVRC2012_val_00000000", "ILSVRC2012_val_00050001", "x_00000001"):
        Image.new("RGB", (4, 4)).save(folder / f"{name}.png")
        with pytest.raises(DataError, match=f"{name}.png is no ImageNet validation image"):
            open_shifted("imagenet-real", tmp_path)
        (folder / f"{name}.png").unlink()
    for name in ("x", "1000"):
        with pytest.raises(DataError, match=f"its folders are named 0 to 999, found {name}"):
            open_shifted("imagenet-v2", wnid_folder(tmp_path / f"v2-{name}", ["999", name]))


def test_a_model_of_other_classes_is_asked_about_the_shared_ones(tmp_path):
    root = wnid_folder(tmp_path / "a", ["n01498041", "n01531178"])
    names = ("n01531178", "n01498041", "n00000001")
    subject = Subject("tiny", Always(3, [0]), DataConfig(image_size=32), names)
    shifted = open_shifted("imagenet-a", root)
    with pytest.raises(ConfigError, match="lacks 198 of the 200"):
        evaluate_shifted(subject, shifted)
    assert evaluate_shifted(subject, shifted, common_only=True).top1 == 50


def test_classes_that_do_not_match(colors):
    subject = Subject("x", MeanColor(), DataConfig(), ("red", "green", "yellow"))
    with pytest.raises(ConfigError, match="1 of the 3 classes of the images are not among the 3 of x: blue"):
        match_classes(subject, colors)
    assert match_classes(subject, colors, common_only=True).tolist() == [-1, 1, 0]
    unnamed = Subject("x", MeanColor(), DataConfig(), ("class 0", "class 1"), names_known=False)
    with pytest.raises(ConfigError, match="2 outputs without names, the images have 3"):
        match_classes(unnamed, colors)
