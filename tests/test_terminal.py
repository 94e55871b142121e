"""Nothing that others named acts on a terminal, and printing never fails."""

import io
import json
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sequencer2d import terminal
from sequencer2d.terminal import console, printable, printable_lines, to_json
from tests.cli.conftest import Outcome, command, save_tiny

__all__ = ["command"]

ESCAPE = "\x1b[2J\x1b]0;owned\x07"
DANGEROUS = [*map(chr, range(32)), *map(chr, range(0x7F, 0xA0)), *"\u202e\u2066\u200f\u2028\ufeff\udcff\ud800"]


@pytest.mark.parametrize(
    "text, shown",
    [
        (ESCAPE, "\\x1b[2J\\x1b]0;owned\\x07"),
        ("two\nlines\r\t", "two\\nlines\\r\\t"),
        ("caf\udce9", "caf\\xe9"),
        ("\x9b31m", "\\x9b31m"),
        ("gpj\u202egnp", "gpj\\u202egnp"),
        ("größe 犬 \u202f👩\u200d🚀 می\u200cخواهم", "größe 犬 \u202f👩\u200d🚀 می\u200cخواهم"),
    ],
)
def test_what_acts_is_escaped_and_letters_stay(text: str, shown: str) -> None:
    assert printable(text) == shown


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.text(st.one_of(st.characters(), st.sampled_from(DANGEROUS)), max_size=40))
def test_any_text_is_harmless_and_json_reads_back(text: str) -> None:
    shown = printable(text)
    assert not set(shown) & set(DANGEROUS)
    assert printable(shown) == shown
    shown.encode("utf-8")
    for ascii_only in (False, True):
        encoded = to_json({"name": text}, ascii_only=ascii_only)
        assert not set(encoded) & (set(DANGEROUS) - {"\n"})
        assert json.loads(encoded)["name"].encode("utf-16", "surrogatepass") == text.encode("utf-16", "surrogatepass")


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.text(st.one_of(st.characters(), st.sampled_from(DANGEROUS)), max_size=40))
def test_consoles_print_any_text_and_keep_their_own_colors(text: str) -> None:
    from rich.table import Table
    from rich.text import Text

    output = io.StringIO()
    made = console(file=output, width=300, force_terminal=False)
    made.print(text, markup=False)
    table = Table("name")
    table.add_row(Text(text))
    made.print(table)
    assert not set(output.getvalue()) & (set(DANGEROUS) - {"\n"})
    output.getvalue().encode("utf-8")


def test_colors_of_our_own_survive() -> None:
    output = io.StringIO()
    console(file=output, force_terminal=True, color_system="standard").print(f"[red]x{ESCAPE}[/red]")
    assert "\x1b[31m" in output.getvalue()
    assert "\x1b[2J" not in output.getvalue()


def test_lines_of_our_own_stay_lines() -> None:
    assert printable_lines("a\nb\x1b") == "a\nb\\x1b"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp1252"])
