"""`sequencer2d pack`: from a folder to a run that reads its shards from a web server."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.cli.conftest import Outcome
from tests.cli.test_json import TINY_RUN
from tests.data.packed.conftest import make_pictures
from tests.data.packed.server import serving


def test_a_folder_is_packed_served_and_trained_on(
    command: Callable[..., Outcome], mistake: Callable[..., str], tmp_path: Path
) -> None:
    pictures, shards = make_pictures(tmp_path / "pictures"), tmp_path / "shards"
    said = command("pack", pictures, shards)
    assert [line.split()[:3] for line in said.out.splitlines()[1:]] == [["train", "36", "1"], ["val", "12", "1"]]
    assert "its address is data.source then" in said.err
    assert "is there and not empty; give a new folder" in mistake("pack", pictures, shards)
    for inside in (pictures, pictures / "shards"):
        assert "where it would be taken for a class" in mistake("pack", pictures, inside)
    assert not (pictures / "shards").exists()

    fields = [field for field in TINY_RUN if not field.startswith("data.batch_size")]
    cache, run = f"data.shard_cache={tmp_path / 'cache'}", tmp_path / "run"
    with serving(shards) as server:
        source = f"data.source={server.address}"
        command(
            "train", "digits", *fields, source, cache, f"run.output={run}", "data.batch_size=12",
            "model.num_classes=none", "data.image_size=16",
        )  # fmt: skip
        assert json.loads(command("eval", run, "--json").out)["count"] == 12
    unreachable = mistake("eval", run, "--split", "train", "data.fetch_retries=0")
    assert "Connection refused (attempt 1, the last); put the server or the network right" in unreachable


def test_an_address_is_named_where_it_is_wrong(mistake: Callable[..., str], tmp_path: Path) -> None:
    assert "expected file://, http://, https://, s3://" in mistake("train", "digits", "data.source=ftp://host/x")
    address = (tmp_path / "none").as_uri()
    assert "is not there; correct the address" in mistake("train", "digits", f"data.source={address}")
