"""The frame of the command line: help without torch, fields anywhere, exit codes."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sequencer2d.cli import main as main_module
from sequencer2d.errors import DataError, Interrupted, NumericalError
from tests.cli.conftest import Outcome

VERBS = ("models", "train", "eval", "predict", "demo")


def test_help_names_every_verb_and_the_exit_codes(command: Callable[..., Outcome]) -> None:
    outcome = command("--help")
    assert all(f"\n    {verb} " in outcome.out for verb in VERBS)
    assert "exit codes" in outcome.out


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb(command: Callable[..., Outcome], verb: str) -> None:
    outcome = command(verb, "--help")
    assert outcome.out.startswith(f"usage: sequencer2d {verb}")
    assert "%%" not in outcome.out


def test_help_does_not_load_torch() -> None:
    code = (
        "import sys; from sequencer2d.cli.main import main; main(['--help']); main(['train', '--help']);"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_fields_may_stand_between_options() -> None:
    arguments = main_module.parse(["train", "digits", "a.b=1", "--dry-run", "c.d=x=y"])
    assert arguments.recipe == "digits"
    assert arguments.dry_run
    assert arguments.fields == ["a.b=1", "c.d=x=y"]


@pytest.mark.parametrize(
    "error, code",
    [
        (DataError("one\n  line"), 2),
        (NumericalError("loss is nan"), 3),
        (Interrupted("stopped"), 75),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_a_line_and_an_exit_code(
    command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr(main_module.models, "run", fail)
    outcome = command("models", code=code)
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("sequencer2d: ")


# One prints by itself, the other through rich.
@pytest.mark.parametrize("verb", [["train", "--list", "--json"], ["train", "--list"]])
def test_a_reader_that_has_gone_ends_the_command_without_a_word(verb: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        ran = subprocess.run([sys.executable, "-m", "sequencer2d", *verb], stdout=write, stderr=subprocess.PIPE)
    finally:
        os.close(write)
    assert (ran.returncode, ran.stderr) == (141, b"")


def test_a_broken_pipe_that_is_not_the_output_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise BrokenPipeError("a worker has gone")

    monkeypatch.setattr(main_module.models, "run", fail)
    monkeypatch.setattr(main_module, "_discard_unread_output", lambda: False)
    with pytest.raises(BrokenPipeError, match="worker"):
        main_module.main(["models"])


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise RuntimeError("a bug")

    monkeypatch.setattr(main_module.models, "run", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        main_module.main(["models"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device that is always full")
def test_a_full_disk_is_answered_in_one_line() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        done = subprocess.run(
            [sys.executable, "-m", "sequencer2d", "models"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr.startswith("sequencer2d: No space left on device: make room")
    assert len(done.stderr.splitlines()) == 1


def test_where_nothing_can_be_written_is_said_before_anything_is_read(
    mistake: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / "x"
    for command in (
        ("predict", "none.safetensors", "none.jpg", "--csv", below),
        ("eval", "none.safetensors", "--report", below),
        ("analyze", "report", "none.safetensors", "--output", below),
        ("analyze", "memory", "none.safetensors", "--images", "none.jpg", "--output", below),
    ):
        assert f"cannot write to {below}: {tmp_path / 'file'} is a file, not a folder" in mistake(*command)
