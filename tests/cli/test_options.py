"""Options of every verb: what they do by default, what must be given, and help that says the same."""

import argparse
import re
from collections.abc import Iterator

import pytest

from sequencer2d.cli import demo
from sequencer2d.cli.analyze import paper
from sequencer2d.cli.main import build_parser

NUMBERS = {
    "models --image-size": 224,
    "pack --shard-mb": 64,
    "finetune --minutes": 8.0,
    "embed --batch-size": 32,
    "similar --batch-size": 32,
    "similar --top": 8,
    "probe --batch-size": 32,
    "probe --neighbors": 10,
    "predict --batch-size": 32,
    "segment predict --batch-size": 32,
    "detect predict --batch-size": 32,
    "analyze memory --limit": 50,
    "analyze cka --limit": 500,
    "analyze cka --batch-size": 32,
    "analyze grad-cam --limit": 8,
    "analyze attack --batch-size": 32,
    "analyze shape-texture --limit": 1000,
    "analyze imagenet-c --batch-size": 128,
    "analyze corruptions --workers": 0,
    "analyze figure3 --batch-size": 16,
    "analyze figure3 --seconds": 1.0,
    "analyze report --workers": 0,
    "analyze report --limit": 200,
    "analyze app --port": 7860,
    "bench --seconds": 1.0,
    "bench input --seconds": 2.0,
}
REQUIRED = {
    "compare": ["runs"],
    "data": ["folder"],
    "pack": ["folder", "output"],
    "finetune": ["folder"],
    "eval": ["checkpoint"],
    "detect eval": ["checkpoint"],
    "embed": ["checkpoint", "images", "--output"],
    "similar": ["checkpoint", "images", "--among"],
    "probe": ["checkpoint", "folder"],
    "detect predict": ["checkpoint", "images"],
    "segment eval": ["checkpoint"],
    "segment predict": ["checkpoint", "images"],
    "export": ["checkpoint", "--format"],
    "analyze erf": ["--images"],
    "analyze hidden-states": ["model", "--images"],
    "analyze memory": ["models", "--images"],
    "analyze cka": ["models", "--images"],
    "analyze grad-cam": ["model", "--images"],
    "analyze resolution": ["models", "--data"],
    "analyze attack": ["models", "--data"],
    "analyze shifted": ["models", "--set", "--data"],
    "analyze shape-texture": ["models"],
    "analyze imagenet-c": ["models", "--data"],
    "analyze corruptions": ["models", "--data"],
    "analyze report": ["models", "--data"],
    "analyze app": ["model"],
}


def parsers(
    parser: argparse.ArgumentParser, verb: str = "", text: str = ""
) -> Iterator[tuple[str, argparse.ArgumentParser, str]]:
    """Every parser below one, with its verb and the help that stands beside the verb."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, child in action.choices.items():
                yield from parsers(child, f"{verb} {name}".strip(), texts[name])
    yield verb, parser, text


EVERY = list(parsers(build_parser()))
VERBS = [entry for entry in EVERY if entry[0] not in ("", "analyze", "detect", "segment")]


def options() -> Iterator[tuple[str, argparse.Action]]:
    """Every argument with its verb and name."""
    for verb, parser, _ in VERBS:
        for action in parser._actions:
            yield f"{verb} {action.option_strings[0] if action.option_strings else action.dest}", action


def test_numbers_that_no_one_gave_are_those_on_record() -> None:
    found = {name: action.default for name, action in options()}
    numbers = {name: value for name, value in found.items() if type(value) in (int, float)}
    assert numbers == NUMBERS
    assert not any(value is True for value in found.values()), "a switch is off by default"


def test_help_states_the_default_that_is_used() -> None:
    checked = 0
    for name, action in options():
        stated = re.search(r"\(default: ([\w.#-]+)(, this one)?\)$", action.help or "")
        if not stated or stated[1] in ("all", "both", "random", "inference"):  # in words, of what None stands for
            continue
        given = action.default if isinstance(action.default, list) else [action.default]
        if given != [None]:
            assert [stated[1]] == list(map(_shown, given)), name
            checked += 1
    assert checked > 60


def test_what_must_be_given_is_that_and_no_more() -> None:
    found: dict[str, list[str]] = {}
    for name, action in options():
        if action.required:
            verb, _, option = name.rpartition(" ")
            found.setdefault(verb, []).append(option)
    assert found == REQUIRED


@pytest.mark.parametrize(("verb", "parser", "text"), VERBS, ids=[verb for verb, *_ in VERBS])
def test_a_description_is_a_sentence(verb: str, parser: argparse.ArgumentParser, text: str) -> None:
    """Those of `analyze` begin with the help that stands beside their names."""
    said = parser.description or ""
    assert said[0].isupper()
    assert said.endswith(".")
    if verb.startswith("analyze "):
        assert said[0].lower() + said[1:].rstrip(".")[: len(text) - 1] == text[0].lower() + text[1:]


def test_figure_3_and_the_demo_have_the_sizes_that_their_help_promises() -> None:
    assert (paper.PAPER_BATCH, paper.MULTIPLES, demo.SHOWN) == (16, (1, 2, 3, 4), 32)


def _shown(value: object) -> str:
    """A default as help writes it: a size as 500x375."""
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
