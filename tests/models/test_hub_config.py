"""timm's config.json: folders go from us to timm and transformers and back, and compute the same everywhere."""

import inspect
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from timm.models import save_for_hf

from sequencer2d import create_model, load_model, register_timm
from sequencer2d.data.config import DataConfig
from sequencer2d.data.eval_transforms import eval_transform
from sequencer2d.errors import CheckpointError
from sequencer2d.evaluation.predict import class_names_of
from sequencer2d.evaluation.subject import input_fields
from sequencer2d.models import Sequencer2D
from tests.models.small import SIZES, randomize, small_model

NAMES = ["a", "b", "c", "d", "é"]
INPUT = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "crop_pct": 0.8, "interpolation": "bilinear"}
TIMM_SIZES: dict[str, Any] = {
    "layers": (1, 2, 1, 1), "embed_dims": (16, 32, 32, 32), "hidden_sizes": (4, 8, 8, 8),
}  # fmt: skip

with_model_args = pytest.mark.skipif(
    "data_config" not in inspect.signature(save_for_hf).parameters,
    reason="this version of timm writes no model_args, and its Sequencer takes fewer options",
)


def theirs(**options: Any) -> Any:
    """timm's own Sequencer, small, with weights that show."""
    torch.manual_seed(0)
    return randomize(timm.create_model("sequencer2d_s", num_classes=5, **(TIMM_SIZES | options))).eval()


def of_a_published_name(**options: Any) -> Any:
    torch.manual_seed(0)
    model = randomize(create_model("sequencer2d_s", num_classes=5, **(SIZES | options))).eval()
    model.pretrained_cfg = model.pretrained_cfg | INPUT | {"label_names": NAMES}
    return model


@with_model_args
@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"global_pool": "max"},
        {"in_chans": 1},
        {"union": "add", "bidirectional": False},
        {"union": "vertical"},
        {"union": "horizontal", "with_fc": False, "hidden_sizes": (8, 16, 16, 16)},
        {"union": "cat", "with_fc": False},
        {"mlp_ratios": (2.0, 2.0, 2.0, 2.0), "patch_sizes": (2, 1, 1, 2)},
    ],
)
def test_what_timm_saves_of_its_own_models_computes_the_same_here(tmp_path: Path, safe: bool, options: Any) -> None:
    model = theirs(**options)
    data = INPUT if model.in_chans == 3 else {"crop_pct": 0.8}
    save_for_hf(model, tmp_path, {"label_names": NAMES}, safe_serialization=safe, data_config=data)
    ours = load_model(tmp_path)
    x = torch.randn(2, model.in_chans, 56, 28)
    torch.testing.assert_close(ours(x), model(x))
    assert {key: ours.pretrained_cfg[key] for key in data} == data
    assert ours.pretrained_cfg["label_names"] == NAMES
    assert list(class_names_of(ours)) == NAMES
    torch.testing.assert_close(Sequencer2D.from_pretrained(tmp_path)(x), model(x))


@with_model_args
@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_images_are_prepared_as_timm_prepares_them(tmp_path: Path, mode: str) -> None:
    model = theirs(img_size=(56, 42))
    model.pretrained_cfg = model.pretrained_cfg | INPUT | {"crop_mode": mode}
    save_for_hf(model, tmp_path)
    image = Image.effect_noise((90, 70), 80).convert("RGB")
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    expected = create_transform(**resolve_model_data_config(again), is_training=False)(image)
    config = DataConfig(**input_fields(load_model(tmp_path)))
    pixels = torch.tensor(eval_transform(config)(image)).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (config.mean, config.std))
    torch.testing.assert_close((pixels - mean) / std, expected)


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"global_pool": "max", "in_chans": 1}, marks=with_model_args),
        {"fusion": "add", "bidirectional": False},
        {"axes": "vertical"},
        {"axes": "horizontal", "fusion": "none", "hidden_dims": (8, 16, 16, 16)},
        {"fusion": "none"},
        {"mlp_ratio": 2.0, "patch_sizes": (2, 1, 1, 2), "img_size": (56, 28)},
    ],
)
def test_what_we_save_of_timms_models_computes_the_same_in_timm(tmp_path: Path, options: Any) -> None:
    model = of_a_published_name(**options)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architecture"] == "sequencer2d_s"
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert type(again).__module__.startswith("timm."), "timm alone, without a registration of ours"
    x = torch.randn(2, model.in_chans, 56, 28)
    torch.testing.assert_close(again(x), model(x))
    found = resolve_model_data_config(again)
    for key, value in INPUT.items():
        if model.in_chans == 3 or key not in ("mean", "std"):
            assert (tuple(found[key]) if isinstance(value, tuple) else found[key]) == value
    assert list(again.pretrained_cfg["label_names"]) == NAMES


