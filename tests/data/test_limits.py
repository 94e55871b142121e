"""Values at the edges: what is still taken, what is refused, and what is said of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sequencer2d.data import device_images
from sequencer2d.data.config import DataConfig
from sequencer2d.data.eval_transforms import eval_transform
from sequencer2d.data.finding import LeftOut
from sequencer2d.data.given import open_given
from sequencer2d.data.packed.index import _item
from sequencer2d.data.packed.stores import LocalFolder, StoreError, WebFolder, open_store
from sequencer2d.data.words import class_words, readable
from sequencer2d.errors import ConfigError, DataError

DIGEST = "0" * 64


def test_images_on_a_device_leave_half_of_its_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (8 << 20, 64 << 20))
    device_images._check_memory(4 << 20, torch.device("cuda"))
    device_images._check_memory(9 << 20, torch.device("cpu"))
    with pytest.raises(ConfigError, match="the images take 5 MiB and cuda has 8 MiB free"):
        device_images._check_memory((5 << 20) + 1, torch.device("cuda"))
    with pytest.raises(ConfigError, match="the images take 4 MiB"):
        device_images._check_memory((4 << 20) + 1, torch.device("cuda"))


def test_a_border_has_the_mean_color_and_nothing_else_is_filled() -> None:
    config = DataConfig(image_size=(20, 30), crop_pct=0.9, mean=(0.1, 0.5, 1.0), eval_crop="border")
    (step,) = eval_transform(config).steps
    assert (step.fill, step.scaled, step.size) == ((26, 128, 255), (22, 33), (20, 30))
    (step,) = eval_transform(DataConfig(image_size=20, mean=(0.1, 0.5, 1.0))).steps
    assert step.fill == (0, 0, 0)


def test_what_is_left_out_names_three_of_a_kind() -> None:
    left_out = LeftOut()
    assert not left_out
    for name in "abc":
        left_out.add("hidden", name)
    assert str(left_out) == "3 hidden (a, b, c)"
    for name in ("d", *range(1196)):
        left_out.add("hidden", str(name))
    left_out.add("dead", "x")
    assert str(left_out) == "1,200 hidden (a, b, c, …), 1 dead (x)".replace("), 1", "); 1")
    assert left_out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_tensors_of_every_floating_dtype_are_images(dtype: torch.dtype) -> None:
    image = torch.tensor([0.0, 0.5, 1.0], dtype=dtype).view(3, 1, 1).expand(3, 2, 4).requires_grad_()
    found = np.asarray(open_given(image))
    assert (found.shape, found[0, 0].tolist()) == ((2, 4, 3), [0, 128, 255])


@pytest.mark.parametrize("size", [0, 1, 2**50 - 1])
def test_a_file_of_an_index_has_a_name_a_size_and_a_hash(size: int) -> None:
    assert _item(["train-000000.tar", size, DIGEST]).bytes == size


@pytest.mark.parametrize(
    "row",
    [["a.tar", -1, DIGEST], ["a.tar", 2**50, DIGEST], ["a.tar", True, DIGEST], ["a.tar", 1.0, DIGEST],
     ["../a.tar", 1, DIGEST], ["a.tar", 1, DIGEST[1:]], ["a.tar", 1, DIGEST + "0"]],
)  # fmt: skip
def test_other_rows_of_an_index_are_refused(row: list[Any]) -> None:
    with pytest.raises(ValueError, match="is no file's name, size in bytes and SHA-256"):
        _item(row)


def test_a_held_out_part_needs_a_name_of_its_own() -> None:
    with pytest.raises(ConfigError, match="both are 'train'"):
        DataConfig(val_fraction=0.1, train_split="train", val_split="train")
    DataConfig(val_fraction=0.0, train_split="train", val_split="train")
    DataConfig(val_fraction=0.1, train_split="train", val_split="held-out")


@pytest.mark.parametrize("name", ["crop_scale", "crop_ratio", "scale_jitter"])
def test_a_range_begins_with_its_least(name: str) -> None:
    DataConfig(**{name: (0.5, 0.5)})
    with pytest.raises(ConfigError, match=f"data.{name} must be the least and the most"):
        DataConfig(**{name: (0.6, 0.5)})


def test_words_are_the_first_of_a_line_or_all_where_two_classes_share_it(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("a\t crane , bird\nb\tcrane, machine\nc\t  tench , fish\nno line\n")
    assert class_words(tmp_path, ["a", "b", "c"]) == [" crane , bird", "crane, machine", "tench"]
    assert class_words(tmp_path, ["a", "d"]) is None
    assert (readable("n01440764"), readable("my class, with a comma")) == ("tench", "my class, with a comma")


def test_addresses_are_told_without_secrets_and_open_the_store_of_their_scheme(tmp_path: Path) -> None:
    assert WebFolder("https://host:8/x/?token=1").where("a.tar") == "https://host:8/x/a.tar"
    with pytest.raises(DataError, match=r"^https://host/x/ is given with a user and a password") as found:
        WebFolder("https://me:secret@host/x")
    assert "secret" not in str(found.value)
    assert type(open_store("HTTP://host/x")) is WebFolder
    store = open_store(f"file://{tmp_path}")
    assert isinstance(store, LocalFolder)
    (tmp_path / "a").write_bytes(b"x" * (2**16 + 1))
    assert [len(chunk) for chunk in store.chunks("a", 1.0)] == [2**16, 1]
    for name, says in (("b", "b is not there; correct the address"), (".", "cannot be read: Is a directory")):
        with pytest.raises(StoreError, match=says) as refused:
            list(store.chunks(name, 1.0))
        assert refused.value.final
    with pytest.raises(DataError, match="no data can be read from ftp:// addresses; expected file://, http://"):
        open_store("ftp://x")
