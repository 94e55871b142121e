"""`sequencer2d export`, and `predict` and `bench` on what it wrote."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Outcome


@pytest.fixture
def exported(command: Callable[..., Outcome], tiny: Path) -> Path:
    """The tiny model as ONNX, beside its checkpoint."""
    outcome = command("export", tiny, "--format", "onnx", "--json")
    said = json.loads(outcome.out)
    assert said["recurrent_nodes"] == 4
    assert all(row["relative"] <= 1e-4 for row in said["differences"])
    return Path(said["path"])


def test_an_artifact_predicts_what_its_checkpoint_does(
    command: Callable[..., Outcome], tiny: Path, images: Path, exported: Path
) -> None:
    assert exported == tiny.with_name("sequencer2d_n.onnx")
    of_model, of_artifact = (
        json.loads(command("predict", source, images, "--json").out) for source in (tiny, exported)
    )
    for a, b in zip(of_model, of_artifact, strict=True):
        assert [guess["name"] for guess in a["guesses"]] == [guess["name"] for guess in b["guesses"]]
        expected = [guess["probability"] for guess in a["guesses"]]
        assert [guess["probability"] for guess in b["guesses"]] == pytest.approx(expected, abs=1e-4)


def test_bench_times_artifacts(command: Callable[..., Outcome], exported: Path) -> None:
    outcome = command("bench", "--artifacts", exported, "--batch", "1,2", "--seconds", 0.01, "--json")
    assert [row["batch"] for row in json.loads(outcome.out)] == [1, 2]
    assert "images/s" in command("bench", "--artifacts", exported, "--seconds", 0.01).out


def test_an_image_size_below_the_stride_is_a_mistake(mistake: Callable[..., str], images: Path, exported: Path) -> None:
    assert "8×8 or more" in mistake("predict", exported, images, "--image-size", 4)


def test_a_table_says_where_the_file_is(command: Callable[..., Outcome], tiny: Path, images: Path) -> None:
    outcome = command(
        "export", tiny, "--format", "torch", "--output", tiny.parent / "new" / "model.pt2", "--images", images
    )
    assert "largest relative difference" in outcome.out
    assert "recurrent nodes" in outcome.out
    assert "images" in outcome.out
    assert (tiny.parent / "new" / "model.pt2").is_file()


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--format", "tflite"], "no format 'tflite'"),
        (["--format", "onnx", "--precision", "fp8"], "no precision 'fp8'"),
        (["--format", "aoti", "--precision", "int8"], "not in int8"),
        (["--format", "onnx", "--output", "model.bin"], "has the suffix .onnx"),
        (["--format", "onnx", "--opset", "9"], "unknown arguments"),
        (["--format", "torch", "--output", "/dev/null/model.pt2"], "cannot write to"),
        (["--format", "torch", "--images", "no-such-folder"], "no such file or folder"),
    ],
)
def test_mistakes_are_said_in_a_line(
    mistake: Callable[..., str], tiny: Path, arguments: list[str], expected: str
) -> None:
    assert expected in mistake("export", tiny, *arguments)


def test_artifacts_run_on_the_cpu_in_their_own_precision(
    mistake: Callable[..., str], images: Path, tmp_path: Path
) -> None:
    assert "runs on the CPU" in mistake("predict", tmp_path / "model.onnx", images, "--device", "cuda")
    assert "exported in" in mistake("predict", tmp_path / "model.onnx", images, "--precision", "bf16")
    assert "no artifact at" in mistake("predict", tmp_path / "model.onnx", images)
