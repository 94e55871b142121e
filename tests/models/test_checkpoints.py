import argparse
import json
import logging
import pickle

import pytest
import safetensors
import torch

from sequencer2d import create_model, list_models
from sequencer2d.errors import CheckpointError, ConfigError
from sequencer2d.models import (
    Sequencer2D,
    describe_model,
    load_model,
    load_weights,
    read_checkpoint,
    save_weights,
    to_authors,
)
from sequencer2d.models.fit import adapt_channels, identify
from tests.models.small import SIZES, randomize, small_model


@pytest.fixture(scope="module")
def model():
    return small_model()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth"])
def test_what_is_saved_is_rebuilt_from_the_file_alone(tmp_path, name):
    sizes = {"img_size": (28, 42), "patch_sizes": (2, 2, 1, 1), "stem_overlap": 1}
    model = small_model(in_chans=1, position_embedding=True, **sizes)
    model.pretrained_cfg |= {"label_names": list("abcde"), "mean": (0.3,), "std": (0.2,), "crop_pct": 1.0}
    save_weights(model, tmp_path / name)
    again = load_model(tmp_path / name)
    assert same(again.state_dict(), model.state_dict())
    assert again.config == model.config
    assert not again.training
    for key in ("label_names", "mean", "std", "crop_pct", "input_size", "interpolation"):
        assert again.pretrained_cfg[key] == model.pretrained_cfg[key]
    x = torch.randn(1, 1, 30, 42)
    assert torch.equal(again(x), model(x))


def test_a_file_describes_its_model_as_documented(tmp_path, model):
    save_weights(model, tmp_path / "w.safetensors", {"class_names": list("abcde")})
    with safetensors.safe_open(tmp_path / "w.safetensors", "pt") as file:
        meta = json.loads(file.metadata()["sequencer2d"])
    assert meta == {
        "format": 1,
        "model": "sequencer2d_n",
        "overrides": {key: list(value) for key, value in SIZES.items()} | {"pad": "crop"},
        "num_classes": 5,
        "in_chans": 3,
        "class_names": ["a", "b", "c", "d", "e"],
        "input": {
            "size": [224, 224],
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "interpolation": "bicubic",
            "crop_pct": 0.875,
        },
    }
    assert read_checkpoint(tmp_path / "w.safetensors").meta == meta


@pytest.mark.parametrize("pad", ["crop", "zeros"])
def test_what_becomes_of_sizes_that_do_not_fit_is_kept(tmp_path, pad):
    model, x = small_model(pad=pad), torch.randn(1, 3, 33, 41)
    save_weights(model, tmp_path / "w.safetensors")
    again = load_model(tmp_path / "w.safetensors")
    assert again.config.pad == pad
    assert torch.equal(again(x), model(x))


def test_a_file_from_when_all_images_were_padded_answers_as_it_did(tmp_path):
    model, x = small_model(pad="zeros"), torch.randn(1, 3, 33, 41)
    description = describe_model(model)
    del description["overrides"]["pad"]
    save_weights(model, tmp_path / "old.pt", {"overrides": description["overrides"]})
    assert torch.equal(load_model(tmp_path / "old.pt")(x), model(x))
    assert not torch.equal(load_model(tmp_path / "old.pt", pad="crop")(x), model(x))


def test_class_names_must_be_as_many_as_classes(model):
    with pytest.raises(ConfigError, match="2 class names for a model of 5"):
        describe_model(model, ["cat", "dog"])


@pytest.mark.parametrize("key", ["model", "state_dict", None])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
@pytest.mark.parametrize("authors", [False, True])
def test_foreign_files_wrapped_or_not(tmp_path, model, key, prefix, authors):
    state = to_authors(model.state_dict()) if authors else model.state_dict()
    state = {prefix + name: tensor for name, tensor in state.items()}
    torch.save({key: state, "epoch": 3} if key else state, tmp_path / "foreign.pth")
    assert same(read_checkpoint(tmp_path / "foreign.pth").state_dict, model.state_dict())


