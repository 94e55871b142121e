"""Where packed shards lie: a folder, a web server, or S3. `STORES` has a row for each scheme of an address.

A store is plain data, so that it can be sent to worker processes; connections are made where they are used.
"""

import contextlib
import functools
import http.client
import importlib
import importlib.util
import os
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sequencer2d.errors import DataError, first_line, how_to_install

CHUNK = 2**16
_PASSING = (408, 425, 429)
"""Answers below 500 that mean: try again later."""
_NOT_THERE = "is not there; correct the address, or upload every file that sequencer2d pack wrote"


class StoreError(DataError):
    """A file that a store does not deliver.

    Args:
        message: the file's address and what is wrong.
        final: whether another attempt would end in the same way.
    """

    def __init__(self, message: str, *, final: bool) -> None:
        super().__init__(message)
        self.final = final


class Store(Protocol):
    """A place that holds files by name."""

    @property
    def folder(self) -> Path | None:
        """Where the files can be opened in place; None where they must be fetched."""
        ...

    def where(self, name: str) -> str:
        """The file's address, without secrets, for messages."""
        ...

    def chunks(self, name: str, timeout_s: float) -> Iterator[bytes]:
        """The file's content. Raises `StoreError`, also if nothing arrives for `timeout_s` seconds."""
        ...


@dataclass(frozen=True)
class LocalFolder:
    """`file:///folder`: files are opened where they are."""

    address: str

    @property
    def folder(self) -> Path:
        """The folder's path."""
        return Path(urllib.request.url2pathname(urllib.parse.urlsplit(self.address).path))

    def where(self, name: str) -> str:
        """The file's path."""
        return str(self.folder / name)

    def chunks(self, name: str, timeout_s: float) -> Iterator[bytes]:
        """As `Store.chunks`; a disk has no limit of time."""
        try:
            with (self.folder / name).open("rb") as file:
                while chunk := file.read(CHUNK):
                    yield chunk
        except FileNotFoundError:
            raise StoreError(f"{self.where(name)} {_NOT_THERE}", final=True) from None
        except OSError as error:
            raise StoreError(f"{self.where(name)} cannot be read: {error.strerror or error}", final=True) from error


@dataclass(frozen=True)
class WebFolder:
    """`https://server/folder`: a query, such as an access token, goes with every request."""

    address: str
    folder: None = None

    def __post_init__(self) -> None:
        if "@" in urllib.parse.urlsplit(self.address).netloc:
            raise DataError(
                f"{self.where('')} is given with a user and a password, which are not sent; give an address whose "
                "query holds an access token"
            )

    def where(self, name: str) -> str:
        """The file's address without user, password and query."""
        parts = urllib.parse.urlsplit(self.address)
        host = parts.netloc.rpartition("@")[2]
        return urllib.parse.urlunsplit((parts.scheme, host, f"{parts.path.rstrip('/')}/{name}", "", ""))

    def chunks(self, name: str, timeout_s: float) -> Iterator[bytes]:
        """As `Store.chunks`."""
        parts = urllib.parse.urlsplit(self.address)
        path = urllib.parse.quote(f"{parts.path.rstrip('/')}/{name}", safe="/%:@!$&'()*+,;=~")
        address = urllib.parse.urlunsplit(parts._replace(path=path, fragment=""))
        with _web_errors(self.where(name), timeout_s), urllib.request.urlopen(address, timeout=timeout_s) as answer:
            encoding, length = answer.headers.get("Content-Encoding", ""), answer.headers.get("Content-Length", "")
            yield from decoded(_as_long(answer, self.where(name), length), self.where(name), encoding)


def _as_long(answer: http.client.HTTPResponse, where: str, length: str) -> Iterator[bytes]:
    """What arrives of an answer. Raises `StoreError` if that is less than the length that its header states."""
    done = 0
    while chunk := answer.read1(CHUNK):
        done += len(chunk)
        yield chunk
    if length.isdecimal() and done < int(length):
        raise StoreError(f"{where} ends after {done:,} of {int(length):,} bytes", final=False)


def decoded(chunks: Iterator[bytes], where: str, encoding: str) -> Iterator[bytes]:
    """Content without the encoding that a server, or whoever uploaded a file, gave it for the transfer: none or gzip.

    Raises `StoreError` for another encoding, and for what is not encoded so.
    """
    if encoding.strip().lower() in ("", "identity", "aws-chunked"):
        yield from chunks
        return
    if encoding.strip().lower() not in ("gzip", "x-gzip"):
        raise StoreError(f"{where} is sent as {encoding!r}: let the server send files as they are", final=True)
    gunzip = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        for chunk in chunks:
            yield gunzip.decompress(chunk, CHUNK)
            while gunzip.unconsumed_tail:
                yield gunzip.decompress(gunzip.unconsumed_tail, CHUNK)
        if not gunzip.eof:
            raise StoreError(f"{where} ends in the middle of its gzip encoding", final=False)
    except zlib.error as error:
        raise StoreError(f"{where} is said to be gzip and is not: {first_line(error)}", final=False) from error


