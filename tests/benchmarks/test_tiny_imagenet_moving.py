"""Runs move to another machine in a few small files, and go on there without a seam."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.tiny_imagenet import moving, resolution
from benchmarks.tiny_imagenet.rows import make_row
from benchmarks.tiny_imagenet.runs import configuration
from sequencer2d.errors import Interrupted
from sequencer2d.models import load_model
from sequencer2d.training.loop import train
from tests.benchmarks.test_tiny_imagenet import SMALL
from tests.data.images import make_folder


def train_to(tmp_path: Path, runs: str, *fields: str, seed: int = 0) -> Path:
    """Train the run of `add` in the folder `runs`, as far as the fields say."""
    values = ["run.compile=false", *SMALL, "run.epochs=3", *fields]
    config = configuration("ablations", "add", seed, data=tmp_path / "data", runs=tmp_path / runs, fields=values)
    if any(field.startswith("run.max_steps") for field in fields):
        with pytest.raises(Interrupted):
            train(config)
    else:
        train(config)
    return Path(config.run.output)


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A run of three epochs of two steps each, stopped after its third step."""
    make_folder(tmp_path / "data", {"train": {"a": 4, "b": 4}, "val": {"a": 2, "b": 2}})
    return train_to(tmp_path, "here", "run.max_steps=3")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.pt", weights_only=True)["model"]


def test_a_run_that_moved_ends_with_the_weights_and_the_curve_of_one_that_stayed(stopped, tmp_path, monkeypatch):
    monkeypatch.setattr(moving, "PART_BYTES", 2**20)
    lines = moving.pack(tmp_path / "here", tmp_path / "bundle")
    assert lines[0].startswith("ablations-add-seed0: packed, ")
    files = list((tmp_path / "bundle").iterdir())
    assert len(files) > 3
    assert all(file.stat().st_size <= 2**20 for file in files)
    assert moving.unpack(tmp_path / "bundle", tmp_path / "there") == ["ablations-add-seed0: unpacked"]
    there, here = train_to(tmp_path, "there"), train_to(tmp_path, "here")
    assert all(torch.equal(value, weights(here)[name]) for name, value in weights(there).items())
    rows = [make_row("ablations", "add", 0, run, "command") for run in (here, there)]
    assert rows[0]["curve"] == rows[1]["curve"]
    assert "rounded_at_steps" not in rows[1]


def test_rounded_moments_save_a_third_and_the_row_says_so(stopped, tmp_path):
    moving.pack(tmp_path / "here", tmp_path / "exact")
    moving.pack(tmp_path / "here", tmp_path / "rounded", moments=torch.bfloat16)
    sizes = [sum(file.stat().st_size for file in (tmp_path / name).iterdir()) for name in ("rounded", "exact")]
    assert sizes[0] < 0.75 * sizes[1]
    moving.unpack(tmp_path / "rounded", tmp_path / "there")
    run = tmp_path / "there" / stopped.name
    assert all(torch.equal(value, weights(stopped)[name]) for name, value in weights(run).items())
    assert make_row("ablations", "add", 0, train_to(tmp_path, "there"), "")["rounded_at_steps"] == [3]


def test_a_finished_run_travels_with_its_best_weights_in_half_precision(stopped, tmp_path):
    run = train_to(tmp_path, "here")
    moving.pack(tmp_path / "here", tmp_path / "bundle")
    moving.unpack(tmp_path / "bundle", tmp_path / "there")
    moved = tmp_path / "there" / run.name
    assert make_row("ablations", "add", 0, moved, "")["curve"] == make_row("ablations", "add", 0, run, "")["curve"]
    assert not (moved / "checkpoints").exists()
    expected = load_model(run).state_dict()
    for name, value in load_model(moved).state_dict().items():
        torch.testing.assert_close(value, expected[name].half().float(), rtol=0, atol=0)


def test_what_does_not_fit_is_named_and_what_is_there_is_left_alone(stopped, tmp_path, monkeypatch):
    size = (stopped / "checkpoints" / "last.pt").stat().st_size
    train_to(tmp_path, "here", "run.max_steps=2", seed=1)
    monkeypatch.setattr(moving, "BUNDLE_BYTES", moving._SPARE_BYTES + int(1.5 * size))
    packed, left = moving.pack(tmp_path / "here", tmp_path / "bundle")
    assert packed.startswith("ablations-add-seed0: packed")
    assert left.startswith("ablations-add-seed1: left out")
    assert moving.unpack(tmp_path / "bundle", tmp_path / "here") == [
        "ablations-add-seed0: is there already, left alone"
    ]


def test_a_damaged_bundle_is_refused_whole(stopped, tmp_path, capsys):
    here, bundle, there = str(tmp_path / "here"), str(tmp_path / "bundle"), tmp_path / "there"
    assert moving.main(["pack", bundle, "--runs", here]) == 0
    part = Path(bundle, "part-0")
    part.write_bytes(part.read_bytes()[:-1])
    assert moving.main(["unpack", bundle, "--runs", str(there)]) == 1
    assert "is missing or damaged; copy the bundle again" in capsys.readouterr().err
    assert not there.exists()
    assert json.loads(Path(bundle, moving.MANIFEST).read_text(encoding="utf-8"))["parts"]


def test_a_folder_of_runs_that_does_not_exist_is_named(tmp_path, capsys):
    assert moving.main(["pack", str(tmp_path / "bundle"), "--runs", str(tmp_path / "nowhere")]) == 1
    assert "nowhere; name the folder of the runs with --runs" in capsys.readouterr().err


def test_a_sweep_without_finished_runs_says_so(tmp_path, capsys):
    assert resolution.main(["--data", str(tmp_path), "--runs", str(tmp_path / "nowhere")]) == 1
    assert "nowhere holds no finished run" in capsys.readouterr().err
