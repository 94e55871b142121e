"""What a model says of its input and its classes, and models at other sizes."""

import pytest
import torch
from torch import nn

from sequencer2d.data.words import imagenet_wnids
from sequencer2d.errors import CheckpointError, InputError
from sequencer2d.evaluation.loading import untrained
from sequencer2d.evaluation.predict import class_names_of
from sequencer2d.evaluation.subject import input_fields, load_checkpoint, load_subject, subject_of
from sequencer2d.models import create_model, save_weights
from tests.evaluation.subjects import colors_subject

SMALL = {"depths": (1, 1), "dims": (16, 16), "hidden_dims": (4, 4), "patch_sizes": (4, 2), "num_classes": 3}
SAID = {
    "input_size": (3, 48, 40),
    "mean": (0.1, 0.2, 0.3),
    "std": (0.4, 0.5, 0.6),
    "interpolation": "lanczos",
    "crop_pct": 0.9,
    "crop_mode": "border",
}
FIELDS = {
    "image_size": (48, 40),
    "mean": (0.1, 0.2, 0.3),
    "std": (0.4, 0.5, 0.6),
    "eval_interpolation": "lanczos",
    "eval_crop": "border",
    "crop_pct": 0.9,
}


def small(**said: object) -> nn.Module:
    model = create_model("sequencer2d_n", **SMALL)
    model.pretrained_cfg = {**model.pretrained_cfg, **said}
    return model


def test_the_models_description_is_its_input() -> None:
    assert input_fields(small(**SAID)) == FIELDS
    assert subject_of(small(**SAID), name="x").input_fields == FIELDS
    assert input_fields(small(interpolation="random"))["eval_interpolation"] == "bicubic"
    plain = input_fields(create_model("sequencer2d_n", **SMALL))
    assert (plain["image_size"], plain["eval_crop"], plain["crop_pct"]) == ((224, 224), "center", 0.875)
    with pytest.raises(InputError, match="images of 1 channels; image files are read as RGB"):
        input_fields(small(input_size=(1, 48, 48)))


def test_names_are_known_or_numbers() -> None:
    named = subject_of(small(label_names=["a", "b", "c"]), name="x")
    assert (named.class_names, named.names_known) == (("a", "b", "c"), True)
    too_few = subject_of(small(label_names=["a", "b"]), name="x")
    assert (too_few.class_names, too_few.names_known) == (("class 0", "class 1", "class 2"), False)
    imagenet = subject_of(create_model("sequencer2d_n", **{**SMALL, "num_classes": 1000}), name="x")
    assert (imagenet.class_names, imagenet.names_known) == (imagenet_wnids(), True)
    assert class_names_of(imagenet.model)[0] == "tench, Tinca tinca"


def test_the_architecture_is_that_of_our_table_or_timms() -> None:
    assert subject_of(create_model("sequencer2d_n", **SMALL), name="x").architecture == "sequencer2d_n"
    assert load_subject("random:resnet18", num_classes=2).architecture == "resnet18"
    assert colors_subject().architecture == ""


def test_a_subject_is_resized_or_says_why_not() -> None:
    subject = subject_of(small(**SAID).train(), name="x")
    assert not subject.model.training
    assert subject.adapted((48, 40)).model is subject.model
    assert subject.adapted(64).data.size == (64, 64)
    assert subject.resized(32).data.size == (32, 32)
    assert subject.data.size == (48, 40)
    with pytest.raises(InputError, match="7×7"):
        subject.adapted(7)


def test_an_untrained_model_is_always_the_same_and_not_blind() -> None:
    state = torch.get_rng_state()
    first, again = (untrained("sequencer2d_n", 3).state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert first["head.fc.weight"].std().item() == pytest.approx(0.02, rel=0.1)
    torch.manual_seed(0)
    drawn = create_model("sequencer2d_n", num_classes=3).state_dict()
    assert all(torch.equal(first[name], drawn[name]) for name in drawn if not name.startswith("head"))
    assert load_subject("mine@random:sequencer2d_n", num_classes=3).name == "mine"
    assert load_subject("random:sequencer2d_n", num_classes=3).name == "sequencer2d_n"
    assert load_subject("random:sequencer2d_n").model.num_classes == 1000


def test_a_checkpoint_of_an_unknown_task_is_named(tmp_path) -> None:
    save_weights(small(), tmp_path / "m.safetensors", {"task": "depth"})
    with pytest.raises(CheckpointError, match=r"m\.safetensors: unknown task 'depth'; known: classification"):
        load_checkpoint(tmp_path / "m.safetensors")
    save_weights(small(), tmp_path / "m.safetensors", {"task": "classification"})
    assert load_checkpoint(tmp_path / "m.safetensors").name == "sequencer2d_n"
