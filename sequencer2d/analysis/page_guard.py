"""What keeps the local page to its own browser tab: an ASGI middleware in front of the server.

Any site that is open in the same browser can send requests to 127.0.0.1, and make a name of its own lead there (DNS
rebinding). The browser states where a request comes from and which name it used; both must be the page's.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

NAMES = ("127.0.0.1", "localhost")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class OwnPageOnly:
    """Refuse requests of other origins (403) and bodies that are too large (413).

    Args:
        app: the server's application.
        port: of the page.
        largest_body: bytes of a request, at most.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], port: int, largest_body: int) -> None:
        self.app, self.largest_body = app, largest_body
        self.hosts = {f"{name}:{port}".encode() for name in NAMES} | (
            {b"127.0.0.1", b"localhost"} if port == 80 else set()
        )
        self.origins = {b"http://" + host for host in self.hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if (
            headers.get(b"host") not in self.hosts
            or headers.get(b"origin", next(iter(self.origins))) not in self.origins
        ) or (headers.get(b"sec-fetch-site") == b"cross-site" and scope.get("method") not in ("GET", "HEAD")):
            await _refuse(scope, send, 403, b"this page answers its own tab only")
        elif not _fits(headers.get(b"content-length", b"0"), self.largest_body):
            await _refuse(scope, send, 413, f"at most {self.largest_body} bytes".encode())
        else:
            await self.app(scope, _limited(receive, self.largest_body), send)


def guard(port: int, largest_upload: int) -> Any:
    """The middleware for a page at `port`, as Starlette takes it; forms around an upload have 1 MiB more."""
    from starlette.middleware import Middleware

    return Middleware(OwnPageOnly, port=port, largest_body=largest_upload + 2**20)


def _fits(length: bytes, most: int) -> bool:
    return length.isdigit() and len(length) < 20 and int(length) <= most


def _limited(receive: Receive, most: int) -> Receive:
    """As `receive`, but a body of unstated length that grows too large ends as if the sender had gone."""
    received = 0

    async def limited() -> MutableMapping[str, Any]:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        return {"type": "http.disconnect"} if message["type"] == "http.request" and received > most else message

    return limited


async def _refuse(scope: Scope, send: Send, status: int, reason: bytes) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(reason)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reason})
