"""Packed shards in S3, against a server that speaks its protocol."""

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sequencer2d.data.opening import open_source
from sequencer2d.data.packed import stores
from sequencer2d.data.packed.fetching import Patience
from sequencer2d.data.packed.source import Streaming
from sequencer2d.errors import DataError
from tests.data.packed.test_source import contents, with_timeout

boto3 = pytest.importorskip("boto3", reason="needs the extra streaming")
moto = pytest.importorskip("moto.server", reason="needs moto's server of S3", exc_type=ImportError)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The address of the S3 server."""
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def credentials(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An account of its own, in variables that boto3 reads."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))  # neither the user's credentials nor configuration
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    stores._s3_client.cache_clear()
    yield
    stores._s3_client.cache_clear()


@pytest.fixture
def bucket(shards: Path) -> Iterator[str]:
    """The address of the shards in a bucket."""
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="pictures")
    for path in shards.iterdir():
        client.upload_file(str(path), "pictures", f"packed/{path.name}")
    yield "s3://pictures/packed"
    for path in shards.iterdir():
        client.delete_object(Bucket="pictures", Key=f"packed/{path.name}")
    client.delete_bucket(Bucket="pictures")
    client.close()


def test_every_image_comes_back(pictures: Path, bucket: str, streaming: Streaming) -> None:
    assert contents(open_source(bucket, "train", streaming=streaming)) == contents(open_source(str(pictures), "train"))
    assert contents(open_source(f"{bucket}/", "val", streaming=streaming)) == contents(
        open_source(str(pictures), "val")
    )


def test_objects_that_were_uploaded_compressed_are_read(bucket: str, shards: Path, streaming: Streaming) -> None:
    client = boto3.client("s3", region_name="us-east-1")
    for path in shards.iterdir():
        body = gzip.compress(path.read_bytes())
        client.put_object(Bucket="pictures", Key=f"packed/{path.name}", Body=body, ContentEncoding="gzip")
    client.close()
    found = contents(open_source(bucket, "train", streaming=streaming))
    assert found == contents(open_source(shards.as_uri(), "train"))


def test_what_s3_refuses_is_named(
    bucket: str, streaming: Streaming, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def mistake(address: str) -> str:
        stores._s3_client.cache_clear()
        with pytest.raises(DataError) as error:
            open_source(address, streaming=streaming)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "there is no bucket 'nobodys'" in mistake("s3://nobodys/packed")
    assert "s3://pictures/other/index.json is not there" in mistake("s3://pictures/other")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert "needs credentials (The config profile (nobody) could not be found)" in mistake(bucket)
    monkeypatch.delenv("AWS_PROFILE")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in mistake(bucket)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    assert "cannot be reached: Could not connect to the endpoint URL" in mistake(bucket)


def test_an_object_that_is_not_the_one_that_was_packed_is_refused(
    bucket: str, shards: Path, streaming: Streaming
) -> None:
    client = boto3.client("s3", region_name="us-east-1")
    source = open_source(bucket, "train", streaming=streaming)
    content = (shards / "train-000001.tar").read_bytes()
    for body, says in ((content[:-1000], "ends after"), (content[:-1] + b"x", "another checksum")):
        client.put_object(Bucket="pictures", Key="packed/train-000001.tar", Body=body)
        with pytest.raises(DataError, match=f"s3://pictures/packed/train-000001.tar .*{says}"):
            contents(source)
    client.put_object(Bucket="pictures", Key="packed/train-000001.tar", Body=content)
    client.close()
    assert len(contents(source)) == len(source)


def test_a_server_that_stalls_is_given_up(
    bucket: str, shards: Path, streaming: Streaming, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The protocol of GET is plain HTTP: the web server's faults reach boto3 as well."""
    from tests.data.packed.server import serving

    with serving(shards) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.address)
        source = open_source(bucket, "train", streaming=with_timeout(streaming, 1.0))
        server.faults = {"train-000000.tar": ["stall", "half", "busy"]}
        with pytest.raises(DataError, match="503") as error:
            contents(source)
        assert "(attempt 3, the last)" in str(error.value)
        assert len(contents(source)) == len(source)


def test_without_boto3_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"needs the package boto3: pip install 'sequencer2d\[streaming\]'"):
        open_source("s3://pictures/packed", streaming=Streaming(patience=Patience(retries=0)))
