"""Fetching by a clock and a store of the test's own: how long it waits, how often it tries, what it takes for whole."""

import hashlib
import io
from collections.abc import Iterator

import pytest

from sequencer2d.data.packed import fetching
from sequencer2d.data.packed.fetching import Item, Patience, fetch, read_whole
from sequencer2d.data.packed.stores import CHUNK, StoreError, _s3_refusal


class Clock:
    """Time that passes when somebody sleeps or a chunk arrives."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


class Chunks:
    """A store whose every file is these (seconds, bytes), after as many failures as are asked for."""

    folder = None

    def __init__(self, clock: Clock, *chunks: tuple[float, bytes], failures: int = 0, final: bool = False) -> None:
        self.clock, self.all, self.failures, self.final = clock, chunks, failures, final
        self.tried = 0

    def where(self, name: str) -> str:
        return f"there/{name}"

    def chunks(self, name: str, timeout_s: float) -> Iterator[bytes]:
        self.tried += 1
        if self.tried <= self.failures:
            raise StoreError("broken", final=self.final)
        for seconds, chunk in self.all:
            self.clock.now += seconds
            yield chunk


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(fetching, "time", made)
    return made


def item(content: bytes) -> Item:
    return Item("x.tar", len(content), hashlib.sha256(content).hexdigest())


def test_waits_double_up_to_half_a_minute(clock: Clock) -> None:
    store = Chunks(clock, (0, b"abc"), failures=8)
    assert read_whole(store, "x", Patience(30, retries=8), 3) == b"abc"
    assert clock.slept == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_attempts_end_with_the_last_retry_or_a_final_fault(clock: Clock) -> None:
    store = Chunks(clock, failures=9)
    with pytest.raises(StoreError, match=r"broken \(attempt 3, the last\)") as found:
        read_whole(store, "x", Patience(30, retries=2), 3)
    assert (store.tried, len(clock.slept), found.value.final) == (3, 2, True)
    store = Chunks(clock, failures=9, final=True)
    with pytest.raises(StoreError, match=r"^broken$"):
        read_whole(store, "x", Patience(30, retries=2), 3)
    assert store.tried == 1


def test_a_small_file_has_a_limit(clock: Clock) -> None:
    store = Chunks(clock, (0, b"ab"), (0, b"cd"))
    assert read_whole(store, "x", Patience(), 4) == b"abcd"
    with pytest.raises(StoreError, match="there/x is longer than 3 bytes") as found:
        read_whole(store, "x", Patience(), 3)
    assert found.value.final


def test_a_file_is_written_from_its_beginning_by_every_attempt(clock: Clock) -> None:
    file = io.BytesIO(b"what an earlier attempt left")
    file.seek(5)
    fetch(Chunks(clock, (0, b"one"), (0, b"two"), failures=1), item(b"onetwo"), file, Patience())
    assert file.getvalue()[:6] == b"onetwo"


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"onetw", "ends after 5 of 6"), (b"onetwo!", "goes on after all of 6"), (b"onetwO", "has another checksum")],
)
def test_what_is_not_the_file_of_the_index_is_refused(clock: Clock, content: bytes, says: str) -> None:
    with pytest.raises(StoreError, match=f"there/x.tar {says}"):
        fetch(Chunks(clock, (0, content)), item(b"onetwo"), io.BytesIO(), Patience(retries=0))


def test_a_trickle_is_given_up_and_a_slow_stream_is_not(clock: Clock) -> None:
    """In each 10 s a chunk of 64 KiB must arrive in all; exactly that is enough, and so is any time within the 10 s."""
    slow = [(10.5, b"x" * CHUNK)] * 3
    fetch(Chunks(clock, *slow), item(b"x" * 3 * CHUNK), io.BytesIO(), Patience(10, retries=0))
    in_time = [(5.0, b"x"), (5.0, b"x")]
    fetch(Chunks(clock, *in_time), item(b"xx"), io.BytesIO(), Patience(10, retries=0))
    trickle = [*slow, (10.5, b"x" * (CHUNK - 1))]
    with pytest.raises(StoreError, match=f"stalls: {CHUNK - 1} bytes in 10 s"):
        fetch(Chunks(clock, *trickle), item(b"x" * (4 * CHUNK - 1)), io.BytesIO(), Patience(10, retries=0))


class Refusal(Exception):
    """What boto3 raises, in the part that is read."""

    def __init__(self, code: str = "", status: int = 0) -> None:
        super().__init__()
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


@pytest.mark.parametrize(
    ("code", "status", "final", "says"),
    [
        ("NoSuchBucket", 404, True, "there is no bucket 'mine'"),
        ("NoSuchKey", 404, True, "s3://mine/x is not there"),
        ("404", 404, True, "s3://mine/x is not there"),
        ("AccessDenied", 403, True, r"is refused \(AccessDenied\)"),
        ("InvalidToken", 401, True, r"is refused \(InvalidToken\)"),
        ("InternalError", 500, False, "S3 answers InternalError"),
        ("", 503, False, "S3 answers 503"),
        ("", 429, False, "S3 answers 429"),
        ("SlowDown", 400, False, "S3 answers SlowDown"),
        ("RequestTimeout", 400, False, "S3 answers RequestTimeout"),
        ("InvalidRequest", 499, True, "S3 answers InvalidRequest"),
        ("", 402, True, "S3 answers 402"),
    ],
)
def test_what_s3_refuses_is_told_and_tried_again_where_it_may_pass(
    code: str, status: int, final: bool, says: str
) -> None:
    found = _s3_refusal("s3://mine/x", "mine", Refusal(code, status))
    assert found.final is final
    with pytest.raises(StoreError, match=says):
        raise found


def test_an_answer_of_s3_without_details_is_final() -> None:
    error = Refusal()
    error.response = {}
    assert _s3_refusal("s3://mine/x", "mine", error).final
