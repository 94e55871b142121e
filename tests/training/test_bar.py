"""The live bar: one line at any width, and a terminal that is clean when the run ends or is stopped."""

import functools
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console
from rich.text import Text

from sequencer2d.training import bar
from sequencer2d.training.bar import LiveBar
from sequencer2d.training.config import RunConfig
from sequencer2d.training.fields import to_dict
from sequencer2d.training.messages import compiling_notice
from tests.terminals import Screen, Terminal, screen

REPOSITORY = Path(__file__).parents[2]
GPU = torch.device("cuda")
CPU = torch.device("cpu")


def bar_at(width: int, encoding: str = "utf-8", *, stopping: bool = False) -> LiveBar:
    console = Console(file=io.TextIOWrapper(io.BytesIO(), encoding), width=width, force_terminal=True)
    return LiveBar(
        console, total_steps=400, first_step=100, steps_per_epoch=100, batch=64, memory=lambda: 2034.4,
        stopping=lambda: stopping,
    )  # fmt: skip


def line(bar: LiveBar, width: int) -> str:
    with (console := Console(width=width, file=io.StringIO())).capture() as capture:
        console.print(bar)
    return capture.get().rstrip("\n")


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("sequencer2d.training.bar.time.monotonic", lambda: now[0])
    return now


def after_three_steps(clock, width: int) -> LiveBar:
    """Half a second a step, steps 101 to 103 of 400."""
    bar = bar_at(width)
    for step in (101, 102, 103):
        bar.advance(step, torch.tensor(step / 100), 1e-3)
        clock[0] += 0.5
    clock[0] -= 0.5
    bar.stop()
    return bar


def test_at_200_columns_the_bar_shows_everything(clock):
    shown = line(after_three_steps(clock, 200), 200)
    parts = ("epoch 2/4", "step 103/400", "loss 1.0300", "lr 1.00e-03", "128 images/s", "2,034 MiB", "0:02:28 left")
    assert [part for part in parts if part not in shown] == []
    assert shown.index("epoch") < shown.index("━") < shown.index("loss")


@pytest.mark.parametrize(
    ("width", "stays"),
    [
        (80, ("epoch 2/4", "━━━━━━━━", "loss 1.0300", "128 images/s", "0:02:28 left")),
        (40, ("epoch 2/4", "loss 1.0300", "0:02:28 left")),
        (25, ("epoch 2/4", "loss 1.0300")),
        (8, ("epoch",)),
    ],
)
def test_what_does_not_fit_is_left_out_and_the_rest_is_whole(clock, width, stays):
    shown = line(after_three_steps(clock, width), width)
    assert len(shown) <= width - 3, "^C has room"
    assert [part for part in stays if part not in shown] == []


def test_the_bar_says_what_takes_time_beside_steps(clock):
    bar = bar_at(80)
    assert "first step" in line(bar, 80)
    assert "left" not in line(bar, 80), "nothing is known yet"
    bar.advance(101, torch.tensor(1.0), 1e-3)
    assert "first step" not in line(bar, 80)
    bar.show("evaluating")
    assert "evaluating" in line(bar, 80)
    bar.stop()
    stopping = bar_at(80, stopping=True)
    assert "stopping after this step" in line(stopping, 80)
    stopping.stop()


def test_a_terminal_without_unicode_gets_a_bar_of_ascii(clock):
    bar = bar_at(80, "ascii")
    bar.stop()
    file = bar._live.console.file
    file.flush()
    assert file.buffer.getvalue().isascii()
    assert b"#" in file.buffer.getvalue()


def test_the_screen_that_tests_look_at_acts_on_what_rich_writes():
    assert screen("ab\r\ncd\x1b[2K\r\x1b[1A\x1b[2Kx\x1b[31my\x1b[0m", 80) == ["xy", ""]
    assert screen("abcdef", 4) == ["abcd", "ef"]
    narrowed = Screen(80)
    narrowed.feed("log\r\nabcdefgh")
    narrowed.resize(3)
    assert narrowed.lines() == ["log", "abc", "def", "gh"]
    narrowed.feed("\x1b[2K\x1b[1A\x1b[2K\x1b[1A\r\x1b[2Kxy")
    assert narrowed.lines() == ["log", "xy", "", ""]
    narrowed.resize(80)
    assert narrowed.lines() == ["log", "xy", "", ""]


@pytest.mark.parametrize("columns", [200, 40])
def test_a_run_in_a_terminal_ends_clean(tiny, in_terminal, columns):
    terminal = in_terminal(tiny(run__progress="auto"), columns)
    assert terminal.finish() == 0
    text = "\n".join(terminal.lines())
    assert "images/s" not in text, "the bar is gone"
    assert "━" not in text
    assert [line.split("  ")[0] for line in terminal.lines() if line.startswith("epoch")] == ["epoch 1", "epoch 2"]
    assert "━" in terminal.shown or columns == 40


@pytest.mark.parametrize("columns", [80, 40])
def test_ctrl_c_leaves_one_line_with_the_command_to_go_on(tiny, tmp_path, in_terminal, columns):
    terminal = in_terminal(tiny("my run", run__progress="auto"), columns, slow=0.4)
    terminal.wait_for(lambda shown: "loss" in shown)
    terminal.type(b"\x03")
    assert terminal.finish() == 75
    text = "".join(terminal.lines())
    command = f"go on with: sequencer2d train --resume '{tmp_path / 'my run'}'"
    assert text.endswith(command), text
    assert text.count("stopped by Ctrl-C") == 1
    assert "stopping after this step"[: columns - 12] in terminal.shown
    assert "Traceback" not in terminal.shown
    assert "MiB" not in text


