"""One description of a model's input: what timm's terms and a checkpoint's hold of it is the same."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import timm

import sequencer2d
from sequencer2d.data.config import DataConfig, fields_of_input
from sequencer2d.errors import InputError
from sequencer2d.input_spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec

GRAY = InputSpec(
    in_chans=1,
    size=(64, 96),
    mean=(0.3,),
    std=(0.2,),
    interpolation="bilinear",
    crop_pct=0.9,
    crop_mode="squash",
    class_names=("cat", "dog"),
)
WORDS = replace(GRAY, class_descriptions=("a cat", "a dog"))


def test_timms_terms_and_back():
    assert GRAY.to_timm() == {
        "input_size": (1, 64, 96),
        "mean": (0.3,),
        "std": (0.2,),
        "interpolation": "bilinear",
        "crop_pct": 0.9,
        "crop_mode": "squash",
        "label_names": ["cat", "dog"],
        "label_descriptions": None,
    }
    assert WORDS.to_timm()["label_descriptions"] == {"cat": "a cat", "dog": "a dog"}
    assert InputSpec.from_timm(GRAY.to_timm()) == GRAY
    assert InputSpec.from_timm(WORDS.to_timm()) == WORDS
    assert InputSpec.from_timm(InputSpec().to_timm()) == InputSpec()


def test_timms_own_descriptions_are_read():
    cfg = timm.get_pretrained_cfg("sequencer2d_s.in1k").to_dict()
    assert InputSpec.from_timm(cfg) == InputSpec()
    assert InputSpec.from_timm(cfg | {"interpolation": "random"}).interpolation == "bicubic"
    assert InputSpec.from_timm(cfg | {"crop_mode": "border"}).crop_mode == "border"


def test_a_checkpoints_terms_and_back():
    description = json.loads(json.dumps(GRAY.to_description()))
    assert description == {
        "in_chans": 1,
        "class_names": ["cat", "dog"],
        "input": {
            "size": [64, 96],
            "mean": [0.3],
            "std": [0.2],
            "interpolation": "bilinear",
            "crop_pct": 0.9,
            "crop_mode": "squash",
        },
    }
    assert InputSpec(in_chans=1).updated(description) == replace(GRAY, class_names=None)
    assert InputSpec(in_chans=1).updated(description).with_classes(description) == GRAY
    described = WORDS.to_description()
    assert described == description | {"class_descriptions": ["a cat", "a dog"]}
    assert InputSpec(in_chans=1).updated(description).with_classes(described) == WORDS
    assert WORDS.with_classes(description | {"class_descriptions": ["one alone"]}) == GRAY


def test_files_from_before_crop_modes_mean_the_middle():
    description = replace(GRAY, crop_mode="center").to_description()
    assert "crop_mode" not in description["input"]
    assert InputSpec(in_chans=1).updated(description).crop_mode == "center"


def test_a_description_may_lack_any_entry():
    assert GRAY.updated({}) == GRAY
    assert GRAY.updated({"input": {"crop_pct": 1.0}}) == replace(GRAY, crop_pct=1.0)
    assert GRAY.updated({"input": {"mean": [0.1, 0.2, 0.3]}}) == GRAY, "a mean of three channels"


@pytest.mark.parametrize("in_chans, mean, std", [(3, IMAGENET_MEAN, IMAGENET_STD), (2, (0.5, 0.5), (0.5, 0.5))])
def test_the_usual_input(in_chans, mean, std):
    spec = InputSpec.for_images(in_chans, (32, 48), crop_pct=0.9)
    assert spec == InputSpec(in_chans=in_chans, size=(32, 48), mean=mean, std=std, crop_pct=0.9)


def test_the_configuration_of_the_data_says_the_same():
    spec = replace(GRAY, in_chans=3, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), class_names=None)
    config = DataConfig(**fields_of_input(spec))
    assert (config.eval_crop, config.eval_interpolation, config.size) == ("squash", "bilinear", (64, 96))
    assert config.input_spec == spec
    with pytest.raises(InputError, match="images of 1 channels"):
        fields_of_input(GRAY)


def test_imagenets_mean_and_std_stand_in_one_place():
    root = Path(sequencer2d.__file__).parent
    holders = [
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if re.search(r"0\.485|0\.229", path.read_text())
    ]
    assert holders == ["input_spec.py"]
