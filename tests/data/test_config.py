import dataclasses

import pytest

from sequencer2d.data.config import DataConfig
from sequencer2d.errors import ConfigError


def test_defaults_are_the_papers_recipe() -> None:
    config = DataConfig()
    assert config.auto_augment == "rand-m9-mstd0.5-inc1"
    assert (config.erasing, config.erasing_mode) == (0.25, "pixel")
    assert (config.mixup, config.cutmix, config.mixup_switch_prob) == (0.8, 1.0, 0.5)
    assert (config.crop_scale, config.interpolation, config.crop_pct) == ((0.08, 1.0), "random", 0.875)


def test_lists_become_tuples_and_size_has_two_sides() -> None:
    config = DataConfig(image_size=[32, 48], mean=[0.5, 0.5, 0.5])  # type: ignore[arg-type]
    assert config.size == (32, 48)
    assert config.mean == (0.5, 0.5, 0.5)
    assert DataConfig(image_size=64).size == (64, 64)
    hash(config)


@pytest.mark.parametrize(
    "field, value",
    [
        ("batch_size", 0),
        ("workers", -1),
        ("hflip", 1.5),
        ("erasing", -0.1),
        ("crop_pct", 0.0),
        ("image_size", 0),
        ("image_size", (32, 32, 3)),
        ("std", (0.1, 0.0, 0.1)),
        ("mean", (0.5,)),
        ("crop", "center"),
        ("crop_scale", (0.5, 0.2)),
        ("crop_scale", (0.5, 1.2)),
        ("interpolation", "sinc"),
        ("erasing_mode", "black"),
    ],
)
def test_a_field_out_of_range_is_named(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"data\.{field} must be"):
        dataclasses.replace(DataConfig(), **{field: value})