@pytest.mark.parametrize("widths", [(40, 200, 25)])
def test_a_terminal_that_is_resized_in_mid_run_stays_clean(tiny, in_terminal, widths):
    terminal = in_terminal(tiny(run__progress="auto"), 80, slow=0.2)
    terminal.wait_for(lambda shown: "loss" in shown)
    for columns in widths:
        terminal.resize(columns)
        seen = len(terminal.shown)
        terminal.wait_for(lambda shown, seen=seen: shown.count("epoch", seen) >= 3)
        standing = [line for line in terminal.lines() if "━" in line or "step " in line.partition("steps (")[0]]
        assert len(standing) <= 1, standing
        assert all(len(line) <= columns for line in standing)
    assert terminal.finish() == 0
    text = "".join(terminal.lines())
    assert "━" not in text
    assert "images/s" not in text
    assert [n for n in (1, 2) if f"epoch {n}  train loss" not in text] == []


def test_a_file_gets_plain_lines(tiny, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_dict(tiny(run__progress="auto"))))
    command = [sys.executable, "-m", "tests.training.run_from_json", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    with (tmp_path / "log.txt").open("w") as file:
        subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, cwd=tmp_path, env=environment, check=True)
    text = (tmp_path / "log.txt").read_text()
    assert "\x1b" not in text
    assert "\r" not in text
    assert "━" not in text
    lines = text.splitlines()
    assert [line.split("  ")[0] for line in lines if line.startswith("epoch")] == ["epoch 1", "epoch 2"]
    assert any("images/s" in line and "loss" in line for line in lines)


@pytest.fixture
def in_terminal(preloaded, tmp_path):
    """Starts a run in a terminal."""

    def start(config, columns: int, slow: float = 0.0) -> Terminal:
        path = tmp_path / "config.json"
        path.write_text(json.dumps(to_dict(config)))
        run = functools.partial(preloaded.start, "tests.training.run_from_json", path, "--slow", slow, folder=tmp_path)
        return Terminal(lambda terminal: run(terminal=terminal), columns)

    return start


@pytest.mark.parametrize(
    ("mode", "device", "says"),
    [
        (False, CPU, ""),
        (False, GPU, ""),
        (True, CPU, "takes minutes"),
        (True, GPU, "about a minute"),
        ("reduce-overhead", GPU, "about a minute"),
        ("reduce-overhead", CPU, "not compiled"),
    ],
)
def test_compilation_is_announced_with_its_time(mode, device, says):
    notice = compiling_notice(RunConfig(compile=mode), device)
    assert says in notice
    assert bool(notice) == bool(says)


@pytest.mark.parametrize(
    ("columns", "width", "lines"), [(80, 80, 1), (80, 79, 2), (80, 40, 2), (81, 40, 3), (0, 40, 1), (3, 0, 3)]
)
def test_a_terminal_that_is_narrower_breaks_a_line(columns, width, lines, monkeypatch):
    monkeypatch.delenv("XTERM_VERSION", raising=False)
    monkeypatch.setenv("TERM", "screen")
    assert bar._broken_into(columns, width) == lines
    monkeypatch.setenv("TERM", "linux")
    assert bar._broken_into(columns, width) == 1
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("XTERM_VERSION", "XTerm(390)")
    assert bar._broken_into(columns, width) == 1


def test_texts_that_fit_exactly_are_kept_and_the_lowest_rank_always_is():
    parts = [(1, "abcd"), (2, "ef"), (0, "ghi")]
    assert bar._fitting(parts, 13) == ["abcd", "ef", "ghi"]  # with two gaps of two columns
    assert bar._fitting(parts, 12) == bar._fitting(parts, 9) == ["abcd", "ghi"]
    assert bar._fitting(parts, 8) == ["ghi"]
    assert bar._fitting(parts, 2) == ["gh"]


@pytest.mark.parametrize(("share", "done"), [(0.0, 0), (0.25, 2), (0.56, 6), (1.0, 10), (1.2, 10)])
def test_the_bar_is_full_for_the_share_that_is_done(share, done):
    line = Text()
    bar._append_bar(line, 10, share, ascii_only=True)
    assert line.plain == "#" * done + "." * (10 - done)


def test_the_bar_is_at_most_40_columns_and_fills_the_line_else(clock):
    shown = bar_at(200)
    shown.stop()
    assert str(shown._line(200, ascii_only=True)).count("#") == 10  # step 100 of 400: a quarter of 40
    assert len(shown._line(60, ascii_only=True)) == 60


def test_the_loss_is_read_twice_a_second(clock):
    shown = bar_at(80)
    for now, loss in ((100.0, 1.0), (100.25, 2.0), (100.5, 3.0)):
        clock[0] = now
        shown.advance(101, torch.tensor(loss), 1e-3)
        assert shown._loss == (1.0 if now < 100.5 else 3.0)
    shown.stop()


def test_the_last_step_is_of_the_last_epoch_and_a_rate_needs_two_steps(clock):
    shown = bar_at(200)
    assert shown._rate_text() is None
    shown.advance(399, torch.tensor(1.0), 1e-3)
    assert (shown._rate_text(), shown._time_text()) == (None, None)
    clock[0] += 2.0
    shown.advance(400, torch.tensor(1.0), 1e-3)
    assert (shown._rate_text(), shown._time_text()) == ("32 images/s", "0:00:00 left")
    assert shown._parts()[0] == (0, "epoch 4/4")
    shown.show("evaluating")
    assert shown._rate_text() is None
    shown.stop()
