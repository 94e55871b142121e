"""Generated configurations, command lines and files of a run: each is accepted rightly or refused as a user's error.

Which values a field takes is read from the annotation beside it. The examples are the same in every run: hypothesis
derives them from the tests themselves.
"""

import dataclasses
import json
import math
import re
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sequencer2d import recipes
from sequencer2d.cli.main import main
from sequencer2d.errors import ConfigError, Interrupted, RunError, UserError
from sequencer2d.ranges import Checked, Range, Text, leaves
from sequencer2d.training.checkpoint import load_last
from sequencer2d.training.config import TrainConfig, validate
from sequencer2d.training.fields import describe, from_dict, paths, to_dict, value_at, with_overrides
from sequencer2d.training.logfile import NUMBERS, read_log
from sequencer2d.training.loop import train
from sequencer2d.training.runfiles import read_config, write_config
from tests.training.conftest import configuration, equal

FUZZ = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture],
    max_examples=150,
)
FIELDS = dict(leaves(TrainConfig))
SECTIONS = {name: hint for name, hint in typing.get_type_hints(TrainConfig).items() if dataclasses.is_dataclass(hint)}
STRANGE_NUMBERS = [math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, 10**400, -(10**400), 2**63, -1, 0, True, False]
STRANGE_TEXTS = [
    "",
    " ",
    "\0",
    "a" * 5000,
    "nan",
    "1e999",
    "none",
    "(",
    "[[[[",
    "{",
    "~",
    "~nobody-at-all/x",
    "é",
    "a\nb",
]

scalars = st.one_of(st.sampled_from(STRANGE_NUMBERS), st.floats(), st.integers(), st.text(max_size=20), st.none())
anything = st.recursive(
    st.one_of(scalars, st.sampled_from(STRANGE_TEXTS)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=6,
)


def require_message(error: Exception, says: str = "") -> None:
    """A message that a person can read: not endless, and about this."""
    assert len(str(error)) < 3000
    assert re.search(says, str(error)), error


def good(hint: Any, limits: tuple[Any, ...] = ()) -> st.SearchStrategy[Any]:
    """Values that a field of this type takes."""
    origin, members = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return good(members[0], (*limits, *members[1:]))
    if origin in (Union, types.UnionType):
        return st.one_of([good(member, limits) for member in members])
    if origin is Literal:
        return st.sampled_from(members)
    if origin is tuple:
        return st.tuples(*(good(member, limits) for member in members if member is not Ellipsis))
    if hint in (int, float):
        (span,) = [limit for limit in limits if isinstance(limit, Range)]
        return st.sampled_from(inside(span, hint))
    if hint is bool:
        return st.booleans()
    if hint is str:
        return st.sampled_from(["a", "a/b c", "é", "x" * 4096])
    if hint is type(None):
        return st.none()
    return st.just({"depths": (1, 2), "cell": "gru"})


def inside(span: Range, kind: type) -> list[Any]:
    """Both ends of a range, and its middle."""
    low = span.at_least if span.at_least is not None else math.nextafter(span.above, math.inf)
    high = span.at_most if span.at_most is not None else math.nextafter(span.below, -math.inf)
    return [int(low), int(high)] if kind is int else [float(low), float(high), (low + high) / 2]


def outside(span: Range) -> list[Any]:
    """Values beside a range that is given in numbers of one type."""
    low = span.above if span.above is not None else math.nextafter(span.at_least, -math.inf)
    high = span.below if span.below is not None else math.nextafter(span.at_most, math.inf)
    return [low, high, math.nan, math.inf, -math.inf, 10**400]


@FUZZ
@given(st.data())
def test_what_the_annotations_allow_is_accepted_and_survives_the_file(tmp_path_factory, data):
    chosen = data.draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=12, unique=True))
    values = {path: data.draw(good(FIELDS[path]), label=path) for path in chosen}
    try:
        config = with_overrides(TrainConfig(), values)
    except ConfigError as error:
        require_message(error, "the least and the most|no such home folder|must be a color")
        return
    for path, value in values.items():
        assert value_at(config, path) == value
    assert len(describe(config).splitlines()) > len(FIELDS)
    assert from_dict(TrainConfig, json.loads(json.dumps(to_dict(config)))) == config
    folder = tmp_path_factory.mktemp("written", numbered=True)
    write_config(folder, config)
    assert to_dict(read_config(folder))["model"] == to_dict(config)["model"]
    try:
        validate(config)
    except ConfigError as error:
        require_message(error)