@pytest.mark.parametrize(
    "options",
    [
        {"cell": "gru"},
        {"cell": "rnn", "global_pool": "max"},
        {"position_embedding": True, "img_size": 28},
        {"axes": "flatten", "fusion": "concat"},
        {"img_size": 30, "pad": "zeros"},
        {"stem_overlap": 2},
    ],
)
def test_what_timm_cannot_be_is_refused_until_ours_are_registered(tmp_path: Path, options: Any) -> None:
    model = of_a_published_name(**options)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architecture"] == "s2d_sequencer2d_s"
    register_timm()
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert again.config == model.config
    x = torch.randn(2, 3, 30, 28)
    torch.testing.assert_close(again(x), model(x), rtol=0, atol=0)
    (tmp_path / "config.json").write_text(json.dumps(config | {"architecture": "unregistered_sequencer2d_s"}))
    with pytest.raises(RuntimeError, match="Unknown model"):
        timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    torch.testing.assert_close(load_model(tmp_path)(x), model(x), rtol=0, atol=0)


@with_model_args
@pytest.mark.parametrize("safe", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"global_pool": "max", "in_chans": 1},
        {"cell": "gru", "fusion": "add", "mlp_ratio": 2.0},
        {"position_embedding": True, "img_size": 28, "bidirectional": False},
    ],
)
def test_what_timm_saves_for_the_hub_is_read_by_timm_and_by_us(tmp_path: Path, safe: bool, options: Any) -> None:
    register_timm()
    model = timm.create_model("s2d_sequencer2d_n", **SIZES, num_classes=5, **options)
    randomize(model).eval()
    save_for_hf(model, tmp_path, {"label_names": list("abcde")}, safe_serialization=safe)
    x = torch.randn(2, model.in_chans, 28, 42)
    for again in (timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval(), load_model(tmp_path)):
        torch.testing.assert_close(again(x), model(x), rtol=0, atol=0)
        assert again.config == model.config
        assert list(again.pretrained_cfg["label_names"]) == list("abcde")


@pytest.mark.parametrize("registered", [True, pytest.param(False, marks=with_model_args)])
def test_transformers_reads_our_folders_and_we_read_its(tmp_path: Path, registered: bool) -> None:
    transformers = pytest.importorskip("transformers")
    if registered:
        register_timm()
        model = small_model(global_pool="max", cell="gru")
        model.pretrained_cfg = model.pretrained_cfg | INPUT | {"label_names": NAMES}
    else:
        model = of_a_published_name(global_pool="max")
    model.save_pretrained(tmp_path / "ours")
    wrapped = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "ours").eval()
    x = torch.randn(2, 3, 28, 42)
    with torch.no_grad():
        torch.testing.assert_close(wrapped(x).logits, model(x))
        hidden = wrapped(x, output_hidden_states=True).hidden_states
        torch.testing.assert_close(list(hidden), model.forward_intermediates(x, intermediates_only=True))
    assert wrapped.config.id2label == dict(enumerate(NAMES))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "ours")
    assert processor.data_config["mean"] == INPUT["mean"]
    assert processor.data_config["crop_pct"] == 0.8

    wrapped.save_pretrained(tmp_path / "theirs")
    again = load_model(tmp_path / "theirs")
    torch.testing.assert_close(again(x), model(x))
    assert again.config.replace(img_size=224) == model.config.replace(img_size=224)
    assert again.pretrained_cfg["label_names"] == NAMES
    assert {key: again.pretrained_cfg[key] for key in INPUT} == INPUT


def folder_of(tmp_path: Path, **changes: Any) -> Path:
    save_for_hf(theirs(), tmp_path, {"label_names": NAMES}, model_args={k: list(v) for k, v in TIMM_SIZES.items()})
    config = json.loads((tmp_path / "config.json").read_text())
    for key, value in changes.items():
        part, _, name = key.rpartition("__")
        (config[part] if part else config)[name] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize("key", ["label_descriptions", "pretrained_cfg__label_descriptions"])
def test_words_for_classes_are_read_where_timm_and_people_write_them(tmp_path: Path, key: str) -> None:
    words = {NAMES[0]: "a word", NAMES[2]: "two words"}
    again = load_model(folder_of(tmp_path, **{key: words}))
    assert again.pretrained_cfg["label_descriptions"] == {name: words.get(name, name) for name in NAMES}