def test_terminals_of_any_encoding(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    terminal.write("größe 犬 \udcff")
    terminal.write_json({"name": "größe 犬 \udcff"})
    stream.flush()
    lines = stream.buffer.getvalue().decode(encoding).splitlines()  # type: ignore[attr-defined]
    assert json.loads("".join(lines[1:])) == {"name": "größe 犬 \udcff"}


def test_log_messages_are_one_printable_line(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.install_log_handler()
    terminal.install_log_handler()
    logging.getLogger("sequencer2d.data").warning("left out of %s", f"a\n{ESCAPE}")
    assert capsys.readouterr().err == "left out of a\\n\\x1b[2J\\x1b]0;owned\\x07\n"


NAMES = (f"cat{ESCAPE}", "dog\udcff", "two\nlines", "gpj\u202egnp")


@pytest.mark.parametrize("as_json", [False, True])
def test_class_and_file_names_of_others(command: Callable[..., Outcome], tmp_path: Path, as_json: bool) -> None:
    model = save_tiny(tmp_path / "m.safetensors", class_names=NAMES)
    for name in NAMES:
        folder = tmp_path / "data" / "val" / name
        folder.mkdir(parents=True)
        Image.new("RGB", (9, 9), (90, 9, 9)).save(folder / f"x{name}.png", "PNG")
        (folder / f"broken{name}.png").write_bytes(b"no image")
    flags = ["--json"] if as_json else []
    for code, arguments in (
        (0, ["predict", model, tmp_path / "data", *flags]),
        (0, ["eval", model, "--data", tmp_path / "data", "--per-class", "data.workers=0", *flags]),
        (2, ["predict", model, tmp_path / f"nowhere{ESCAPE}"]),
        (2, ["predict", tmp_path / f"m{ESCAPE}\udcff", tmp_path / "data"]),
    ):
        outcome = command(*arguments, code=code)
        assert not set(outcome.out + outcome.err) & (set(DANGEROUS) - {"\n"}), arguments
        (outcome.out + outcome.err).encode("utf-8")
        if "predict" in arguments and as_json and code == 0:
            found = {guess["name"] for row in json.loads(outcome.out) for guess in row.get("guesses", [])}
            assert found == set(NAMES)


@pytest.mark.parametrize("first", [True, False])
def test_of_several_processes_the_first_says_what_all_would_say(first, capsys):
    logger = logging.Logger("sequencer2d.test")
    logger.addHandler(terminal.LogHandler(first=first))
    logger.warning("the same everywhere")
    logger.warning("my own", extra=terminal.EVERY_PROCESS)
    assert capsys.readouterr().err.splitlines() == ["the same everywhere"] * first + ["my own"]


def test_tables_have_one_look() -> None:
    output = io.StringIO()
    table = terminal.plain_table("name", "size", title="two models")
    table.add_row("tiny", "7")
    table.add_row("small", "128")
    console(file=output, width=40, force_terminal=True, color_system="standard").print(table)
    bold = re.findall(r"\x1b\[1m(.*?)\x1b\[0m", output.getvalue())
    assert [text.strip() for text in bold if text.strip()] == ["two models", "name", "size"]
    lines = [line.rstrip() for line in re.sub(r"\x1b\[\d*m", "", output.getvalue()).splitlines()]
    assert lines == ["two models", "name   size", "tiny   7", "small  128"]


def test_no_other_module_gives_tables_a_look_of_its_own() -> None:
    package = Path(terminal.__file__).parent
    makers = [path for path in package.rglob("*.py") if "rich.table import" in path.read_text(encoding="utf-8")]
    assert makers == [Path(terminal.__file__)]


def test_a_table_loses_nothing_where_the_terminal_is_narrow() -> None:
    table = terminal.plain_table("image", "class", "probability")
    table.add_row("a folder/the garden behind the house.png", "sulphur butterfly", "31.27%")
    narrow = terminal.console(width=24, file=io.StringIO(), highlight=False)
    narrow.print(table)
    lines = narrow.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 24
    shown = "".join("".join(lines).split())
    expected = "image class probability a folder/the garden behind the house.png sulphur butterfly 31.27%"
    assert sorted(shown) == sorted(expected.replace(" ", ""))


@pytest.mark.parametrize(
    ("character", "shown"),
    [
        ("\udc80", "\\x80"), ("\udcff", "\\xff"), ("\udc7f", "\\udc7f"), ("\udd00", "\\udd00"), ("\x9f", "\\x9f"),
        ("\x00", "\\x00"), ("\u061c", "\\u061c"), ("\ufffb", "\\ufffb"), ("\ufffc", "\ufffc"), ("\xa0", "\xa0"),
    ],
)  # fmt: skip
def test_bytes_that_are_no_utf_8_are_shown_as_bytes(character: str, shown: str) -> None:
    assert printable(character) == shown


class Stream(io.StringIO):
    """A text stream that names its encoding."""

    def __init__(self, encoding: str | None) -> None:
        super().__init__()
        self.name_of_encoding = encoding

    @property
    def encoding(self) -> str | None:  # type: ignore[override]
        return self.name_of_encoding


@pytest.mark.parametrize(
    "encoding, plain", [("UTF-8", True), ("utf8", True), ("utf_8", True), (None, True), ("latin-1", False)]
)
def test_json_is_ascii_where_the_terminal_has_no_utf_8(
    monkeypatch: pytest.MonkeyPatch, encoding: str | None, plain: bool
) -> None:
    stream, error = Stream(encoding), Stream("ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", error)
    terminal.write_json(["犬"])
    terminal.write("犬")
    terminal.write("犬", error=True)
    assert stream.getvalue() == ('[\n  "犬"\n]\n犬\n' if plain else '[\n  "\\u72ac"\n]\n\\u72ac\n')
    assert error.getvalue() == "\\u72ac\n"


def test_json_is_indented_unless_it_is_asked_for_in_one_line() -> None:
    assert to_json([1, float("nan")]) == "[\n  1,\n  NaN\n]"
    assert to_json({"a": 1}, indent=None) == '{"a": 1}'
    with pytest.raises(ValueError, match="JSON compliant"):
        to_json(float("inf"), allow_nan=False)


def test_messages_below_a_warning_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.Logger("sequencer2d.test", logging.DEBUG)
    logger.addHandler(terminal.LogHandler())
    logger.info("quiet")
    logger.warning("loud")
    assert capsys.readouterr().err == "loud\n"
