import json

import pytest

from sequencer2d import recipes
from sequencer2d.errors import RunError
from sequencer2d.training.fields import to_dict, with_overrides
from sequencer2d.training.optim import learning_rate
from sequencer2d.training.runfiles import find_config, read_config, write_config


def test_the_limits_of_a_call_are_no_part_of_the_run(tmp_path):
    config = recipes.get("cifar10")
    write_config(tmp_path, with_overrides(config, {"run.max_steps": 5, "run.time_limit_s": 9}))
    assert read_config(tmp_path) == config


def test_an_older_config_means_what_it_meant(tmp_path):
    """Before versions were written, the cool-down came on top of `run.epochs`."""
    old = to_dict(recipes.get("imagenet_s"))
    old["run"]["epochs"] = 300
    (tmp_path / "config.json").write_text(json.dumps(old))
    config = read_config(tmp_path)
    assert (config.run.epochs, config.cosine_epochs) == (310, 300)
    assert config == recipes.get("imagenet_s")
    assert learning_rate(config, 300, 1) == config.schedule.min_lr < learning_rate(config, 299, 1)


DAMAGED = {
    "empty": b"",
    "cut": b'{"run": {"epochs": 3',
    "no_text": b"\xff\xfe\x00",
    "a_list": b"[1, 2]",
    "a_number": b"3",
    "deep": b"[" * 100_000,
    "huge": b'{"model": "' + b"a" * 2_000_000 + b'"}',
    "huge_number": b'{"run": {"epochs": ' + b"9" * 5000 + b"}}",
    "infinite": b'{"run": {"epochs": Infinity}}',
    "nan": b'{"optimizer": {"lr": NaN}}',
    "a_section_that_is_none": b'{"run": 3}',
    "a_section_that_is_null": b'{"schedule": null}',
    "an_unknown_field": b'{"run": {"epoch": 3}}',
    "out_of_range": b'{"version": 2, "run": {"epochs": 0}}',
    "newer": b'{"version": 99}',
    "a_strange_version": b'{"version": "two"}',
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_config_is_one_line_that_names_the_file(tmp_path, name):
    (tmp_path / "config.json").write_bytes(DAMAGED[name])
    with pytest.raises(RunError, match=r"config\.json") as error:
        read_config(tmp_path)
    assert len(str(error.value)) < 1000


def test_a_folder_without_a_config_or_with_timms_is_no_run(tmp_path):
    assert find_config(tmp_path) is None
    (tmp_path / "config.json").write_text('{"architecture": "sequencer2d_s", "num_classes": 3}')
    assert find_config(tmp_path) is None