NUMERIC = [path for path, hint in FIELDS.items() if "Range" in str(hint)]


@pytest.mark.parametrize("path", NUMERIC)
def test_what_lies_beside_a_range_is_refused_with_the_fields_name(path):
    (span,) = {limit for limit in metadata(FIELDS[path]) if isinstance(limit, Range)}
    lengths = {2: "{0},{0}", 3: "{0},{0},{0}"}
    shape = {"optimizer.betas": 2, "data.crop_scale": 2, "data.crop_ratio": 2, "data.mean": 3, "data.std": 3}
    for value in outside(span):
        text = lengths.get(shape.get(path, 0), "{0}").format(value)
        with pytest.raises(ConfigError, match=re.escape(path)):
            with_overrides(TrainConfig(), {path: text})


def metadata(hint: Any) -> list[Any]:
    own = list(hint.__metadata__) if typing.get_origin(hint) is Annotated else []
    return own + [item for member in typing.get_args(hint) for item in metadata(member)]


@FUZZ
@given(st.sampled_from(sorted(FIELDS)), anything)
def test_any_value_is_taken_within_the_range_or_refused(path, value):
    try:
        config = with_overrides(TrainConfig(), {path: value})
    except ConfigError as error:
        require_message(error)
        return
    for section in (config, *(getattr(config, name) for name in SECTIONS)):
        assert isinstance(section, Checked)
        section.__post_init__()  # raises if what was accepted does not fit
    found = value_at(config, path)
    for limit in metadata(FIELDS[path]):
        for item in found if isinstance(found, tuple) else (found,):
            if item is not None and isinstance(limit, (Range, Text)) and not isinstance(item, bool):
                assert isinstance(item, str) == isinstance(limit, Text)
                assert item in limit
    json.dumps(to_dict(config), allow_nan=False)


@FUZZ
@given(st.dictionaries(st.sampled_from(sorted([*SECTIONS, "precision", "version", "other"])), anything, max_size=4))
def test_any_json_is_a_configuration_or_refused(values):
    try:
        config = from_dict(TrainConfig, values)
    except UserError as error:
        require_message(error)
    else:
        assert from_dict(TrainConfig, json.loads(json.dumps(to_dict(config), allow_nan=False))) == config


words = st.one_of(
    st.sampled_from(
        [*recipes.names(), *STRANGE_TEXTS, "--json", "--list", "--dry-run", "--resume", "nowhere", "--", "-x"]
    ),
    st.builds("{}={}".format, st.sampled_from(paths(TrainConfig())), st.sampled_from(STRANGE_TEXTS)),
    st.builds("{}={}".format, st.sampled_from(paths(TrainConfig())), scalars),
    st.builds("model.overrides.{}={}".format, st.sampled_from(["depths", "cell", "", "a.b", "__class__"]), scalars),
    st.text(max_size=10),
)


@settings(FUZZ, max_examples=100)
@given(st.lists(words, max_size=6))
def test_any_command_line_is_answered(tmp_path_factory, capfd, arguments):
    arguments = [word for word in arguments if "\0" not in word]  # no system passes those on
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("here", numbered=True))
        capfd.readouterr()
        code = main(["train", *arguments, "--dry-run"])
        said = capfd.readouterr()
        assert not list(Path().iterdir()), "a dry run writes nothing"
    assert code in (0, 2)
    if code == 2:
        assert said.err.startswith("sequencer2d: ")
        assert said.err.count("\n") == 1
        assert said.out == ""


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "run"
    with pytest.raises(Interrupted):
        train(configuration(folder, {"run.max_steps": 11}))
    return folder


