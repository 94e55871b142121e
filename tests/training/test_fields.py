from dataclasses import dataclass, field

import pytest

from sequencer2d.errors import ConfigError
from sequencer2d.training.config import TrainConfig
from sequencer2d.training.field_help import field_texts
from sequencer2d.training.fields import describe, differences, from_dict, paths, to_dict, with_overrides


@dataclass(frozen=True)
class Inner:
    count: int = 1
    pair: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    flag: bool = False
    sizes: tuple[int, ...] = ()
    limit: float | None = None
    mode: bool | str = False
    options: dict[str, object] = field(default_factory=dict)


@pytest.mark.parametrize(
    "path, text, value",
    [
        ("inner.count", "7", 7),
        ("inner.pair", "0.5,2", (0.5, 2.0)),
        ("inner.pair", "(0.5, 2)", (0.5, 2.0)),
        ("flag", "true", True),
        ("flag", "off", False),
        ("sizes", "2,2,1,1", (2, 2, 1, 1)),
        ("sizes", "3", (3,)),
        ("limit", "1e-3", 1e-3),
        ("limit", "none", None),
        ("mode", "true", True),
        ("mode", "reduce-overhead", "reduce-overhead"),
        ("options.sizes", "2,2,1,1", (2, 2, 1, 1)),
        ("options.name", "lstm", "lstm"),
        ("options.rate", "0.5", 0.5),
        ("options.on", "true", True),
        ("options", '{"a": 1}', {"a": 1}),
        ("options", "{'a': (1, 2)}", {"a": (1, 2)}),
    ],
)
def test_text_becomes_the_fields_type(path, text, value):
    changed = with_overrides(Outer(), {path: text})
    node = changed
    for name in path.split("."):
        node = node[name] if isinstance(node, dict) else getattr(node, name)
    assert node == value
    assert type(node) is type(value)
    assert Outer() == Outer(), "the original is left alone"


@pytest.mark.parametrize(
    "path, value, expected",
    [
        ("inner.count", "1.5", "an integer"),
        ("inner.count", True, "an integer"),
        ("inner.pair", "1", "2 comma-separated values"),
        ("flag", "maybe", "true or false"),
        ("sizes", "a,b", "an integer each"),
        ("limit", "fast", "a number or none"),
        ("options", "[1]", "a dictionary"),
        ("inner", 3, "section"),
    ],
)
def test_wrong_type_names_field_expectation_and_value(path, value, expected):
    with pytest.raises(ConfigError) as error:
        with_overrides(Outer(), {path: value})
    assert path in str(error.value)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    "path, hint",
    [
        ("optimizer.lrr", "optimizer.lr"),
        ("lr", "optimizer.lr"),
        ("schedule.epochs", "run.epochs"),
        ("optimizer", "section"),
    ],
)
def test_unknown_path_suggests_close_ones(path, hint):
    with pytest.raises(ConfigError, match=hint):
        with_overrides(TrainConfig(), {path: "1"})


def test_choices_are_listed():
    with pytest.raises(ConfigError, match="fp32, bf16, fp16"):
        with_overrides(TrainConfig(), {"precision": "fp64"})


def test_several_overrides_are_applied_together():
    config = with_overrides(
        TrainConfig(),
        {
            "optimizer.lr": "1e-3",
            "optimizer.betas": "0.9,0.95",
            "model.overrides.patch_sizes": "2,2,1,1",
            "model.overrides.cell": "gru",
            "run.compile": "true",
            "data.image_size": "32",
        },
    )
    assert (config.optimizer.lr, config.optimizer.betas) == (1e-3, (0.9, 0.95))
    assert config.model.overrides == {"patch_sizes": (2, 2, 1, 1), "cell": "gru"}
    assert config.run.compile is True
    assert config.data.image_size == 32


def test_json_round_trip():
    import json

    config = with_overrides(
        TrainConfig(), {"model.overrides.dims": "8,16", "run.time_limit_s": "3", "precision": "bf16"}
    )
    assert from_dict(TrainConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_unknown_key_in_a_file_is_an_error():
    with pytest.raises(ConfigError, match=r"optimizer\.learning_rate"):
        from_dict(TrainConfig, {"optimizer": {"learning_rate": 1}})


def test_describe_shows_every_field():
    text = describe(TrainConfig())
    assert all(f"{path} " in text for path in paths(TrainConfig()))
    assert "run.compile" in text
    assert "= false" in text


def test_differences():
    assert differences(TrainConfig(), with_overrides(TrainConfig(), {"optimizer.lr": 1.0})) == ("optimizer.lr",)


@dataclass(frozen=True)
class Told:
    plain: int = 1
    told: int = 2
    """Two
    lines."""


@dataclass(frozen=True)
class Section:
    inner: Told = Told()
    """Of the section, not of a field."""
    last: float = 0.5
    """The last."""


def test_the_text_below_a_field_is_its_help():
    assert field_texts(Section) == {"inner.plain": "", "inner.told": "Two lines.", "last": "The last."}
    assert tuple(field_texts(TrainConfig)) == paths(TrainConfig())


def test_a_section_that_is_no_dictionary_is_named():
    with pytest.raises(ConfigError, match=r"^run: expected a dictionary, got 3$"):
        from_dict(TrainConfig, {"run": 3})
    with pytest.raises(ConfigError, match=r"^a configuration: expected a dictionary, got \[\]$"):
        from_dict(TrainConfig, [])
