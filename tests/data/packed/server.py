"""A real web server of a folder, which fails in the ways that servers fail when it is told to."""

import gzip
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

STATUS = {"busy": 503, "forbidden": 403, "expired": 401, "range": 416, "moved": 302}
"""Faults that are an answer without the file. The one that has moved is said to be where it was asked for."""


class Server(ThreadingHTTPServer):
    """Serves the files of a folder. `faults[name] = [kind, …]` spoils the next answers for a file, one by one."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.faults: dict[str, list[str]] = {}
        self.requests: Counter[str] = Counter()
        self.delay_s = 0.0
        self.stopped = threading.Event()

    @property
    def address(self) -> str:
        """What `data.source` is."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].rpartition("/")[2]
        self.server.requests[name] += 1
        path = self.server.folder / name
        fault = next(iter(self.server.faults.get(name, [])), "")
        if fault:
            self.server.faults[name].pop(0)
        time.sleep(self.server.delay_s)
        if fault == "drop":
            self.close_connection = True
            return
        if fault == "moved":
            self.send_response(302)
            self.send_header("Location", f"/elsewhere/{name}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if fault in STATUS or not path.is_file():
            self.send_error(STATUS.get(fault, 404))
            return
        self._send(path.read_bytes(), fault)

    def _send(self, content: bytes, fault: str) -> None:
        self.send_response(200)
        if fault in ("gzip", "half gzip"):
            content = gzip.compress(content)[: None if fault == "gzip" else -9]
        if "gzip" in fault or fault == "br":
            self.send_header("Content-Encoding", fault.rpartition(" ")[2])
        self.send_header("Content-Length", str(len(content) + (fault == "long")))
        self.end_headers()
        half = content[: len(content) // 2]
        try:
            if fault == "changed":
                self.wfile.write(half + bytes(byte ^ 1 for byte in content[len(half) :]))
            elif fault == "trickle":
                for byte in content:
                    self.wfile.write(bytes([byte]))
                    if self.server.stopped.wait(0.05):
                        return
            elif fault in ("half", "stall"):
                self.wfile.write(half)
                self.wfile.flush()
                if fault == "stall":
                    self.server.stopped.wait(60)
            else:
                self.wfile.write(content)
                self.close_connection = True
        except (BrokenPipeError, ConnectionResetError):  # the client has given up
            pass


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A server of `folder`, in a thread."""
    server = Server(folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()
