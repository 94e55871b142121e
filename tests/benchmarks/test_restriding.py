"""The cost of another stride: a real run's classifier, measured and fine-tuned, a row for each size and stride."""

import json
from pathlib import Path

import pytest

from benchmarks.restriding import COLUMNS, larger, main
from benchmarks.tables import table
from sequencer2d.models import load_model
from sequencer2d.training.loop import train
from tests.training.conftest import configuration

pytest.importorskip("sklearn")


def test_the_size_at_which_a_stem_sees_as_many_tokens() -> None:
    assert [larger(224, stride, 7) for stride in (7, 8, 4)] == [224, 256, 128]


def test_a_runs_classifier_is_measured_and_tuned_at_both_sizes_and_a_second_call_adds_nothing(tmp_path: Path) -> None:
    train(configuration(tmp_path / "run", {"run.epochs": 1}))
    command = [str(tmp_path / "run"), "--strides", "4", "--epochs", "1", "--output", str(tmp_path / "out")]
    command += ["--result", str(tmp_path / "result.json")]
    assert main(command) == 0
    rows = json.loads((tmp_path / "result.json").read_text())["rows"]
    assert [(row["stride"], row["image_size"], row["tokens"], row["epochs"]) for row in rows] == [
        (2, 8, 4, 0), (2, 8, 4, 1), (2, 16, 8, 0), (2, 16, 8, 1),
        (4, 8, 2, 0), (4, 8, 2, 1), (4, 16, 4, 0), (4, 16, 4, 1),
    ]  # fmt: skip
    assert all(0 <= row["top1_percent"] <= 100 for row in rows)
    assert rows[0]["images"] == 355
    assert load_model(tmp_path / "out/stride4-16/epochs1").config.patch_sizes == (4, 1)
    assert table(COLUMNS, rows).count("\n") == 10
    assert main(command) == 0
    assert json.loads((tmp_path / "result.json").read_text())["rows"] == rows
