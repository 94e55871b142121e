"""A command line run in this process, images, and checkpoints of small models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import rich.progress
from PIL import Image

from sequencer2d.cli.main import main
from sequencer2d.models import create_model, save_weights

ROOT = Path(__file__).parents[2]
DIGITS = tuple(str(digit) for digit in range(10))
TINY = {
    "depths": (1, 1),
    "dims": (16, 16),
    "hidden_dims": (4, 4),
    "patch_sizes": (2, 2),
    "img_size": (8, 8),
}
"""A model of two blocks for images of 8 pixels."""


class CompleteProgress(rich.progress.Progress):
    """A progress bar whose tasks must be complete when its block ends without an exception."""

    def __init__(self, *columns: Any, **options: Any) -> None:
        # Otherwise a thread counts, which stops counting after 0.1 s where the bar is not shown.
        super().__init__(*columns, **options, auto_refresh=False)

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        super().__exit__(kind, *rest)
        if kind is None:
            parts = {task.description: (task.completed, task.total) for task in self.tasks if task.total is not None}
            assert all(done == total for done, total in parts.values()), parts


@pytest.fixture(autouse=True)
def every_bar_reaches_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Totals that verbs announce are what they then count."""
    monkeypatch.setattr(rich.progress, "Progress", CompleteProgress)


class Outcome(NamedTuple):
    """What a command line wrote to standard output and standard error."""

    out: str
    err: str


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run one command line, which must exit with `code`: command("models", "--json")."""

    def run(*argv: object, code: int = 0) -> Outcome:
        capsys.readouterr()
        found = main([str(argument) for argument in argv])
        captured = capsys.readouterr()
        assert found == code, captured.err
        return Outcome(captured.out, captured.err)

    return run


@pytest.fixture
def mistake(command: Callable[..., Outcome]) -> Callable[..., str]:
    """Run a command line that must fail as a user's mistake (exit code 2, one line on standard error); that line."""

    def run(*argv: object) -> str:
        outcome = command(*argv, code=2)
        assert outcome.err.startswith("sequencer2d: "), outcome.err
        assert outcome.err.count("\n") == 1, f"more than one line: {outcome.err}"
        assert "Traceback" not in outcome.err
        return outcome.err

    return run


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with three small images, one of them in a folder below."""
    folder = tmp_path / "images"
    (folder / "below").mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in ("a.png", "b.jpg", "below/c.png"):
        Image.fromarray(random.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(folder / name)
    return folder


def save_tiny(path: Path, class_names: tuple[str, ...] = DIGITS) -> Path:
    """Write a checkpoint of an untrained model of two blocks, whose classifier is not zero."""
    model = create_model("sequencer2d_n", num_classes=len(class_names), **TINY)
    model.head.fc.weight.data.normal_()
    save_weights(model, path, {"class_names": list(class_names)})
    return path


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A checkpoint of a tiny model for the digits."""
    return save_tiny(tmp_path / "tiny.safetensors")
