import socket
import urllib.request

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors

from sequencer2d import create_model
from sequencer2d.errors import CheckpointError
from sequencer2d.models import load_model, save_weights
from sequencer2d.models.locate import locate
from sequencer2d.models.sequencer2d import Sequencer2D
from tests.models.small import small_model


def hub_of(folder):
    def download(repository, name, **options):
        if not (folder / name).exists():
            raise errors.EntryNotFoundError(f"{repository} has no {name}")
        return str(folder / name)

    return download


def failing(error):
    def download(repository, name, **options):
        raise error

    return download


@pytest.mark.parametrize(
    "source, complaint",
    [
        ("nowhere.pth", "no checkpoint at 'nowhere.pth'"),
        ("timm/sequencer2d_s.in1k", "write hf-hub:timm/sequencer2d_s.in1k"),
        ("", "no run folder"),
    ],
)
def test_nothing_there(source, complaint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=complaint):
        locate(source or tmp_path)


def test_a_run_folder_gives_its_best_weights_else_its_last(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.pt").touch()
    assert locate(tmp_path)[0].name == "last.pt"
    (tmp_path / "best.safetensors").touch()
    assert locate(tmp_path)[0].name == "best.safetensors"


def test_a_repository_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub_of(tmp_path))
    with pytest.raises(CheckpointError, match="holds no weights"):
        locate("hf-hub:someone/model")
    save_weights(small_model(), tmp_path / "model.safetensors")
    assert load_model("hf-hub:someone/model").num_classes == 5
    (tmp_path / "config.json").write_text('{"architecture": "sequencer2d_s", "pretrained_cfg": {"crop_pct": 0.5}}')
    path, beside = locate("hf-hub:someone/model")
    assert path == tmp_path / "model.safetensors"
    assert (beside["model"], beside["input"]["crop_pct"]) == ("sequencer2d_s", 0.5)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        locate("hf-hub:someone/model")


def test_pretrained_takes_the_published_weights(tmp_path, monkeypatch):
    asked = []
    download = hub_of(tmp_path)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda r, n: asked.append(r) or download(r, n))
    sizes = {"depths": (1, 1, 1, 1)}
    published = create_model("sequencer2d_m", **sizes)
    save_weights(published, tmp_path / "model.safetensors")
    model = create_model("sequencer2d_m", pretrained=True, num_classes=3, **sizes)
    assert set(asked) == {"timm/sequencer2d_m.in1k"}
    assert model.stem.proj.weight.equal(published.stem.proj.weight)
    assert model.head.fc.out_features == 3


@pytest.mark.parametrize(
    "error", [errors.LocalEntryNotFoundError("offline"), ConnectionError("no route"), OSError("no space")]
)
def test_without_network_it_says_what_to_do(error, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", failing(error))
    with pytest.raises(CheckpointError, match=r"sequencer2d_s\.in1k.*Without network: run `hf download"):
        create_model("sequencer2d_s", pretrained=True)


def test_a_host_that_cannot_be_found_is_not_asked(monkeypatch):
    asked = []
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    monkeypatch.setattr(socket, "getaddrinfo", failing(socket.gaierror("name not known")))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda r, n, **o: asked.append(o) or failing(OSError())())
    with pytest.raises(CheckpointError, match="cannot fetch"):
        locate("hf-hub:someone/model")
    assert asked == [{"local_files_only": True}], "only the cache is read, without retries"


def test_a_repository_that_is_not_there(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", failing(errors.HFValidationError("bad")))
    with pytest.raises(CheckpointError, match="no repository 'a b'"):
        locate("hf-hub:a b")


def test_no_published_weights_for_a_variant():
    with pytest.raises(CheckpointError, match=r"no published weights for 'sequencer2d_n'.*sequencer2d_s"):
        create_model("sequencer2d_n", pretrained=True)


def test_a_revision_and_options_reach_the_hub(tmp_path, monkeypatch):
    asked = []
    download = hub_of(tmp_path)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda r, n, **o: asked.append((r, o)) or download(r, n))
    save_weights(small_model(), tmp_path / "model.safetensors")
    load_model("hf-hub:someone/model@v1")
    Sequencer2D.from_pretrained("someone/model", revision="v2", token="t", cache_dir=tmp_path)
    assert asked[0] == ("someone/model", {"revision": "v1"})
    assert asked[-1] == ("someone/model", {"revision": "v2", "token": "t", "cache_dir": tmp_path})


def test_weights_of_the_older_name_are_taken_here_as_on_the_hub(tmp_path):
    torch.save(create_model("sequencer2d_n", num_classes=3).state_dict(), tmp_path / "pytorch_model.bin")
    assert load_model(tmp_path).num_classes == 3
    assert Sequencer2D.from_pretrained(tmp_path).num_classes == 3
