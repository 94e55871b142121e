"""docs/paper.md names everything in the paper, and each of its commands is one that the command line takes today."""

import argparse
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm

from benchmarks.efficiency import running as efficiency
from benchmarks.tiny_imagenet import resolution
from benchmarks.tiny_imagenet import running as tiny_imagenet
from sequencer2d import create_model, recipes
from sequencer2d.benchmark.cost import count_macs
from sequencer2d.cli.main import main, parse
from sequencer2d.models.variants import HUB_WEIGHTS, VARIANTS, list_models
from sequencer2d.peers import PEERS

DOCUMENT = (Path(__file__).parents[2] / "docs" / "paper.md").read_text(encoding="utf-8")
SPANS = re.findall(r"`([^`]+)`", DOCUMENT)
COMMANDS = list(dict.fromkeys(span for span in SPANS if re.match(r"(sequencer2d|torchrun|python -m) ", span)))
BENCHMARKS: dict[str, Callable[[list[str]], Any]] = {
    "benchmarks.efficiency": efficiency.parse,
    "benchmarks.tiny_imagenet": lambda arguments: tiny_imagenet.parser().parse_args(arguments),
    "benchmarks.tiny_imagenet.resolution": lambda arguments: resolution.parser().parse_args(arguments),
}
DRY = {"train": ["--dry-run"], "bench": ["--dry-run", "--device", "cpu"]}
"""Options under which a verb resolves everything and does nothing."""
NAMED = (
    *(f"Table {name}" for name in ("1", "2a", "2b", "2c", "2d", "2e", "3 left", "3 right")),
    *(f"Figure {number}" for number in range(1, 6)),
    *(f"{name}, " for name in ("3.1", "3.2", "4.1", "4.2", "4.3", "4.4", "4.5")),
    *(f"{name}, " for name in ("B", "B.1", "B.2", "B.4", "C.3", "C.4", "C.5", "D")),
    *(f"Robustness, {name}" for name in ("ImageNet-C", "ImageNet-A", "ImageNet-R", "ImageNet-Sketch", "ImageNet-V2")),
    "Robustness, ReaL",
    "Robustness, FGSM and PGD",
)
"""What the paper's text and its robustness table name, as rows begin."""


def without_launcher(command: str) -> list[str]:
    words = shlex.split(command)
    return words[words.index("sequencer2d") + 1 :]


@pytest.mark.parametrize("name", NAMED)
def test_everything_that_the_paper_names_has_a_row_with_a_command_or_a_reason(name: str) -> None:
    rows = [line for line in DOCUMENT.splitlines() if line.startswith(f"| {name}")]
    assert rows
    for row in rows:
        _, answer = (cell.strip() for cell in row.strip("|").split(" | ", 1))
        assert "`" in answer or re.match("none[:,] ", answer) or "above" in answer


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_taken_as_it_stands(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    if command.startswith("python -m "):
        _, _, module, *arguments = shlex.split(command)
        BENCHMARKS[module](arguments)
        return
    words = without_launcher(command)
    arguments = parse(words)
    if words[0] in DRY:
        files = {"--accuracy", *getattr(arguments, "accuracy", ())}
        assert main([word for word in words if word not in files] + DRY[words[0]]) == 0
        assert len(capsys.readouterr().out.splitlines()) > 1
    if words[0] == "models":
        assert list_models(arguments.filter)
    if words[0] in ("eval", "analyze"):
        for spec in models_of(arguments):
            check_model(spec, download=arguments.download)


def models_of(arguments: argparse.Namespace) -> list[str]:
    """The models that `eval` or `analyze` is asked about."""
    if "checkpoint" in arguments:
        return [arguments.checkpoint]
    if not {"models", "model"} & set(vars(arguments)) or (getattr(arguments, "speed", None) and not arguments.data):
        return []
    return list(arguments.models) if "models" in arguments else [arguments.model]


def check_model(spec: str, *, download: bool) -> None:
    """The model exists, its weights are published, and what needs `--download` has it."""
    if spec.startswith("timm:"):
        assert timm.is_model(spec.removeprefix("timm:").split(".")[0])
        assert timm.get_pretrained_cfg(spec.removeprefix("timm:")).hf_hub_id
        assert download
    elif "=" in spec:
        assert spec.partition("=")[0] in PEERS
    else:
        assert spec.removeprefix("hf-hub:") in HUB_WEIGHTS.values()


def test_every_name_in_it_exists() -> None:
    known = {*recipes.names(), *VARIANTS, *BENCHMARKS}
    names = [span for span in SPANS if re.fullmatch(r"(v?sequencer2?d?|transfer|imagenet|finetune)_\w+", span)]
    assert names
    assert set(names) <= known


def test_every_transfer_and_imagenet_recipe_and_every_ablation_is_in_it() -> None:
    words = set(re.findall(r"[\w.]+", DOCUMENT))
    for name in recipes.names():
        if name.startswith(("transfer", "imagenet", "finetune")):
            assert name in words
    ours = {"sequencer2d_t", "sequencer2d_n", "sequencer2d_n_p4", "sequencer2d_l_wide", "sequencer2d_s_add"}
    assert set(VARIANTS) - ours <= words


def test_the_blocks_of_the_appendix_exist() -> None:
    blocks = set(re.findall(r"stages\.\d\.blocks\.\d+", DOCUMENT))
    model = create_model("sequencer2d_s")
    assert len(blocks) == 4
    for name in blocks:
        model.get_submodule(name)


def test_its_numbers_of_macs_are_the_counters() -> None:
    counted = [count_macs(create_model(f"sequencer2d_{size}"), 224) / 1e9 for size in "sml"]
    assert [f"{value:.2f}" for value in counted] == ["8.33", "11.05", "16.49"]
    assert "8.33, 11.05 and\n16.49 G" in DOCUMENT