@pytest.mark.parametrize(
    "changes, complaint",
    [
        ({"architecture": ["x"]}, "model is"),
        ({"architecture": "resnet50"}, "unknown model 'resnet50'"),
        ({"label_names": ["a"]}, "1 class names are given for a classifier of 5"),
        ({"label_names": [1, 2, 3, 4, 5]}, "class_names is"),
        ({"label_names": {"0": "a", "2": "b"}}, "without gaps"),
        ({"label_names": {"x": "a"}}, "without gaps"),
        ({"pretrained_cfg": 3}, "expected an object"),
        ({"model_args": [1]}, "expected an object"),
        ({"pretrained_cfg__mean": "dark"}, r"input\.mean is 'dark'"),
        ({"pretrained_cfg__std": [0.0, 0.1, 0.1]}, r"input\.std"),
        ({"pretrained_cfg__crop_pct": 0}, r"input\.crop_pct is 0"),
        ({"pretrained_cfg__crop_pct": 1e-300}, r"input\.crop_pct"),
        ({"pretrained_cfg__interpolation": "magic"}, r"input\.interpolation is 'magic'; expected one of nearest"),
        ({"pretrained_cfg__crop_mode": "any"}, r"input\.crop_mode"),
        ({"pretrained_cfg__input_size": [3, 10**9, 10**9]}, r"input\.size"),
        ({"pretrained_cfg__input_size": 224}, "input_size"),
        ({"pretrained_cfg__label_offset": 1}, "label_offset"),
        ({"model_args__layers": [10**6, 1, 1, 1]}, r"depths asks for \(1000000, 1, 1, 1\), its tensors have \(1, 2, 1"),
        ({"model_args__embed_dims": [10**6, 32, 32, 32]}, "dims asks for"),
        ({"model_args__hidden_sizes": [10**6, 8, 8, 8]}, "hidden_dims asks for"),
        ({"model_args__mlp_ratios": [999.0] * 4}, "mlp_ratio asks for"),
        ({"model_args__mlp_ratios": [1.0, 2.0, 3.0, 3.0]}, "differ between stages"),
        ({"model_args__union": "sum"}, "which is not ours"),
        ({"model_args__num_rnn_layers": 2}, "num_rnn_layers is 2"),
        ({"model_args__stem_norm": True}, "stem_norm is True"),
        ({"model_args__block_layer": "x"}, "no model option 'block_layer'"),
        ({"model_args__bidirectional": "yes"}, "expected true or false"),
        ({"model_args__global_pool": "catavgmax"}, "global_pool='catavgmax'"),
    ],
)
def test_a_configuration_that_cannot_be_is_named(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(CheckpointError, match=complaint):
        load_model(folder_of(tmp_path, **changes))


def test_older_files_of_timms_had_one_level(tmp_path: Path) -> None:
    model = timm.create_model("sequencer2d_s", num_classes=2, layers=(1, 1, 1, 1))
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    config = {
        "architecture": "sequencer2d_s",
        "num_classes": 2,
        "labels": ["a", "b"],
        "mean": [0.5] * 3,
        "crop_pct": 1.0,
    }
    config["model_args"] = {"layers": [1, 1, 1, 1]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = load_model(tmp_path)
    assert loaded.pretrained_cfg["label_names"] == ["a", "b"]
    assert (loaded.pretrained_cfg["mean"], loaded.pretrained_cfg["crop_pct"]) == ((0.5,) * 3, 1.0)


def test_what_people_edit_has_precedence_and_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    of_a_published_name().save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING, "sequencer2d"):
        load_model(tmp_path)
    assert not caplog.records
    config = json.loads((tmp_path / "config.json").read_text())
    config["pretrained_cfg"]["crop_pct"] = 1.0
    config["label_names"] = list("vwxyz")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with caplog.at_level(logging.WARNING, "sequencer2d"):
        loaded = load_model(tmp_path / "model.safetensors")
    assert (loaded.pretrained_cfg["crop_pct"], loaded.pretrained_cfg["label_names"]) == (1.0, list("vwxyz"))
    assert "crop_pct is taken from config.json beside it" in caplog.text
    (tmp_path / "config.json").write_text(json.dumps(config | {"architecture": "sequencer2d_m"}))
    with pytest.raises(CheckpointError, match=r"holds a sequencer2d_s, and config\.json beside it .* sequencer2d_m"):
        load_model(tmp_path)


def test_a_folder_that_an_earlier_version_saved_loads(tmp_path: Path) -> None:
    model = of_a_published_name(global_pool="max", cell="gru")
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["model_args"]
    (tmp_path / "config.json").write_text(json.dumps(config | {"architecture": "sequencer2d_s"}))
    x = torch.randn(1, 3, 28, 28)
    torch.testing.assert_close(load_model(tmp_path)(x), model(x), rtol=0, atol=0)


@pytest.mark.parametrize("content", ["{", "[]", "3", '{"architecture": NaN}', "[" * 10**5, "{}", '{"seed": 3}'])
def test_other_files_of_that_name(tmp_path: Path, content: str) -> None:
    torch.save(create_model("sequencer2d_n", num_classes=2).state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(content)
    if content in ("[]", "3", "{}", '{"seed": 3}'):
        assert load_model(tmp_path).variant == "sequencer2d_n"
    else:
        with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
            load_model(tmp_path)