def spoil(content: bytes, data: Any) -> bytes:
    """A file as a failing disk or an editor leaves it: cut, with changed bytes, with bytes put in or taken out."""
    kind = data.draw(st.sampled_from(["cut", "change", "insert", "remove", "replace"]))
    start = data.draw(st.integers(0, len(content)))
    some = data.draw(st.binary(min_size=1, max_size=8))
    if kind == "cut":
        return content[:start]
    if kind == "change":
        return content[:start] + some + content[start + len(some) :]
    if kind == "insert":
        return content[:start] + some + content[start:]
    return content[:start] + content[start + len(some) :] if kind == "remove" else some * 50


@FUZZ
@given(st.data())
def test_a_spoiled_config_is_refused_or_still_a_configuration(run_folder, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("spoiled", numbered=True)
    (folder / "config.json").write_bytes(spoil((run_folder / "config.json").read_bytes(), data))
    try:
        config = read_config(folder)
    except RunError as error:
        require_message(error, "config[.]json")
    else:
        json.dumps(to_dict(config), allow_nan=False)


@FUZZ
@given(st.data())
def test_a_spoiled_log_gives_entries_only(run_folder, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("spoiled", numbered=True)
    (folder / "log.jsonl").write_bytes(spoil((run_folder / "log.jsonl").read_bytes(), data))
    for entry in read_log(folder):
        assert all(math.isfinite(entry[name]) for name in NUMBERS[entry["kind"]])


@FUZZ
@given(st.data())
def test_a_spoiled_checkpoint_is_refused_or_whole(run_folder, tmp_path_factory, data):
    content = (run_folder / "checkpoints/last.pt").read_bytes()
    folder = tmp_path_factory.mktemp("spoiled", numbered=True)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/last.pt").write_bytes(spoil(content, data))
    try:
        found = load_last(folder)
    except UserError as error:
        require_message(error, "last[.]pt")
    else:
        assert equal(vars(found) | {"path": 0}, vars(load_last(run_folder)) | {"path": 0})


def with_junk(tree: Any, data: Any) -> Any:
    """`tree` with one node, anywhere in it, taken out or made something else."""
    if isinstance(tree, dict) and tree and data.draw(st.integers(0, 4)):
        key = data.draw(st.sampled_from(sorted(tree, key=str)))
        return {**tree, key: with_junk(tree[key], data)}
    if isinstance(tree, (list, tuple)) and tree and data.draw(st.booleans()):
        index = data.draw(st.integers(0, len(tree) - 1))
        return type(tree)([*tree[:index], with_junk(tree[index], data), *tree[index + 1 :]])
    if isinstance(tree, torch.Tensor) and data.draw(st.booleans()):
        return data.draw(
            st.sampled_from([tree.double(), tree.to(torch.int64), tree[None], tree.flatten()[:0], tree * math.nan])
        )
    return data.draw(anything.filter(lambda value: not isinstance(value, int) or abs(value) < 2**1000))


@settings(FUZZ, max_examples=60)
@given(st.data())
def test_a_checkpoint_with_junk_in_it_is_refused_or_trains(run_folder, tmp_path_factory, data):
    content = torch.load(run_folder / "checkpoints/last.pt", weights_only=True)
    folder = tmp_path_factory.mktemp("junk", numbered=True)
    (folder / "checkpoints").mkdir()
    (folder / "config.json").write_bytes((run_folder / "config.json").read_bytes())
    torch.save(with_junk(content, data), folder / "checkpoints/last.pt")
    try:
        train(configuration(folder, {"run.resume": True, "run.max_steps": 13}))
    except Interrupted as stopped:
        require_message(stopped, "max_steps after step 13|max_steps=13 was reached before")
    except UserError as error:
        require_message(error)