def test_averaged_weights_are_taken_unless_told_otherwise(tmp_path, model):
    other = randomize(small_model(), seed=1)
    torch.save({"model": model.state_dict(), "model_ema": other.state_dict()}, tmp_path / "last.pt")
    assert same(read_checkpoint(tmp_path / "last.pt").state_dict, other.state_dict())
    assert same(read_checkpoint(tmp_path / "last.pt", use_ema=False).state_dict, model.state_dict())


def test_checkpoints_of_timms_training_script(tmp_path):
    state = create_model("sequencer2d_n", num_classes=2).state_dict()
    content = {"state_dict": state, "arch": "sequencer2d_n", "args": argparse.Namespace(lr=0.1)}
    torch.save(content, tmp_path / "checkpoint-3.pth.tar")
    assert load_model(tmp_path / "checkpoint-3.pth.tar").variant == "sequencer2d_n"


@pytest.mark.parametrize("name", list_models())
def test_every_variant_is_recognized_by_its_parameters(name):
    with torch.device("meta"):
        state = create_model(name, num_classes=7, in_chans=1, img_size=112).state_dict()
    assert identify(state, Sequencer2D) == name


def test_a_bare_state_dict_of_a_variant_loads(tmp_path):
    torch.save(create_model("sequencer2d_n", num_classes=4).state_dict(), tmp_path / "bare.pth")
    loaded = load_model(tmp_path / "bare.pth")
    assert (loaded.variant, loaded.num_classes) == ("sequencer2d_n", 4)


def test_a_bare_state_dict_of_no_variant_asks_which_model_it_is(tmp_path, model):
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    with pytest.raises(CheckpointError, match="give its variant as name="):
        load_model(tmp_path / "bare.pth")
    assert same(load_model(tmp_path / "bare.pth", name="sequencer2d_n", **SIZES).state_dict(), model.state_dict())


@pytest.mark.parametrize("classes", [0, 9])
def test_a_new_number_of_classes_drops_the_head_and_says_so(tmp_path, model, classes, caplog):
    save_weights(model, tmp_path / "w.pt", {"class_names": list("abcde")})
    with caplog.at_level(logging.WARNING, "sequencer2d"):
        loaded = load_model(tmp_path / "w.pt", num_classes=classes)
    assert f"classifier for 5 classes left out, the model has {classes}" in caplog.text
    assert loaded.pretrained_cfg["label_names"] is None
    expected = {k: v for k, v in model.state_dict().items() if not k.startswith("head")}
    assert same({k: v for k, v in loaded.state_dict().items() if not k.startswith("head")}, expected)


def test_the_same_number_of_classes_keeps_the_head_and_is_silent(tmp_path, model, caplog):
    save_weights(model, tmp_path / "w.pt")
    assert same(load_model(tmp_path / "w.pt").state_dict(), model.state_dict())
    assert not caplog.records


@pytest.mark.parametrize("chans", [1, 2, 4, 6])
def test_a_stem_for_rgb_adapts_to_other_channels_as_timms_does(tmp_path, model, chans, caplog):
    from timm.models import adapt_input_conv

    save_weights(model, tmp_path / "w.pt")
    loaded = load_model(tmp_path / "w.pt", in_chans=chans)
    assert f"adapted to {chans}" in caplog.text
    torch.testing.assert_close(loaded.stem.proj.weight, adapt_input_conv(chans, model.stem.proj.weight))
    gray = torch.randn(1, 1, 28, 28)
    if chans != 2 and chans != 4:
        torch.testing.assert_close(loaded(gray.expand(-1, chans, -1, -1)), model(gray.expand(-1, 3, -1, -1)))


def test_adapted_channels_keep_the_sum():
    weight = torch.rand(2, 3, 7, 7)
    torch.testing.assert_close(adapt_channels(weight, 6).sum(1), weight.sum(1))


