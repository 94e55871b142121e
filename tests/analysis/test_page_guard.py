"""The guard of the local page answers as HTTP asks: a status, a length, a reason; a websocket is closed."""

import asyncio

import pytest

from sequencer2d.analysis.page_guard import OwnPageOnly, _fits, guard


def answers(scope: dict, *messages: dict) -> tuple[list[dict], list[dict]]:
    """What the guard of port 7860 with bodies of 10 bytes sends, and what reaches the application."""
    sent, reached, waiting = [], [], list(messages)

    async def app(scope, receive, send):
        reached.append(scope)
        while waiting:
            reached.append(await receive())

    async def receive():
        return waiting.pop(0)

    async def send(message):
        sent.append(message)

    asyncio.run(OwnPageOnly(app, 7860, 10)(scope, receive, send))
    return sent, reached


def request(host: bytes = b"localhost:7860", kind: str = "http", method: str = "POST", **headers: bytes) -> dict:
    named = [(b"host", host), *((name.replace("_", "-").encode(), value) for name, value in headers.items())]
    return {"type": kind, "method": method, "headers": named}


def test_a_refusal_has_its_status_its_length_and_its_reason() -> None:
    sent, reached = answers(request(b"evil.example:7860"))
    reason = b"this page answers its own tab only"
    assert reached == []
    assert sent == [
        {
            "type": "http.response.start",
            "status": 403,
            "headers": [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"34")],
        },
        {"type": "http.response.body", "body": reason},
    ]
    sent, _ = answers(request(content_length=b"11"))
    assert (sent[0]["status"], sent[1]["body"]) == (413, b"at most 10 bytes")


def test_a_websocket_is_closed_for_a_breach_of_policy() -> None:
    assert answers(request(b"evil.example:7860", "websocket"))[0] == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize(
    ("scope", "passes"),
    [
        (request(), True),
        (request(b"127.0.0.1:7860", origin=b"http://127.0.0.1:7860"), True),
        (request(b"127.0.0.1:7861"), False),
        (request(b"localhost"), False),
        (request(origin=b"https://localhost:7860"), False),
        (request(sec_fetch_site=b"cross-site"), False),
        (request(sec_fetch_site=b"cross-site", method="GET"), True),
        (request(sec_fetch_site=b"cross-site", method="HEAD"), True),
        (request(sec_fetch_site=b"same-origin"), True),
        (request(content_length=b"10"), True),
        ({"type": "lifespan", "headers": []}, True),
    ],
)
def test_only_the_pages_own_requests_pass(scope: dict, passes: bool) -> None:
    assert bool(answers(scope)[1]) == passes


def test_port_80_may_be_left_out_of_the_host() -> None:
    assert b"localhost" in OwnPageOnly(None, 80, 1).hosts  # type: ignore[arg-type]
    assert b"localhost" not in OwnPageOnly(None, 8080, 1).hosts  # type: ignore[arg-type]


def test_a_body_of_unstated_length_ends_at_the_limit() -> None:
    parts = [{"type": "http.request", "body": bytes(size)} for size in (6, 4, 1)]
    _, reached = answers(request(), *parts)
    assert reached[1:] == [*parts[:2], {"type": "http.disconnect"}]


def test_a_length_is_a_number_within_the_limit() -> None:
    assert _fits(b"10", 10)
    assert not _fits(b"11", 10)
    assert not _fits(b"-1", 10)
    assert not _fits(b"1" * 20, 10**30)
    assert _fits(b"1" * 19, 10**30)


def test_a_form_around_an_upload_may_have_a_mebibyte_more() -> None:
    pytest.importorskip("starlette")
    assert guard(7860, 2**20).kwargs == {"port": 7860, "largest_body": 2**21}
