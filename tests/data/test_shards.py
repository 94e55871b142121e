import io
import json
import logging
import tarfile
from pathlib import Path

import numpy as np
import pytest

from sequencer2d.data.opening import open_source
from sequencer2d.data.shards import expand_ranges
from sequencer2d.data.sources import check_same_classes
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


def write_members(path: Path, *members: tuple[str, bytes]) -> None:
    """A tar file of members with these names and contents, in this order."""
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def encoded(seed: int) -> bytes:
    picture(seed).save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


def test_keys_with_dots_keep_their_samples(tmp_path: Path) -> None:
    names = ("a", "IMG_1.2", "v1.0_x", "b/c.d.e", "b")
    write_members(
        tmp_path / "train.tar",
        *((f"{name}.png", encoded(number)) for number, name in enumerate(names)),
        *((f"{name}.cls", str(number).encode()) for number, name in enumerate(names)),
    )
    source = open_source(f"wds:{tmp_path}", "train")
    assert [source.describe(index).partition(".tar:")[2] for index in range(5)] == list(names)
    for index in range(5):
        assert np.array_equal(np.asarray(source[index][0]), np.asarray(picture(index)))
        assert source[index][1] == index


def test_images_with_names_of_their_own_belong_to_webdatasets_sample(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_members(
        tmp_path / "train.tar",
        ("1.mask.png", encoded(9)), ("1.png", encoded(1)), ("1.cls", b"0"),
        ("2.left.png", encoded(2)), ("2.cls", b"1"),
    )  # fmt: skip
    with caplog.at_level(logging.WARNING):
        source = open_source(f"wds:{tmp_path}", "train")
    assert [source[index][1] for index in range(len(source))] == [0, 1]
    for index in range(2):
        assert np.array_equal(np.asarray(source[index][0]), np.asarray(picture(index + 1)))
    assert "1 further images of a sample (1.mask.png)" in caplog.text


def test_members_that_are_no_images_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_members(
        tmp_path / "train.tar",
        ("a.png", encoded(1)), ("a.cls", b"1"), ("._a.png", b"x"), ("__MACOSX/a.png", b"x"), ("a.txt", b"x"),
        (".ipynb_checkpoints/a.png", encoded(1)), ("lost.cls", b"0"),
    )  # fmt: skip
    with caplog.at_level(logging.WARNING):
        assert len(open_source(f"wds:{tmp_path}", "train")) == 1
    for part in ("2 hidden", "1 of the system (__MACOSX/a.png)", "1 no images", "1 classes without an image (lost)"):
        assert part in caplog.text


@pytest.mark.parametrize(
    "name, content, says",
    [
        ("a.cls", b"99999999999999999999", "is not a number"),
        ("a.cls", b"9" * 5000, "is not a number"),
        ("a.cls", b"1.5", "is not a number"),
        ("a.cls", b"", "is not a number"),
        ("a.cls", b"\xff\xfe1\x00", "is not a number"),
        ("a.cls", b"1_0", "is not a number"),
        ("a.cls", "\u0663".encode(), "is not a number"),
        ("a.cls", b"-1", "expected 0 to"),
        ("a.cls", b"4294967296", "expected 0 to"),
        ("a.cls", b"1000000000", "at most 100,000 are taken without names"),
        ("a.cls", b" " * 2**21, "expected a class's number in a small file"),
        ("a.json", b'{"label": Infinity}', "is not a number"),
        ("a.json", b'{"label": NaN}', "is not a number"),
        ("a.json", b'{"label": 1e400}', "is not a number"),
        ("a.json", b'{"label": 1.5}', "is not a number"),
        ("a.json", b'{"label": true}', "is not a number"),
        ("a.json", b'{"label": null}', "is not a number"),
        ("a.json", b'{"label": [1]}', "is not a number"),
        ("a.json", b"[" * 100_000, "is not a number"),
        ("a.json", b"\x80\x81", "is not a number"),
        ("a.json", b'["label"]', "no class"),
        ("a.json", b'"label"', "no class"),
    ],
)
def test_strange_classes_are_errors_of_one_line(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    write_members(tmp_path / "train.tar", ("a.png", encoded(1)), (name, content))
    with pytest.raises(DataError, match=says) as error:
        open_source(f"wds:{tmp_path}", "train")
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    "name, content", [("a.cls", b"\xef\xbb\xbf 3\n"), ("a.CLS", b"3"), ("a.json", b'{"label": 3.0}'),
                      ("a.json", '{"label": "3"}'.encode("utf-16"))]
)  # fmt: skip
def test_classes_in_other_spellings_are_read(tmp_path: Path, name: str, content: bytes) -> None:
    write_members(tmp_path / "train.tar", ("a.png", encoded(1)), (name, content))
    assert open_source(f"wds:{tmp_path}", "train")[0][1] == 3


def test_names_may_number_more_classes_than_are_taken_without(tmp_path: Path) -> None:
    write_members(tmp_path / "val.tar", ("a.png", encoded(1)), ("a.cls", b"150000"))
    (tmp_path / "classes.txt").write_text("\n".join(f"id {number}" for number in range(200_000)))
    assert open_source(f"wds:{tmp_path}", "val").class_names[150_000] == "id 150000"


def test_files_of_names_keep_the_numbering(tmp_path: Path) -> None:
    write_members(tmp_path / "val.tar", ("a.png", encoded(1)), ("a.cls", b"1"))
    (tmp_path / "classes.txt").write_bytes("\ufeffca\u2028t\r\ndog\r\n\r\n".encode())
    assert open_source(f"wds:{tmp_path}", "val").class_names == ("ca\u2028t", "dog")
    (tmp_path / "classes.txt").write_bytes(b"caf\xe9\ndog")
    with pytest.raises(DataError, match="cannot be read as UTF-8"):
        open_source(f"wds:{tmp_path}", "val")


def test_one_sample_has_one_image(tmp_path: Path) -> None:
    write_members(tmp_path / "train.tar", ("a.png", encoded(1)), ("a.jpg", encoded(2)), ("a.cls", b"0"))
    with pytest.raises(DataError, match=r"the sample a has two images, a\.png and a\.jpg"):
        open_source(f"wds:{tmp_path}", "train")
    write_members(tmp_path / "train.tar", ("a.png", encoded(1)), ("a.png", encoded(2)), ("a.cls", b"0"))
    with pytest.raises(DataError, match=r"holds a\.png twice"):
        open_source(f"wds:{tmp_path}", "train")


def test_keys_that_are_not_utf8_are_read(tmp_path: Path) -> None:
    write_members(tmp_path / "train.tar", ("caf\udce9.png", encoded(1)), ("caf\udce9.cls", b"0"))
    assert open_source(f"wds:{tmp_path}", "train").describe(0).endswith("caf\udce9")


def test_a_million_shards_are_not_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="more than 1,000,000 shards"):
        open_source(f"wds:{tmp_path}/{{split}}-{{0..99999999999}}.tar", "train")


def test_brackets_in_a_folders_name_are_no_pattern(tmp_path: Path) -> None:
    write_shard(tmp_path / "a[1]" / "train-0.tar", {"1": (1, 0)})
    assert len(open_source(f"wds:{tmp_path / 'a[1]'}", "train")) == 1
    assert len(open_source(f"wds:{tmp_path / 'a[1]'}/train-0.tar", "train")) == 1


def test_members_that_lead_back_end_in_an_error(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.png")
    info.size = 512
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 10 + (-1024 & 0xFFFF).to_bytes(2, "big")  # a size of −1024 bytes, in base 256
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    (tmp_path / "train.tar").write_bytes(tarfile.TarInfo("b").tobuf() + bytes(header) * 3 + bytes(2048))
    with pytest.raises(DataError, match=r"damaged|no images"):
        open_source(f"wds:{tmp_path}", "train")


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
