"""`sequencer2d export`, and `predict` and `bench` on what it wrote."""

import contextlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sequencer2d.cli.export import _default_output, _plain, _print_table
from sequencer2d.cli.main import main
from sequencer2d.export.exporting import Exported
from sequencer2d.export.verify import Difference
from tests.cli.conftest import Outcome, save_tiny


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a tiny model, for all tests that need an artifact of it."""
    return save_tiny(tmp_path_factory.mktemp("export") / "tiny.safetensors")


@pytest.fixture(scope="module")
def said(checkpoint: Path) -> dict[str, Any]:
    """What the command line says of the tiny model as ONNX, written beside its checkpoint."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(["export", str(checkpoint), "--format", "onnx", "--json"]) == 0
    told: dict[str, Any] = json.loads(out.getvalue())
    return told


@pytest.fixture
def exported(said: dict[str, Any]) -> Path:
    """The tiny model as ONNX."""
    return Path(said["path"])


def test_json_says_what_was_written_and_how_far_it_is_from_the_model(said: dict[str, Any]) -> None:
    assert said["recurrent_nodes"] == 4
    assert all(row["relative"] <= 1e-4 for row in said["differences"])


def test_an_artifact_predicts_what_its_checkpoint_does(
    command: Callable[..., Outcome], checkpoint: Path, images: Path, exported: Path
) -> None:
    assert exported == checkpoint.with_suffix(".onnx")
    of_model, of_artifact = (
        json.loads(command("predict", source, images, "--json").out) for source in (checkpoint, exported)
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
        (["--format", "onnx", "--opset", "9"], "choose one from 18 to 25"),
        (["--format", "onnx", "--opset", "26"], "no opset 26 for format 'onnx'"),
        (["--format", "openvino", "--opset", "18"], "has no opset to choose"),
        (["--format", "web"], "npm pack onnxruntime-web"),
        (["--format", "web", "--runtime", "none.tgz"], "no such file or folder: 'none.tgz'"),
        (["--format", "onnx", "--runtime", "none.tgz"], "holds no runtime"),
        (["--format", "onnx", "--opset", "new"], "invalid int value: 'new'"),
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
    (tmp_path / "model.onnx").touch()
    assert "runs on the CPU" in mistake("predict", tmp_path / "model.onnx", images, "--device", "cuda")
    assert "exported in" in mistake("predict", tmp_path / "model.onnx", images, "--precision", "bf16")
    assert "no artifact at" in mistake("predict", tmp_path / "none.onnx", images)


def test_without_an_output_the_file_is_beside_its_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(b"")
    for checkpoint, name in ((tmp_path, "sequencer2d_n"), (tmp_path / "m.safetensors", "m")):
        assert _default_output(str(checkpoint), "sequencer2d_n", "onnx") == tmp_path / f"{name}.onnx"
        assert _default_output(str(checkpoint), "sequencer2d_n", "web") == tmp_path / f"{name}.html"
        assert _default_output(str(checkpoint), "sequencer2d_n", "aoti") == tmp_path / f"{name}-aoti.pt2"
    assert _default_output("hf-hub:owner/name@v1", "sequencer2d_n", "openvino") == Path("name.xml")
    assert _default_output("hf-hub:owner/name", "sequencer2d_n", "torch") == Path("name.pt2")


def test_the_table_says_when_no_real_image_was_compared(capsys: pytest.CaptureFixture[str]) -> None:
    differences = [Difference("random", (16, 24), 3, 1.5e-6)]
    exported = Exported(Path("m.onnx"), "onnx", "fp32", tuple(differences), 1e-4, 4, 57, 2.4, 1.25)
    _print_table(exported)
    out = capsys.readouterr().out
    assert "random  3      16×24         1.5e-06" in out
    assert "m.onnx: 1.2 MiB, 4 recurrent nodes of 57, 2 s" in out
    assert "compared on random images only" in out
    _print_table(replace(exported, differences=(Difference("images", (16, 24), 2, 0.0), *differences)))
    assert "random images only" not in capsys.readouterr().out
    assert _plain(exported)["path"] == "m.onnx"
