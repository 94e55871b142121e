"""Configurations that a command line asks for, pairs of runs that fit, and totals that bars announce."""

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sequencer2d.cli import common as shared
from sequencer2d.cli import compare, demo, train
from sequencer2d.cli.analyze import common, corrupted, robust
from sequencer2d.errors import ConfigError, DataError
from sequencer2d.training.config import TrainConfig
from sequencer2d.training.runfiles import write_config
from tests.training.conftest import configuration


def test_a_recipe_or_a_run_and_the_fields_that_change_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path, configuration(tmp_path, {"run.epochs": 7, "run.max_steps": 3}))
    fresh = train.resolve("digits", ["run.epochs=3"], None)
    assert (fresh.run.epochs, fresh.run.resume, fresh.data.source) == (3, False, "digits")
    again = train.resolve("digits", [], train.OWN_FOLDER)
    assert (again.run.resume, again.run.output) == (True, fresh.run.output)
    other = train.resolve("digits", [], str(tmp_path / "x"))
    assert (other.run.resume, other.run.output) == (True, str(tmp_path / "x"))
    on = train.resolve(None, ["run.epochs=9"], str(tmp_path))
    assert (on.run.epochs, on.run.resume, on.run.output, on.run.max_steps) == (9, True, str(tmp_path), None)
    assert train.resolve("run.epochs=8", [], str(tmp_path)).run.epochs == 8, "argparse took a field for the recipe"
    swallowed = train.resolve("digits", [], "run.epochs=8")
    assert (swallowed.run.epochs, swallowed.run.resume) == (8, True)
    for told, said in (((None, [], None), "name a recipe"), ((None, [], " "), "an empty path")):
        with pytest.raises(ConfigError, match=said):
            train.resolve(*told)  # type: ignore[arg-type]


def test_runs_that_saw_the_same_images_can_be_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    class Labeled:
        def __init__(self, names: str = "ab", targets: tuple[int, ...] = (0, 1), classes: str = "xy") -> None:
            self.names, self.targets, self.class_names = tuple(names), np.array(targets), tuple(classes)

        def __len__(self) -> int:
            return len(self.names)

        def identities(self) -> tuple[tuple[str, ...], np.ndarray]:
            return self.names, self.targets

    def why(theirs: Any, task: str = "classification") -> str:
        config: Any = TrainConfig()
        run = compare.Run(Path("a"), config, {}, [])
        first: Any = SimpleNamespace(config=SimpleNamespace(task=task))

        def source(_: Any) -> Any:
            if isinstance(theirs, str):
                raise DataError(theirs)
            return theirs

        monkeypatch.setattr(compare, "_source", source)
        ours: Any = Labeled()
        return compare._why_not(first, run, ours)

    assert why(Labeled()) == ""
    assert why("gone") == "gone"
    assert why(Labeled(), "detection").startswith("task=detection")
    assert why(Labeled(classes="xz")) == "they were trained for different classes"
    for other in (Labeled("ac"), Labeled(targets=(1, 1)), Labeled("abc", (0, 1, 0))):
        assert why(other) == "they were validated on different images"


def test_the_demo_takes_digits_spread_over_the_test_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    from sequencer2d.analysis import predictions
    from sequencer2d.data import opening
    from sequencer2d.evaluation import predict, subject

    class Digits:
        class_names = ("zero", "one")

        def __len__(self) -> int:
            return 100

        def __getitem__(self, index: int) -> tuple[Any, int]:
            return Image.new("RGB", (8, 8)), index % 2

    given: list[Any] = []
    monkeypatch.setattr(opening, "open_source", lambda *_: Digits())
    loaded = SimpleNamespace(model=None, data=None, class_names=("zero", "one"), architecture="m")
    monkeypatch.setattr(subject, "load_checkpoint", lambda _: loaded)
    monkeypatch.setattr(predict, "predict", lambda _, paths, *rest, **named: given.append(named) or paths)
    monkeypatch.setattr(predictions, "draw_predictions", lambda *told, **named: given.append((*told, named)))
    paths, truths = demo.predict_digits(tmp_path)
    names = [path.name for path in paths]  # type: ignore[attr-defined]
    assert (len(names), names[:4], names[-1]) == (32, ["000.png", "003.png", "006.png", "009.png"], "096.png")
    assert truths[:2] == ["zero", "one"]
    assert given[0] == {"class_names": ("zero", "one"), "top_k": 3}
    assert given[1][2:] == (tmp_path / "predictions.png", {"title": f"{tmp_path}: m, digits of the test set"})


# analyze


class Ended(Exception):
    """Stands for everything after the bar."""


@pytest.fixture
def totals(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """Totals of the bars that verbs begin; the verb ends there."""
    found: list[int | None] = []

    def each_subject(_: Any, what: str, total: int | None) -> Any:
        found.append(total)
        raise Ended

    monkeypatch.setattr(common, "each_subject", each_subject)
    monkeypatch.setattr(common, "source_of", lambda _: range(7))
    return found


def test_corruptions_count_each_image_at_each_severity(totals: list[int | None]) -> None:
    for names, severities, limit, total in ((None, None, None, 15 * 5 * 7), (["fog"], [1, 3], 4, 8)):
        told = argparse.Namespace(corruptions=names, severities=severities, limit=limit)
        with pytest.raises(Ended):
            corrupted.run_corruptions(told)
        assert totals[-1] == total


def test_a_release_counts_its_cells_and_the_clean_images(
    totals: list[int | None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sequencer2d.data import opening
    from sequencer2d.evaluation import imagenet_c

    class Release:
        cells, complete, corruptions, severities = range(6), False, ("fog", "snow"), (1, 3, 5)
        any_cell = SimpleNamespace(class_names=("a", "b"))

        def __len__(self) -> int:
            return 9

    monkeypatch.setattr(imagenet_c, "open_release", lambda *_, **__: Release())
    monkeypatch.setattr(opening, "open_source", lambda *_: range(20))
    for clean, limit, total in ((None, None, 54), ("x", None, 74), ("x", 5, 35)):
        told = argparse.Namespace(corruptions=None, severities=None, limit=limit, clean=clean, data="d")
        with pytest.raises(Ended):
            corrupted.run_imagenet_c(told)
        assert totals[-1] == total
        said = f"{limit or 9} of 50,000 images in 2 of 1,000 classes, 2 of 15 corruptions at 3 of 5 severities"
        assert said in capsys.readouterr().err


def test_shape_and_texture_take_one_kind_of_images(totals: list[int | None]) -> None:
    for images, data, total in (("i", None, None), (None, "d", 7)):
        told = argparse.Namespace(images=images, data=data, categories=None, limit=1000)
        with pytest.raises(Ended):
            robust.run_shape_texture(told)
        assert totals[-1] == total
        for both in ("i", None):
            with pytest.raises(ConfigError, match="one of them"):
                robust.run_shape_texture(argparse.Namespace(images=both, data=both))


def test_images_and_folders_are_looked_for_where_some_were_named(tmp_path: Path) -> None:
    shared.check_images(argparse.Namespace(images=None))
    shared.check_data(argparse.Namespace(data=None))
    for images in (str(tmp_path / "none.png"), [str(tmp_path / "none.png")]):
        with pytest.raises(DataError, match="none"):
            shared.check_images(argparse.Namespace(images=images))