@contextlib.contextmanager
def _web_errors(where: str, timeout_s: float) -> Iterator[None]:
    """Turn what `urllib` raises into `StoreError`s."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        final = error.code < 500 and error.code not in _PASSING
        raise StoreError(f"{where} {_refusal(error.code, error.reason)}", final=final) from error
    except (http.client.HTTPException, OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, TimeoutError):
            raise _stalled(where, timeout_s) from error
        malformed = isinstance(error, (http.client.InvalidURL, ValueError))
        raise StoreError(f"{where} cannot be reached: {_reason(reason)}", final=malformed) from error


def _refusal(code: int, reason: object) -> str:
    if code == 404:
        return _NOT_THERE
    if code in (401, 403):
        return f"is refused ({code} {reason}); make it readable, or give an address that holds its access token"
    return f"cannot be read: the server answers {code} {next(iter(str(reason).splitlines()), '')}"


def _stalled(where: str, timeout_s: float) -> StoreError:
    return StoreError(f"{where} stalls: nothing has arrived for {timeout_s:g} s", final=False)


def _reason(error: object) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return first_line(error) if isinstance(error, BaseException) else str(error)


@dataclass(frozen=True)
class Bucket:
    """`s3://bucket/prefix`, read by boto3: credentials, region and endpoint are those that AWS's own tools take."""

    address: str
    folder: None = None

    def __post_init__(self) -> None:
        if importlib.util.find_spec("boto3") is None:
            raise DataError(f"{self.address} needs the package boto3: {how_to_install('streaming')}")

    def where(self, name: str) -> str:
        """The object's address."""
        return f"{self.address.rstrip('/')}/{name}"

    def chunks(self, name: str, timeout_s: float) -> Iterator[bytes]:
        """As `Store.chunks`."""
        parts = urllib.parse.urlsplit(self.where(name))
        with _s3_errors(self.where(name), parts.netloc, timeout_s):
            client = _s3_client(os.getpid(), timeout_s)
            answer = client.get_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"))
            with contextlib.closing(answer["Body"]) as body:
                read = iter(functools.partial(body.read, CHUNK), b"")
                yield from decoded(read, self.where(name), answer.get("ContentEncoding", ""))


@functools.lru_cache(maxsize=1)
def _s3_client(process: int, timeout_s: float) -> Any:
    """A client of this process: connections must not be shared with the process that forked it."""
    boto3, config = importlib.import_module("boto3"), importlib.import_module("botocore.config")
    # Attempts are counted by `fetching`, which also sees answers that break off.
    settings = config.Config(connect_timeout=timeout_s, read_timeout=timeout_s, retries={"total_max_attempts": 1})
    return boto3.session.Session().client("s3", config=settings)


@contextlib.contextmanager
def _s3_errors(where: str, bucket: str, timeout_s: float) -> Iterator[None]:
    """Turn what boto3 raises into `StoreError`s."""
    aws = importlib.import_module("botocore.exceptions")
    unusable = (
        aws.CredentialRetrievalError,
        aws.NoCredentialsError,
        aws.PartialCredentialsError,
        aws.ProfileNotFound,
        aws.TokenRetrievalError,
    )
    try:
        yield
    except unusable as error:
        raise StoreError(
            f"{where} needs credentials ({_reason(error)}); set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or give a public bucket's https:// address",
            final=True,
        ) from error
    except aws.ClientError as error:
        raise _s3_refusal(where, bucket, error) from error
    except (aws.ReadTimeoutError, aws.ConnectTimeoutError) as error:
        raise _stalled(where, timeout_s) from error
    except (aws.BotoCoreError, http.client.HTTPException, OSError) as error:
        final = isinstance(error, (aws.ParamValidationError, aws.NoRegionError, aws.InvalidRegionError))
        raise StoreError(f"{where} cannot be reached: {_reason(error)}", final=final) from error


def _s3_refusal(where: str, bucket: str, error: Any) -> StoreError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code == "NoSuchBucket":
        return StoreError(
            f"{where}: there is no bucket {bucket!r}; correct its name, or set AWS_ENDPOINT_URL_S3 where it is not "
            "Amazon's",
            final=True,
        )
    if code in ("NoSuchKey", "404"):
        return StoreError(f"{where} {_NOT_THERE}", final=True)
    if status in (401, 403):
        return StoreError(
            f"{where} is refused ({code}): it is not there, or the credentials may not read it; check AWS_PROFILE "
            "and the bucket's policy",
            final=True,
        )
    passing = status >= 500 or status in _PASSING or code in ("SlowDown", "RequestTimeout")
    return StoreError(f"{where} cannot be read: S3 answers {code or status}", final=not passing)


STORES: dict[str, Callable[[str], Store]] = {
    "file": LocalFolder,
    "http": WebFolder,
    "https": WebFolder,
    "s3": Bucket,
}
"""Scheme of an address → what reads there."""


def open_store(address: str) -> Store:
    """The store of an address. Raises `DataError` for a scheme that has none, or a package that it lacks."""
    scheme = address.partition("://")[0].lower()
    if scheme not in STORES:
        raise DataError(
            f"no data can be read from {scheme}:// addresses; expected {', '.join(f'{name}://' for name in STORES)}"
        )
    return STORES[scheme](address)
