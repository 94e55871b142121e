"""What the parts of verbs read: arguments and paths, with bounds known by hand."""

import argparse
import errno
import os
from pathlib import Path

import pytest

from sequencer2d.cli import (
    common,
    finetune,
    parsing,
    verbs,
)
from sequencer2d.cli import main as main_module
from sequencer2d.cli.analyze import options as analyze_options
from sequencer2d.cli.analyze import outputs
from sequencer2d.cli.bench import feed
from sequencer2d.cli.bench import options as bench_options
from sequencer2d.cli.writing import no_room, writing
from sequencer2d.errors import ConfigError, InputError, UserError
from sequencer2d.training.config import TrainConfig
from tests.cli.asking import refused

Out = pytest.CaptureFixture[str]
CONFIG = TrainConfig()


def test_numbers_are_read_within_their_bounds() -> None:
    assert (common.share("0"), common.share("1"), common.share("0.25")) == (0, 1, 0.25)
    refused(common.share, "-0.01", "1.01", "x", "nan")
    assert (verbs.pixels("32"), verbs.pixels("65536")) == (32, 65536)
    refused(verbs.pixels, "31", "65537", "-64", "x")
    assert verbs.factors("0.1,1,10") == (0.1, 1, 10)
    refused(verbs.factors, "0.09", "10.1", "1,x", "")
    assert (finetune._minutes("0.5"), finetune._minutes("999999")) == (0.5, 999999)
    refused(finetune._minutes, "0", "1000000", "x", "-1", "nan")
    assert (feed._size("1x8192"), feed._size("500x375")) == ((1, 8192), (500, 375))
    refused(feed._size, "0x1", "1x0", "8193x1", "5", "5x", "a5x5")
    assert (bench_options._shard("1/1"), bench_options._shard("2/8")) == ((1, 1), (2, 8))
    refused(bench_options._shard, "0/2", "3/2", "2", "1/2/3")
    assert bench_options._names(" a, ,b ") == ["a", "b"]
    assert bench_options._integers("1, 128") == [1, 128]
    refused(bench_options._names, "", " , ")
    assert (analyze_options.natural("0"), analyze_options.natural(" 0 "), analyze_options.natural("3")) == (0, 0, 3)
    refused(analyze_options.natural, "-1", "x")
    assert analyze_options.figure_formats(" pdf ,png,") == ("pdf", "png")
    refused(analyze_options.figure_formats, "", "jpg", "png,x")


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:0", "cuda:12"])
def test_devices_that_a_machine_may_have(name: str) -> None:
    common.check_device(argparse.Namespace(device=name))


@pytest.mark.parametrize("name", ["cuda:", "cuda:x", "cpu:0", "mps", "xcpu", ""])
def test_devices_that_no_machine_has(name: str) -> None:
    with pytest.raises(UserError, match="expected auto, cpu, cuda or cuda:INDEX"):
        common.check_device(argparse.Namespace(device=name))


def test_a_new_folder_is_numbered_from_2(tmp_path: Path) -> None:
    found = []
    for _ in range(3):
        found.append(common.new_folder(tmp_path, "run"))
        found[-1].mkdir()
    assert [folder.name for folder in found] == ["run", "run-2", "run-3"]


def test_a_package_that_is_missing_is_named_with_its_extra() -> None:
    common.need("torch", "train", "this")
    with pytest.raises(UserError, match="this needs the package no_such_package"):
        common.need("no_such_package", "train", "this")


def test_standard_output_that_is_no_terminal_is_200_columns_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert common.console().width == 200
    assert not common.console().stderr
    assert common.error_console().stderr


def test_an_unknown_argument_is_answered_with_the_option_that_is_close() -> None:
    parser = argparse.ArgumentParser(prog="p")
    parser.add_argument("--seconds")
    parser.add_argument("--secret", help=argparse.SUPPRESS)
    said = str(parsing.unknown_arguments(parser, ["x", "--secons=1"]))
    assert said == "unknown arguments: x --secons=1; did you mean --seconds? See p --help"
    assert str(parsing.unknown_arguments(parser, ["x"])) == "unknown arguments: x; see p --help"


def test_help_aligns_remarks_that_just_fit() -> None:
    text = "one two\nthree\n  run a  first\n  run long  second"
    aligned = "one two three\n  run a     first\n  run long  second"
    fill = parsing.Help("p")._fill_text
    assert fill(text, len("  run long  second"), "") == aligned
    below = "one two three\n  run a\n      first\n  run long\n      second"
    assert fill(text, len("  run long  second") - 1, "") == below
    assert fill("\na\nb\n\n  x", 40, "") == "a b\n\n  x"


def test_checks_run_in_the_order_in_which_they_were_added() -> None:
    parser, seen = argparse.ArgumentParser(), []
    for number in (1, 2):
        parsing.check_first(parser, lambda _, number=number: seen.append(number))  # type: ignore[misc]
    parsing.run_checks(parser.parse_args([]))
    parsing.run_checks(argparse.Namespace())
    assert seen == [1, 2]


def test_a_verb_of_a_task_says_where_others_belong() -> None:
    segment, detect = verbs.TASK_VERBS
    segment.check("segmentation", "m")
    verbs.EVERY_TASK.check("detection", "m")
    with pytest.raises(ConfigError, match=r"m is for task=detection, .*; use sequencer2d detect train"):
        segment.check("detection", "m")
    with pytest.raises(ConfigError, match=r"m is for task=classification, .*; use sequencer2d train"):
        detect.check("classification", "m")


def test_an_exit_of_argparse_is_an_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    for code, expected in ((None, 0), (0, 0), (3, 3)):

        def leave(_: object, code: int | None = code) -> int:
            raise SystemExit(code)

        monkeypatch.setattr(main_module.models, "run", leave)
        assert main_module.main(["models"]) == expected


# Files


def test_a_path_that_cannot_be_written_to_is_named_with_its_reason() -> None:
    with pytest.raises(InputError, match="cannot write to x: No space left on device; give another path"), writing("x"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(InputError, match="cannot write to x: odd; give"), writing("x"):
        raise OSError("odd")
    full = OSError(errno.ENOSPC, "No space left on device", "/tmp/a")
    assert no_room(full).startswith("No space left on device (/tmp/a): make room")
    assert no_room(OSError(errno.ENOSPC, "No space left on device")).startswith("No space left on device: make room")


def test_outputs_of_other_models_are_told_from_ones_own(tmp_path: Path) -> None:
    told = argparse.Namespace(output=str(tmp_path), name="erf")
    outputs.check_files(told, ["timm:a"])
    (tmp_path / "erf.svg").touch()
    with pytest.raises(ConfigError, match="whose model is not known"):
        outputs.check_files(told, ["timm:a"])
    outputs.claim_files(told, ["timm:a"])
    outputs.check_files(told, ["timm:a"])
    with pytest.raises(ConfigError, match="whose model is timm:a: name"):
        outputs.check_files(told, ["timm:b"])
    page = tmp_path / "page.html"
    outputs.check_page(page, ["timm:a"])
    page.write_text(f'<meta name="{outputs.META}" content="timm:a; timm:b">')
    outputs.check_page(page, ["timm:a", "timm:b"])
    with pytest.raises(ConfigError, match="is about timm:a; timm:b: give another file"):
        outputs.check_page(page, ["timm:a"])
    page.write_text("other")
    with pytest.raises(ConfigError, match="is about something else"):
        outputs.check_page(page, ["timm:a"])
