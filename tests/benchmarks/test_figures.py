"""The figures of the documentation show what the code draws of the stored results."""

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("matplotlib")

from benchmarks import figures
from benchmarks.analysis import parts
from benchmarks.analysis.stored import FIGURES, Stored, named
from benchmarks.analysis.writing import Run
from benchmarks.contents import fingerprint
from benchmarks.efficiency import plots
from sequencer2d.data.opening import open_source
from sequencer2d.evaluation.subject import load_subject
from tests.cli.conftest import save_tiny


def test_no_figure_is_stale() -> None:
    """`python -m benchmarks.figures` draws those that are, if the change that did it was made on purpose."""
    assert figures.stale() == []


def test_every_figure_is_on_record_and_can_be_drawn_again() -> None:
    recorded = json.loads(figures.RECORD.read_text(encoding="utf-8"))
    drawn = {
        path.name
        for kind in ("analysis-*.png", "efficiency-*.svg", "dense-*.svg", "evidence-*.svg")
        for path in figures.FIGURES.glob(kind)
    }
    assert set(recorded) == drawn
    assert all(recorded.values())


def test_a_change_of_what_is_drawn_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plots.QUANTITIES, "images_per_s", "images per second")
    assert figures.stale() == sorted(f"efficiency-{axis}-{mode}.svg" for axis, mode in plots.PLOTS)


def test_a_change_of_the_numbers_is_noticed(tmp_path: Path) -> None:
    source = figures.RESULTS / "analysis-attacks.json"
    result = json.loads(source.read_text(encoding="utf-8"))
    drawn = fingerprint(FIGURES["attacks"](Stored(figures.RESULTS)))
    (tmp_path / source.name).write_text(json.dumps(result))
    assert fingerprint(FIGURES["attacks"](Stored(tmp_path))) == drawn
    result["rows"][0]["top1_percent"] += 1
    (tmp_path / source.name).write_text(json.dumps(result))
    assert fingerprint(FIGURES["attacks"](Stored(tmp_path))) != drawn


def test_runs_are_named_by_their_models() -> None:
    assert named("tiny_imagenet") == "sequencer2d_n (tiny_imagenet)"
    assert named("my run") == "my run"


def test_what_a_run_stores_is_what_is_drawn_again(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("tabby", "dog"):
        (tmp_path / "data" / "val" / name).mkdir(parents=True)
        for number in range(5):
            picture = Image.fromarray(random.integers(0, 255, (16, 16, 3), dtype=np.uint8))
            picture.save(tmp_path / "data" / "val" / name / f"{number}.png")
    subject = load_subject(save_tiny(tmp_path / "tiny.safetensors", ("tabby", "dog")), name="tiny").resized(16)
    arguments = Namespace(figures=tmp_path, results=tmp_path, command="c", images=10, limit=10, workers=0)
    run = Run(arguments, [subject], open_source(str(tmp_path / "data"), "val"))
    made = (parts.erf, parts.hidden, parts.memory, parts.cka, parts.cam, parts.resolution, parts.attacks)
    for part in made:
        part(run)
    drawn = [name for name in FIGURES if name not in ("corruptions", "calibration")]
    stored = Stored(tmp_path)
    for name in drawn:
        assert (tmp_path / f"analysis-{name}.png").is_file(), name
        assert fingerprint(FIGURES[name](stored)) == fingerprint(FIGURES[name](stored)), name
    titles = [axis.get_title() for axis in FIGURES["grad-cam"](stored).axes]
    assert [title.split("truth: ")[1] for title in titles if "truth: " in title] == ["tabby"]
    assert sum(title.startswith(("✗", "✓")) for title in titles) == 1
