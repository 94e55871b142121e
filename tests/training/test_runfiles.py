import dataclasses
import json

import pytest
from PIL import ExifTags, Image

from sequencer2d import recipes
from sequencer2d.data.opening import open_split
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


@pytest.mark.parametrize("version", [1, 2])
def test_a_run_from_before_photos_were_turned_sees_the_pixels_that_it_saw(tmp_path, version):
    old = to_dict(with_overrides(recipes.get("cifar10"), {"data.root": str(tmp_path / "images")}))
    del old["data"]["orientation"], old["data"]["background"]
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"version": version, **old}))
    for name, side in (("a", 4), ("b", 5)):
        folder = tmp_path / "images" / "test" / name
        folder.mkdir(parents=True)
        lying = Image.new("RGBA", (side, 2), (10, 20, 30, 0))
        exif = lying.getexif()
        exif[ExifTags.Base.Orientation] = 6  # turned by a quarter
        lying.save(folder / "0.png", exif=exif)
    config = read_config(run).data
    image, _ = open_split(config, config.val_split)[0]
    assert (image.size, image.getpixel((0, 0))) == ((4, 2), (10, 20, 30))
    today = dataclasses.replace(config, orientation="upright", background="white")
    image, _ = open_split(today, config.val_split)[0]
    assert (image.size, image.getpixel((0, 0))) == ((2, 4), (255, 255, 255))


def test_digits_are_no_files_and_their_old_runs_take_todays_decoding(tmp_path):
    old = to_dict(recipes.get("digits"))
    del old["data"]["orientation"], old["data"]["background"]
    (tmp_path / "config.json").write_text(json.dumps({"version": 2, **old}))
    assert read_config(tmp_path) == recipes.get("digits")


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
