"""The grid of predicted images."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from sequencer2d.analysis.predictions import draw_predictions
from sequencer2d.evaluation.predict import Prediction
from sequencer2d.tasks.classification import Guess, Guesses


def test_a_title_may_have_two_lines_and_no_signs_that_act_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []
    write = Figure.suptitle
    monkeypatch.setattr(
        Figure, "suptitle", lambda self, text, **how: (titles.append(text), write(self, text, **how))[1]
    )
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    prediction = Prediction(str(tmp_path / "a.png"), Guesses((Guess(0, "cat", 0.5),)))
    draw_predictions([prediction], ["dog"], tmp_path / "drawn.png", title="runs/a on b\n1 of 1 is wrong\x1b")
    assert titles == ["runs/a on b\n1 of 1 is wrong\\x1b"]
    assert (tmp_path / "drawn.png").is_file()
