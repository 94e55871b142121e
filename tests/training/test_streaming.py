"""A run that streams its images has the losses of one that reads them from its disk, wherever it is interrupted."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sequencer2d.data.packed.writing import open_splits, pack
from sequencer2d.errors import DataError, Interrupted
from sequencer2d.training.config import TrainConfig
from sequencer2d.training.fields import to_dict
from sequencer2d.training.loop import train
from tests.data.packed.conftest import SHARD_BYTES, make_pictures
from tests.data.packed.server import Server, serving
from tests.processes import Preloaded
from tests.training.conftest import logged

FIELDS: dict[str, Any] = {
    "data__image_size": 16,
    "data__batch_size": 12,
    "data__crop": "random-resized",
    "data__shuffle_shards": 2,
    "data__shard_cache_gb": 4 * SHARD_BYTES / 1e9,
    "data__fetch_retries": 2,
    "run__epochs": 3,
    "model__num_classes": None,
}
"""7 steps an epoch, of 13 shards or so, of which the cache holds 4."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streaming")
    pack(open_splits(make_pictures(folder / "pictures", train=28)), folder / "shards", shard_bytes=SHARD_BYTES)
    return folder / "shards"


@pytest.fixture
def server(shards: Path) -> Iterator[Server]:
    with serving(shards) as running:
        yield running


@pytest.fixture
def build(tiny: Callable[..., TrainConfig], tmp_path: Path) -> Callable[..., TrainConfig]:
    """The configuration of a run by its name and the address of its images."""

    def configuration(name: str, address: str, **fields: Any) -> TrainConfig:
        place = {"data__source": address, "data__shard_cache": str(tmp_path / "cache")}
        return tiny(name, **{**FIELDS, **place, **fields})

    return configuration


def test_a_streamed_run_has_the_losses_of_a_local_one(
    build: Callable[..., TrainConfig], shards: Path, server: Server, tmp_path: Path, preloaded: Preloaded
) -> None:
    server.faults = {f"train-{number:06d}.tar": ["busy", "half"] for number in (1, 4)}
    with pytest.raises(Interrupted):
        train(build("streamed", server.address, data__workers=2, run__max_steps=10))
    shutil.copytree(tmp_path / "streamed", tmp_path / "streamed-by-two")
    assert train(build("streamed", server.address, data__workers=2, run__resume=True))["steps"] == 21
    cached = [path.stat().st_size for path in (tmp_path / "cache").iterdir() if path.is_file()]
    assert 0 < sum(cached) <= 4 * SHARD_BYTES
    assert max(server.requests.values()) > 1, "the cache is too small for the whole set"

    train(build("local", shards.as_uri()))
    assert logged(tmp_path / "streamed") == logged(tmp_path / "local")

    with pytest.raises(Interrupted):
        train(build("local-by-two", shards.as_uri(), run__max_steps=10))
    for name, address in (("local-by-two", shards.as_uri()), ("streamed-by-two", server.address)):
        config = tmp_path / f"{name}.json"
        config.write_text(json.dumps(to_dict(build(name, address, run__resume=True))))
        call = preloaded.start("tests.training.run_from_json", config, "--fork", 2, folder=tmp_path)
        assert call.wait(120) == 0, call.stderr_text()
    assert logged(tmp_path / "streamed-by-two") == logged(tmp_path / "local-by-two")
    assert len(logged(tmp_path / "streamed-by-two")) == len(logged(tmp_path / "local"))


def test_a_run_that_lost_its_server_goes_on_with_another_place_of_the_same_shards(
    build: Callable[..., TrainConfig], shards: Path, server: Server, tmp_path: Path
) -> None:
    server.faults = {"train-000003.tar": ["busy"] * 99}
    fields = {"data__fetch_retries": 0, "run__checkpoint_interval_steps": 1, "run__epochs": 1}
    with pytest.raises(DataError, match="503 Service Unavailable"):
        train(build("run", server.address, **{**fields, "data__workers": 2}))
    assert train(build("run", shards.as_uri(), run__resume="auto", **fields))["steps"] == 7
    train(build("whole", shards.as_uri(), **fields))
    assert logged(tmp_path / "run") == logged(tmp_path / "whole")
