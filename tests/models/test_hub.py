"""save_pretrained, from_pretrained, push_to_hub: folders that load offline, and cards that state what a run reached."""

import json
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch

from sequencer2d.errors import CheckpointError
from sequencer2d.files import write_json
from sequencer2d.models import Sequencer2D, create_model, load_model

SUMMARY = {
    "model": "sequencer2d_n",
    "parameters": 1_234_567,
    "final": {"top1": 91.25, "top5": 99.5},
    "best": {"top1": 91.5, "epoch": 9},
    "epochs": 10,
    "duration_s": 120.0,
    "device": "cpu (x86_64, 2 threads)",
    "versions": {"sequencer2d": "0.1.0", "torch": "2.14.1"},
    "config": {"data": {"source": "folder", "root": "/somewhere/cifar10"}},
}


def tiny(**options: object) -> Sequencer2D:
    sizes = {"depths": (1, 1), "dims": (16, 16), "hidden_dims": (4, 4), "patch_sizes": (2, 2), "img_size": (8, 8)}
    model = create_model("sequencer2d_n", num_classes=3, **(sizes | options))
    torch.nn.init.normal_(model.head.fc.weight)
    model.pretrained_cfg = model.pretrained_cfg | {"label_names": ["cat", "dog", 'a: "b"'], "crop_pct": 0.9}
    return model.eval()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_json(tmp_path / "run" / "summary.json", SUMMARY)
    return tmp_path / "run"


def test_a_saved_folder_is_the_same_model_offline(tmp_path: Path) -> None:
    model = tiny()
    model.save_pretrained(tmp_path / "saved")
    images = torch.randn(2, 3, 8, 12)
    for loaded in (Sequencer2D.from_pretrained(tmp_path / "saved"), load_model(tmp_path / "saved")):
        assert not loaded.training
        torch.testing.assert_close(loaded(images), model(images), rtol=0, atol=0)
        assert loaded.pretrained_cfg["label_names"] == model.pretrained_cfg["label_names"]
        assert loaded.pretrained_cfg["crop_pct"] == 0.9


def test_overrides_change_the_classifier(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path)
    assert Sequencer2D.from_pretrained(tmp_path, num_classes=7).get_classifier().out_features == 7


def test_the_configuration_is_timms(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architecture"] == "s2d_sequencer2d_n"
    assert config["num_classes"] == 3
    assert config["pretrained_cfg"]["input_size"] == [3, 8, 8]
    assert config["label_names"] == ["cat", "dog", 'a: "b"']


def test_the_card_states_the_runs_results(tmp_path: Path, run: Path) -> None:
    yaml = pytest.importorskip("yaml")
    tiny().save_pretrained(tmp_path / "saved", run=run, repo_id="somebody/model")
    card = (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")
    _, header, text = card.split("---\n", 2)
    said = yaml.safe_load(header)
    assert said["pipeline_tag"] == "image-classification"
    assert said["datasets"] == ["cifar10"]
    (entry,) = said["model-index"][0]["results"]
    assert entry["metrics"] == [{"type": "accuracy", "value": 0.9125}]
    assert "91.25 %" in text
    assert f"for 3 classes, {SUMMARY['parameters'] / 1e6:.1f} M parameters: a Sequencer" in text
    assert "somebody/model" in text
    assert "/somewhere" not in card, "a card is public: it does not tell the paths of a machine"


def test_a_card_without_a_run_states_no_results(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "model-index" not in card
    assert "## Training" not in card
    assert "for 3 classes: a Sequencer" in card
    assert "cat, dog" in card


def test_push_uploads_what_save_writes(tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded = {}

    def upload(*, repo_id: str, folder_path: str, **options: object) -> SimpleNamespace:
        uploaded[repo_id] = sorted(path.name for path in Path(folder_path).iterdir())
        return SimpleNamespace(commit_url="https://example.org/commit")

    monkeypatch.setattr(huggingface_hub, "create_repo", lambda *args, **options: None)
    monkeypatch.setattr(huggingface_hub, "upload_folder", upload)
    assert tiny().push_to_hub("somebody/model", run=run) == "https://example.org/commit"
    assert uploaded == {"somebody/model": ["README.md", "config.json", "model.safetensors"]}


def test_what_cannot_be_had_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=r"holds none of .*model\.safetensors"):
        Sequencer2D.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="cannot fetch 'nobody/nothing'"):
        Sequencer2D.from_pretrained("nobody/nothing")
    with pytest.raises(CheckpointError, match=r"holds no summary\.json"):
        tiny().save_pretrained(tmp_path / "saved", run=tmp_path)

    def refuse(*args: object, **options: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "create_repo", refuse)
    with pytest.raises(CheckpointError, match=r"cannot upload to 'somebody/model'.*no network"):
        tiny().push_to_hub("somebody/model")
