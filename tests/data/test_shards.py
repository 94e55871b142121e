import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from sequencer2d.data.shards import expand_ranges
from sequencer2d.data.sources import check_same_classes, open_source
from sequencer2d.errors import DataError
from tests.data.images import picture


def write_shard(path: Path, samples: dict[str, tuple[int, int | None]], *, as_json: bool = False) -> None:
    """A shard of PNG images: key → (picture's seed, class)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for key, (seed, target) in samples.items():
            buffer = io.BytesIO()
            picture(seed).save(buffer, "PNG")
            members = {f"{key}.png": buffer.getvalue()}
            if target is not None:
                members |= (
                    {f"{key}.json": json.dumps({"label": target}).encode()}
                    if as_json
                    else {f"{key}.cls": str(target).encode()}
                )
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def test_shards_give_any_image_in_any_order(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-000.tar", {"a/0001": (1, 0), "a/0002": (2, 2)})
    write_shard(tmp_path / "train-001.tar", {"b/0001": (3, 1)}, as_json=True)
    for spec in (str(tmp_path), f"{tmp_path}/{{split}}-{{000..001}}.tar", f"{tmp_path}/{{split}}-*.tar"):
        source = open_source(f"wds:{spec}", "train")
        assert len(source) == 3
        for index, (seed, target) in reversed(list(enumerate([(1, 0), (2, 2), (3, 1)]))):
            image, found = source[index]
            assert found == target
            assert np.array_equal(np.asarray(image), np.asarray(picture(seed)))
    assert source.describe(1) == f"{tmp_path}/train-000.tar:a/0002"
    assert source.class_names == ("0", "1", "2")
    assert len(open_source(f"wds:{tmp_path}/train-000.tar", "")) == 2
    assert len(open_source(f"wds:{tmp_path}/train-{{000..001}}.tar", "train")) == 3
    with pytest.raises(DataError, match="does not say where the split 'val' stands"):
        open_source(f"wds:{tmp_path}/train-000.tar", "val")
    assert len(open_source("wds:train-000.tar", "", root=str(tmp_path))) == 2


def test_shards_take_the_names_of_their_classes_from_a_file(tmp_path: Path) -> None:
    write_shard(tmp_path / "val.tar", {"1": (1, 1)})
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert open_source(f"wds:{tmp_path}", "val").class_names == ("cat", "dog")
    write_shard(tmp_path / "val.tar", {"1": (1, 2)})
    with pytest.raises(DataError, match="names only 2 classes"):
        open_source(f"wds:{tmp_path}", "val")


def test_unnamed_classes_need_not_all_occur_in_validation(tmp_path: Path) -> None:
    write_shard(tmp_path / "train.tar", {"1": (1, 2)})
    write_shard(tmp_path / "val.tar", {"1": (1, 1)})
    train, val = (open_source(f"wds:{tmp_path}", split) for split in ("train", "val"))
    check_same_classes(train, val)
    with pytest.raises(DataError, match="only in validation: 2"):
        check_same_classes(val, train)


def test_webdataset_writes_what_we_read(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "train.tar")) as writer:
        for seed in range(3):
            writer.write({"__key__": f"sample{seed}", "png": picture(seed), "cls": seed})
    source = open_source(f"wds:{tmp_path}", "train")
    assert [source[i][1] for i in range(3)] == [0, 1, 2]
    assert np.array_equal(np.asarray(source[2][0]), np.asarray(picture(2)))


def test_mistakes_in_shards_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"put \{split\} into the path"):
        open_source(f"wds:{tmp_path}/x.tar", "train")
    with pytest.raises(DataError, match="no shards for the split 'train'"):
        open_source(f"wds:{tmp_path}", "train")
    write_shard(tmp_path / "train-0.tar", {"1": (1, 1), "2": (2, None)})
    with pytest.raises(DataError, match=r"1 images in .* have no class.*: 2"):
        open_source(f"wds:{tmp_path}", "train")
    with pytest.raises(DataError, match="2 of 3 shards are missing"):
        open_source(f"wds:{tmp_path}/{{split}}-{{0..2}}.tar", "train")
    (tmp_path / "train-0.tar").write_bytes(b"x" * 2000)
    with pytest.raises(DataError, match="not an uncompressed tar"):
        open_source(f"wds:{tmp_path}", "train")


def test_ranges_expand_and_multiply() -> None:
    assert expand_ranges("a-{08..10}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar"]
    assert expand_ranges("{0..1}/{0..1}") == ["0/0", "0/1", "1/0", "1/1"]
