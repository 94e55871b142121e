from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sequencer2d.data.packed import fetching
from sequencer2d.data.packed.source import Streaming
from sequencer2d.data.packed.writing import open_splits, pack
from tests.data.packed.server import Server, serving

SHARD_BYTES = 32_000


def make_pictures(root: Path, train: int = 12, val: int = 4) -> Path:
    """Pictures of noise, 16×16 pixels: three classes with so many of each split."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for name in ("cat", "dog", "owl"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 255, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with splits train, of 36 images, and val, of 12."""
    return make_pictures(tmp_path_factory.mktemp("packed") / "pictures")


@pytest.fixture(scope="session")
def shards(pictures: Path) -> Path:
    """The same, packed into shards of 7 images or fewer."""
    pack(open_splits(pictures), output := pictures.parent / "shards", shard_bytes=SHARD_BYTES)
    return output


@pytest.fixture
def server(shards: Path) -> Iterator[Server]:
    """A web server of the shards."""
    with serving(shards) as running:
        yield running


@pytest.fixture
def streaming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Streaming:
    """A cache below `tmp_path`, and little patience."""
    monkeypatch.setattr(fetching, "_FIRST_WAIT_S", 0.01)
    return Streaming(cache=str(tmp_path / "cache"), patience=fetching.Patience(timeout_s=20, retries=2))
