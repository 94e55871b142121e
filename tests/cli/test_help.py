"""Help: two examples for every verb, each a command line that parses; width; near misses; what is loaded, and when."""

import argparse
import re
import resource
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sequencer2d.cli.main import build_parser, parse
from sequencer2d.models import create_model, save_weights
from tests.cli.conftest import TINY
from tests.cli.test_options import EVERY

HEAVY = ("torch", "timm", "torchvision")


def examples(parser: argparse.ArgumentParser) -> list[str]:
    """The command lines of a help's examples, without what other programs do before and after them."""
    block = (parser.epilog or "").partition("examples:\n")[2].partition("\n\n")[0]
    commands = [line.strip().partition("   ")[0].partition("  ")[0] for line in block.split("\n") if line.strip()]
    return [command.partition(" > ")[0].partition("-m sequencer2d ")[2] or command for command in commands]


@pytest.mark.parametrize(("verb", "parser"), [(verb, parser) for verb, parser, _ in EVERY], ids=[v for v, *_ in EVERY])
def test_every_verb_shows_two_examples_that_parse(
    verb: str, parser: argparse.ArgumentParser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = examples(parser)
    assert len(found) >= 2
    for command in found:
        words = shlex.split(command.partition(" > ")[0])
        words = words[1:] if words[0] == "sequencer2d" else words
        assert " ".join(words).startswith(verb), command
        for folder in (word for word in words if word.startswith(("photos", "runs/"))):
            Path(folder).mkdir(parents=True, exist_ok=True)
        parse(words)


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize(("verb", "parser"), [(verb, parser) for verb, parser, _ in EVERY], ids=[v for v, *_ in EVERY])
def test_help_fits_the_terminal(
    verb: str, parser: argparse.ArgumentParser, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for line in parser.format_help().partition("\n\n")[2].split("\n"):  # argparse wraps the usage above, as it can
        is_command = line.startswith("  ") and "sequencer2d " in line
        assert len(line) <= columns or is_command or " " not in line.strip(), line


@pytest.mark.parametrize("path", [verb.split() for verb, _, _ in EVERY if verb], ids=" ".join)
def test_every_verb_is_named_for_one_that_comes_close(mistake: Callable[..., str], path: list[str]) -> None:
    *above, verb = path
    typed = verb + verb[-1]
    assert re.search(rf"'{typed}'; did you mean {verb}(\?| or )", mistake(*above, typed))


def test_a_remark_stands_below_a_command_where_both_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    predict = build_parser().below(["predict"])
    monkeypatch.setenv("COLUMNS", "72")
    assert "--pictures out/\n      the images with what was found" in predict.format_help()
    monkeypatch.setenv("COLUMNS", "140")
    assert "--pictures out/  the images with what was found" in predict.format_help()


@pytest.mark.parametrize(
    "argv, said",
    [
        (["trian", "digits"], "no verb 'trian'; did you mean train? See sequencer2d --help"),
        (["analyze", "erff"], "no kind 'erff'; did you mean erf? See sequencer2d analyze --help"),
        (["predict", "m", "x.png", "--devcie", "cpu"], "did you mean --device? See sequencer2d predict --help"),
        (["train", "--list", "--jsn=1"], "did you mean --json? See sequencer2d train --help"),
        (["eval", "m", "--precision", "bf61"], "no choice 'bf61'; did you mean bf16?"),
        (["export", "m", "--format", "onix"], "no format 'onix'; did you mean onnx?"),
    ],
)
def test_near_misses_are_named(mistake: Callable[..., str], tiny: Path, argv: list[str], said: str) -> None:
    assert said in mistake(*(str(tiny) if word == "m" else word for word in argv))


@pytest.mark.parametrize("verb, missing", [("finetune", "FOLDER"), ("eval", "CHECKPOINT"), ("data", "FOLDER")])
def test_what_may_be_left_out_is_not_missing(mistake: Callable[..., str], verb: str, missing: str) -> None:
    assert f"the following arguments are required: {missing}; see" in mistake(verb)


def loaded(*argv: str, code: int) -> set[str]:
    """Which heavy packages a command line loads in a fresh process, which must end with `code`."""
    script = (
        "import sys; from sequencer2d.cli.main import main; code = main(sys.argv[1:]);"
        f"print('loaded', *(name for name in {(*HEAVY, 'torch._dynamo')} if name in sys.modules)); sys.exit(code)"
    )
    ran = subprocess.run([sys.executable, "-c", script, *argv], capture_output=True, text=True)
    assert ran.returncode == code, ran.stderr
    return set(ran.stdout.rstrip().rpartition("loaded")[2].split())


def test_mistakes_are_answered_without_torch(tiny: Path, images: Path) -> None:
    picture = str(images / "a.png")
    for argv in (
        ["predict", str(tiny), "nope.jpg"],
        ["predict", "nope.safetensors", picture],
        ["predict", str(tiny), picture, "--device", "gpu"],
        ["eval", "nope", "--data", "digits"],
        ["eval", str(tiny), "--data", "nope"],
        ["analyze", "calibration", str(tiny), "--data", "nope"],
        ["export", str(tiny), "--format", "onnx", "--images", "nope"],
        ["export", str(tiny), "--format", "coreml2"],
        ["predict", "none.onnx", picture],
        ["analyze", "erf", str(tiny), "--images", "nope"],
        ["analyze", "hidden-states", str(tiny), "--images", str(images)],
        ["analyze", "app", "nope"],
        ["train", "no-such-recipe"],
        ["train", "digits", "optimizer.lrr=1", "--dry-run"],
    ):
        assert loaded(*argv, code=2) == set(), argv


def test_predicting_loads_torch_alone(tiny: Path, images: Path) -> None:
    """timm, torchvision and torch's compiler take longer to import than torch; a prediction needs none of them."""
    assert loaded("predict", str(tiny), str(images / "a.png"), code=0) == {"torch"}


def test_the_names_of_imagenet_come_without_timm(tmp_path: Path, images: Path) -> None:
    model = create_model("sequencer2d_n", num_classes=1000, **TINY)
    save_weights(model, tmp_path / "imagenet.safetensors", {})
    assert loaded("predict", str(tmp_path / "imagenet.safetensors"), str(images / "a.png"), code=0) == {"torch"}


def test_the_table_of_models_needs_no_torch() -> None:
    assert loaded("models", code=0) == set()


@pytest.mark.parametrize(
    ("words", "seconds"),
    [(["predict", "MODEL", "nope.jpg"], 0.5), (["models"], 1.0), (["predict", "MODEL", "PHOTO"], 3.0)],
)
def test_answers_come_at_once(tiny: Path, images: Path, words: list[str], seconds: float) -> None:
    """By CPU time, which other programs on the machine change little; the best of two tries."""
    places = {"MODEL": str(tiny), "PHOTO": str(images / "a.png")}
    argv = [sys.executable, "-m", "sequencer2d", *(places.get(word, word) for word in words)]
    spent = []
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(argv, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < seconds, spent
