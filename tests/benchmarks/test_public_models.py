"""`benchmarks.public_models` compares a model with its fused self, and loss curves with the distance of two seeds."""

import importlib.util
import json

import pytest
import torch
from torch import nn

from benchmarks import public_models
from sequencer2d import nn as ours

CPU = ["--device", "cpu", "--implementation", "reference"]
PACKAGES = {
    "asteroid.DPRNNTasNet": "asteroid",
    "doctr.crnn_vgg16_bn": "doctr",
    "easyocr.vgg_model": "easyocr",
    "pyannote.PyanNet": "pyannote.audio",
}


def is_installed(package):
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


class Tagger(nn.Module):
    """A model of someone else's."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(10, 3)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


def run(tmp_path, *options):
    public_models.main([*CPU, *options, "--output", str(tmp_path / "out.json")])
    return json.loads((tmp_path / "out.json").read_text())


@pytest.fixture
def tagger(monkeypatch):
    monkeypatch.setitem(public_models.MODELS, "easyocr.vgg_model", public_models.Public("mine", Tagger, (4, 7, 6)))
    return ["--models", "easyocr.vgg_model", "--dtypes", "float32"]


def test_a_row_has_errors_times_and_ratios(tmp_path, tagger):
    (row,) = run(tmp_path, *tagger, "--repeats", "1")["rows"]
    assert row["replaced"] == ["LSTM(6, 5, num_layers=2, batch_first=True, bidirectional=True)"]
    assert row["left"] == []
    assert 0 < row["after_error"] < 1e-6
    for kind in ("inference", "training"):
        assert row[f"{kind}_ratio"] == pytest.approx(row[f"before_{kind}_ms"] / row[f"after_{kind}_ms"])


def test_a_wrong_replacement_shows(tmp_path, tagger, monkeypatch):
    right = ours.LSTM.forward
    monkeypatch.setattr(ours.LSTM, "forward", lambda self, x: (right(self, x)[0] * 1.1, None))
    (row,) = run(tmp_path, *tagger, "--repeats", "0")["rows"]
    assert row["before_error"] < 1e-6
    assert row["after_error"] > 1e-3


def test_what_fails_is_named(tmp_path, tagger):
    (row,) = run(tmp_path, *tagger, "--implementation", "cudnn")["rows"]
    assert "it needs cuda" in row["failure"]


@pytest.mark.parametrize("name", public_models.MODELS)
def test_public_models_give_the_same_output(tmp_path, name):
    if not is_installed(PACKAGES[name]):
        pytest.skip(f"{PACKAGES[name]} is not installed")
    (row,) = run(tmp_path, "--models", name, "--dtypes", "float32", "--shrink", "32", "--repeats", "0")["rows"]
    assert row["replaced"]
    assert row["after_error"] <= 2 * row["before_error"] + 1e-7


def test_curves_are_compared_with_the_distance_of_two_seeds(tmp_path, monkeypatch):
    losses = {(False, 0): [3.0, 1.0], (False, 1): [5.0, 2.0], (True, 0): [3.0, 1.5]}
    monkeypatch.setattr(public_models, "train", lambda fused, seed, steps, args: losses[fused, seed][:steps])
    result = run(tmp_path, "--curve", "2")
    assert result["spread"] == 1.5
    assert result["difference"] == 0.25
    assert [row["fused, seed 0"] for row in result["rows"]] == [3.0, 1.5]


def test_tones_add_up_differ_and_come_again():
    mixture, sources = public_models.tones(3, 800, 5, "cpu")
    torch.testing.assert_close(mixture, sources.sum(1))
    assert torch.equal(public_models.tones(3, 800, 5, "cpu")[0], mixture)
    assert not torch.equal(public_models.tones(3, 800, 6, "cpu")[0], mixture)
    spectra = torch.fft.rfft(sources).abs()
    pitches = spectra.argmax(-1) * 8000 / 800
    assert bool((pitches[:, 1] > 1.4 * pitches[:, 0]).all())
