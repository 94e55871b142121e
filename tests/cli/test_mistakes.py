"""Mistakes that a new user makes: each is answered with one line that says what to do, and exit code 2."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sequencer2d.cli.main import parse
from tests.cli.conftest import save_tiny

Mistake = Callable[..., str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the current one, so that nothing is written elsewhere."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.mark.parametrize(
    "arguments, says",
    [
        ([], "VERB"),
        (["trian"], "did you mean train?"),
        (["train"], "name a recipe (digits,"),
        (["train", "digit"], "did you mean digits"),
        (["train", "digits", "--epochs", "3"], "unknown arguments: --epochs"),
        (["train", "digits", "epochs"], "expected field=value"),
        (["train", "digits", "optimizer.rl=1"], "did you mean optimizer.lr"),
        (["train", "digits", "optimizer.lr=fast"], "optimizer.lr: expected a number, got 'fast'"),
        (
            ["train", "digits", "run.epochs=0"],
            "run.epochs must be an integer, at least 1 and at most 1,000,000 epochs, got 0",
        ),
        (["train", "digits", "precision=fp8"], "expected one of fp32, bf16, fp16"),
        (["train", "digits", "optimizer=adam"], "is a section, not a field"),
        (["train", "digits", "model.name=sequencer_s"], "did you mean"),
        (["train", "digits", "model.overrides.depth=3"], "depths"),
        (["train", "cifar10"], "set data.root"),
        (["train", "cifar10", "data.root=/nowhere"], "/nowhere is missing"),
        (["train", "--resume", "nowhere"], "config.json"),
        (["models", "resnet*"], "no model matches 'resnet*'; there are: sequencer2d_s"),
        (["models", "--image-size", "big"], "integer of at least 1"),
        (["predict", "nowhere.pth", "."], "no checkpoint at 'nowhere.pth'"),
        (["predict", "timm/sequencer2d_s.in1k", "."], "hf-hub:timm/sequencer2d_s.in1k"),
        (["eval", "digits"], "no checkpoint at 'digits'"),
    ],
)
def test_mistakes_without_a_file(mistake: Mistake, here: Path, arguments: list[str], says: str) -> None:
    if arguments[:1] == ["predict"]:
        (here / "a.png").touch()
    assert says in mistake(*arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_no_gpu(mistake: Mistake, here: Path, tiny: Path, images: Path) -> None:
    assert "run.device=cpu" in mistake("train", "digits", "run.device=cuda")
    assert "--device cpu" in mistake("predict", tiny, images, "--device", "cuda")
    assert "PyTorch sees none" in mistake("eval", tiny, "--data", "digits", "--device", "cuda:0")


def test_a_device_that_does_not_exist(mistake: Mistake, tiny: Path, images: Path) -> None:
    assert "expected auto, cpu, cuda" in mistake("predict", tiny, images, "--device", "gpu")


def test_a_truncated_checkpoint(mistake: Mistake, tmp_path: Path, tiny: Path, images: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(tiny.read_bytes()[:500])
    assert "damaged, truncated" in mistake("predict", cut, images)


def test_a_file_that_is_no_checkpoint(mistake: Mistake, tmp_path: Path, images: Path) -> None:
    (tmp_path / "notes.txt").write_text("no checkpoint")
    assert "is no checkpoint" in mistake("predict", tmp_path / "notes.txt", images)


def test_a_folder_that_is_no_run(mistake: Mistake, images: Path) -> None:
    assert "no run folder" in mistake("predict", images, images)


def test_images_that_are_not_there(mistake: Mistake, tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no such file" in mistake("predict", tiny, tmp_path / "nowhere.png")
    assert "no images in" in mistake("predict", tiny, tmp_path / "empty")


def test_only_unreadable_images(mistake: Mistake, tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    assert "no image could be read" in mistake("predict", tiny, tmp_path / "a.png")


def test_an_image_size_below_the_stride(mistake: Mistake, tiny: Path, images: Path) -> None:
    assert "too small" in mistake("predict", tiny, images, "--image-size", 1)


def test_data_with_other_classes(mistake: Mistake, tmp_path: Path, images: Path) -> None:
    model = save_tiny(tmp_path / "pets.safetensors", class_names=("cat", "dog"))
    assert "the model does not know 0, 1" in mistake("eval", model, "--data", "digits")


def test_eval_without_data(mistake: Mistake, tiny: Path) -> None:
    assert "give --data" in mistake("eval", tiny)


def test_eval_of_a_missing_folder_or_split(mistake: Mistake, tmp_path: Path, tiny: Path) -> None:
    assert "unknown data source" in mistake("eval", tiny, "--data", tmp_path / "nowhere")
    assert "'future'" in mistake("eval", tiny, "--data", "digits", "--split", "future")


def test_eval_takes_fields_of_the_data_only(mistake: Mistake, tiny: Path) -> None:
    assert "eval takes data.field=value" in mistake("eval", tiny, "--data", "digits", "optimizer.lr=1")


def test_a_class_without_images(mistake: Mistake, here: Path) -> None:
    for name in ("cat", "dog"):
        (here / "data" / "train" / name).mkdir(parents=True)
    assert "classes without images" in mistake("train", "cifar10", "data.root=data")


def test_a_folder_that_cannot_be_written(mistake: Mistake, here: Path) -> None:
    (here / "file").touch()
    assert "cannot be written" in mistake("train", "digits", "run.output=file/run")


def test_a_folder_that_holds_a_run(mistake: Mistake, here: Path) -> None:
    (here / "run").mkdir()
    (here / "run" / "log.jsonl").touch()
    assert "already holds a run" in mistake("train", "digits", "run.output=run")


def test_a_plot_without_its_package_names_the_extra(mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    assert "pip install 'sequencer2d[train]'" in mistake("demo")


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "", "MODEL"],
        ["predict", "MODEL", ""],
        ["eval", "", "--data", "digits"],
        ["eval", "MODEL", "--data", ""],
        ["export", "MODEL", "--format", "torch", "--output", ""],
        ["train", "digits", "run.output="],
        ["train", "--resume", ""],
        ["demo", "--output", ""],
        ["bench", "--models", "sequencer2d_n", "--output", ""],
        ["analyze", "erf", "MODEL", "--data", "digits", "--output", ""],
        ["analyze", "report", "MODEL", "--data", "digits", "--output", ""],
    ],
)
def test_an_empty_path_is_not_the_current_folder(
    mistake: Mistake, here: Path, tiny: Path, arguments: list[str]
) -> None:
    said = mistake(*(str(tiny) if argument == "MODEL" else argument for argument in arguments))
    assert "empty" in said
    assert not list(here.iterdir())


def test_an_output_may_begin_with_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse(["demo", "--output=~/a"]).output == tmp_path / "a"
    assert parse(["analyze", "report", "m.pt", "--data", "digits", "--output=~/r.html"]).output == tmp_path / "r.html"


def test_a_verb_of_one_task_refuses_the_others(mistake: Mistake, here: Path, tiny: Path, images: Path) -> None:
    assert "digits is for task=classification, not for segment" in mistake("segment", "train", "digits")
    assert "is for task=classification" in mistake("segment", "predict", str(tiny), str(images))