def test_a_position_embedding_is_resampled_and_says_so(tmp_path, caplog):
    small = small_model(position_embedding=True, img_size=28)
    save_weights(small, tmp_path / "w.pt")
    loaded = load_model(tmp_path / "w.pt", img_size=56)
    assert "resampled from (4, 4) to (8, 8)" in caplog.text
    x = torch.randn(1, 3, 56, 56)
    torch.testing.assert_close(loaded(x), small(x))


def test_what_does_not_fit_is_named(tmp_path, model):
    state = model.state_dict()
    del state["norm.weight"]
    state["extra"] = torch.zeros(1)
    state["stem.proj.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "w.pt")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, tmp_path / "w.pt")
    message = str(caught.value)
    assert "missing: norm.weight; unexpected: extra; of another shape: stem.proj.bias (3,) instead of (16,)" in message
    assert same(model.state_dict(), before)


def test_weights_of_another_variant_are_recognized(tmp_path):
    save_weights(create_model("sequencer2d_n"), tmp_path / "n.safetensors")
    with pytest.raises(CheckpointError, match=r"does not fit sequencer2d_t.*looks like sequencer2d_n"):
        create_model("sequencer2d_t", checkpoint=str(tmp_path / "n.safetensors"))


def test_half_a_head_is_an_error(tmp_path, model):
    state = model.state_dict()
    del state["head.fc.bias"]
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"missing: head\.fc\.bias"):
        load_weights(model, tmp_path / "w.pt")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 3, 100, 0.5, 0.999])
def test_a_truncated_file_is_a_clear_error(tmp_path, model, suffix, keep):
    path = tmp_path / f"w{suffix}"
    save_weights(model, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(CheckpointError, match="damaged, truncated"):
        read_checkpoint(path)


def test_a_flipped_bit_in_the_weights_is_noticed(tmp_path, model):
    path = tmp_path / "w.pt"
    save_weights(model, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="check sum"):
        read_checkpoint(path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_of_something_else_is_a_clear_error(tmp_path, suffix):
    (tmp_path / f"w{suffix}").write_text("<html>not found</html>\n" * 40)
    with pytest.raises(CheckpointError, match="damaged, truncated"):
        read_checkpoint(tmp_path / f"w{suffix}")


def test_nothing_of_a_file_is_executed(tmp_path):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    (tmp_path / "w.pt").write_bytes(pickle.dumps(Attack()))
    torch.save({"model": Attack()}, tmp_path / "z.pt")
    for name in ("w.pt", "z.pt"):
        with pytest.raises(CheckpointError, match="is not read: it holds objects of Python") as caught:
            read_checkpoint(tmp_path / name)
        assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [{}, {"model": {}}, {"epoch": 3}, [1, 2]])
def test_a_file_without_weights_is_a_clear_error(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="holds"):
        read_checkpoint(tmp_path / "w.pt")


def test_other_mistakes_are_clear_errors(tmp_path, model):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        read_checkpoint(tmp_path / "notes.txt")
    with pytest.raises(CheckpointError, match="use the suffix"):
        save_weights(model, tmp_path / "w.onnx")
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot write"):
        save_weights(model, tmp_path / "file" / "w.pt")
    with pytest.raises(ConfigError, match="choose one"):
        create_model("sequencer2d_s", pretrained=True, checkpoint="x.pt")


def test_a_newer_format_and_an_unknown_model_are_clear_errors(tmp_path, model):
    save_weights(model, tmp_path / "new.pt", {"format": 2})
    with pytest.raises(CheckpointError, match="update sequencer2d"):
        read_checkpoint(tmp_path / "new.pt")
    save_weights(model, tmp_path / "odd.pt", {"model": "resnet50"})
    with pytest.raises(CheckpointError, match="unknown model 'resnet50'"):
        load_model(tmp_path / "odd.pt")
