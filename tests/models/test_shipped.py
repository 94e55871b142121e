"""Weights that come with the package are found without network, say what they are, and are never damaged unnoticed."""

from pathlib import Path

import pytest
import timm
import torch

from sequencer2d import create_model, load_model, register_timm
from sequencer2d.errors import CheckpointError
from sequencer2d.evaluation.predict import class_names_of
from sequencer2d.evaluation.subject import input_fields
from sequencer2d.models import Sequencer2D, describe_model, read_checkpoint
from sequencer2d.models.hub_config import from_hub_config, to_hub_config
from sequencer2d.models.shipped import FOLDER, SHIPPED, default_model, shipped_file
from sequencer2d.models.variants import VARIANTS
from tests.models.shipping import NAME, NAMES, SIZE, WORDS, ship, ship_nothing


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sequencer2D:
    """The model whose weights come with the package."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return ship(tmp_path, monkeypatch)


@pytest.mark.parametrize("name", SHIPPED)
def test_what_is_shipped_is_whole_small_and_of_its_variant(name: str) -> None:
    model = load_model(shipped_file(name))
    assert (model.variant, model.num_classes) == (name, SHIPPED[name].num_classes)
    assert all(tensor.dtype == torch.float16 for tensor in read_checkpoint(name).state_dict.values())
    assert shipped_file(name).stat().st_size < 10e6
    words = class_names_of(model)
    assert len(set(words)) == model.num_classes
    assert not set(words) & set(model.pretrained_cfg["label_names"])


def test_only_rows_of_the_table_stand_in_the_folder() -> None:
    files = {path.name for path in FOLDER.iterdir()} if FOLDER.exists() else set()
    assert files == {row.file for row in SHIPPED.values()}
    assert set(SHIPPED) <= set(VARIANTS)


def test_pretrained_is_the_shipped_model_with_its_classes_and_input(source: Sequencer2D) -> None:
    images = torch.randn(2, 3, SIZE, SIZE)
    for model in (create_model(NAME, pretrained=True).eval(), load_model(NAME)):
        assert torch.allclose(model(images), source(images), atol=2e-2)
        assert class_names_of(model) == tuple(WORDS)
        assert model.pretrained_cfg["label_names"] == NAMES
        fields = input_fields(model)
        assert (fields["image_size"], fields["crop_pct"], fields["mean"]) == ((SIZE, SIZE), 1.0, (0.5, 0.5, 0.5))
    assert create_model(NAME).num_classes == 1000


def test_other_classes_start_a_new_head_and_forget_the_old_names(source: Sequencer2D) -> None:
    model = create_model(NAME, pretrained=True, num_classes=3)
    assert model.pretrained_cfg["label_names"] is None
    assert model.pretrained_cfg["label_descriptions"] is None
    assert torch.allclose(model.stem.proj.weight, source.stem.proj.weight, atol=1e-3)
    assert "class_descriptions" not in describe_model(load_model(NAME), ["a", "b", "c", "d", "e"])
    assert describe_model(load_model(NAME), NAMES)["class_descriptions"] == WORDS


def test_a_folder_of_that_name_is_the_folder(source: Sequencer2D, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path(NAME).mkdir()
    with pytest.raises(CheckpointError, match="is no run folder"):
        load_model(NAME)


def test_the_hubs_description_keeps_the_words_as_timm_writes_them(source: Sequencer2D) -> None:
    config = to_hub_config(load_model(NAME))
    assert config["label_descriptions"] == dict(zip(NAMES, WORDS, strict=True))
    assert from_hub_config(config, "config.json")["class_descriptions"] == WORDS


def test_timm_finds_the_same_weights_by_their_tag(source: Sequencer2D) -> None:
    register_timm("shipped_")
    model = timm.create_model(f"shipped_{NAME}.toy", pretrained=True).eval()
    images = torch.randn(2, 3, SIZE, SIZE)
    assert torch.allclose(model(images), source(images), atol=2e-2)
    assert model.pretrained_cfg["label_descriptions"] == dict(zip(NAMES, WORDS, strict=True))
    assert timm.data.resolve_model_data_config(model)["input_size"] == (3, SIZE, SIZE)


def test_damaged_and_missing_weights_are_told(source: Sequencer2D, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged .* another SHA-256 .* install sequencer2d again"):
        create_model(NAME, pretrained=True)
    path.unlink()
    with pytest.raises(CheckpointError, match="missing from this installation"):
        load_model(NAME)


def test_where_nothing_is_shipped_the_errors_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    ship_nothing(monkeypatch)
    with pytest.raises(CheckpointError, match="no model comes with this version of sequencer2d: name one"):
        default_model()
    with pytest.raises(CheckpointError, match=rf"{NAME} is a model whose weights do not come with the package \(none"):
        load_model(NAME)
    with pytest.raises(CheckpointError, match="no published weights for 'sequencer2d_n_p4'"):
        create_model(NAME, pretrained=True)
