"""Processes that share one import of torch: they train or evaluate together, or start in no time."""

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]


def forked(processes: int, action: Callable[[], int]) -> int:
    """Run `action` in forked processes as torchrun starts them; the highest exit code."""
    shared = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    os.environ |= shared | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    children = []
    for rank in range(processes):
        pid = os.fork()
        if not pid:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            _leave(action)
        children.append(pid)
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children)


def free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Preloaded:
    """A process that has imported modules and forks for each call of the `main` of one of them."""

    def __init__(self, *modules: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
        command = [sys.executable, "-m", "tests.processes", *modules]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, module: str, *arguments: object, folder: Path, terminal: str | None = None) -> "Call":
        """Call a module's `main` in a process of its own, whose current folder is `folder`.

        `terminal` is the path of the terminal that it runs in; without one its output goes to files.
        """
        base = folder / f"{time.monotonic_ns()}"
        request = {"module": module, "arguments": list(map(str, arguments)), "base": str(base), "terminal": terminal}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return Call(int(self._process.stdout.readline()), base)

    def close(self) -> None:
        """End the process, and kill the calls that still run."""
        self._process.communicate()


class Call:
    """A forked process, with what tests use of `subprocess.Popen`."""

    def __init__(self, pid: int, base: Path) -> None:
        self.pid, self._base = pid, base

    def poll(self) -> int | None:
        """The exit code; None as long as it runs."""
        path = self._base.with_suffix(".code")
        return int(path.read_text()) if path.exists() else None

    def wait(self, timeout: float) -> int:
        """The exit code, once it has ended."""
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            assert time.monotonic() < end, f"still running after {timeout} s: {self.stderr_text()}"
            time.sleep(0.02)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def stdout_text(self) -> str:
        """What it wrote to standard output so far."""
        return self._base.with_suffix(".out").read_text()

    def stderr_text(self) -> str:
        """What it wrote to standard error so far."""
        return self._base.with_suffix(".err").read_text()


class Child(subprocess.Popen):
    """A process whose standard error goes to a file."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.error_file = folder / f"{time.monotonic_ns()}.err"
        with self.error_file.open("w") as file:
            super().__init__(command, env=environment, cwd=folder, stderr=file, stdout=subprocess.DEVNULL)

    def stderr_text(self) -> str:
        """What it wrote to standard error so far."""
        return self.error_file.read_text()


def serve(modules: list[str]) -> None:
    """Fork for each request on standard input and answer with the number of the process; note exit codes in files."""
    mains = {name: importlib.import_module(name).main for name in modules}
    running: dict[int, Path] = {}
    while True:
        ready, _, _ = select.select([sys.stdin], [], [], 0.02)
        for pid in list(running):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                draft = running[pid].with_suffix(".draft")
                draft.write_text(str(os.waitstatus_to_exitcode(status)))
                draft.rename(running.pop(pid).with_suffix(".code"))
        if ready:
            line = sys.stdin.readline()
            if not line:
                break
            request = json.loads(line)
            pid = os.fork()
            if not pid:
                _enter(request)
                _leave(mains[request["module"]])
            running[pid] = Path(request["base"])
            print(pid, flush=True)
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def _enter(request: dict[str, Any]) -> None:
    """Make a forked process one that was started: its arguments, its folder, and its files or its terminal."""
    base, terminal = Path(request["base"]), request["terminal"]
    sys.argv = [request["module"], *request["arguments"]]
    os.chdir(base.parent)
    paths: list[Any] = [os.devnull, base.with_suffix(".out"), base.with_suffix(".err")]
    if terminal:
        os.setsid()  # the terminal that is opened next then sends its signals here
        paths = [terminal] * 3
        os.environ["TERM"] = "xterm-256color"
        for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "XTERM_VERSION"):
            os.environ.pop(name, None)
    for stream, path in enumerate(paths):
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(file, stream)
        os.close(file)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def _leave(action: Callable[[], int]) -> None:
    """End this process with the exit code that `action` returns, or 1 if it fails."""
    code = 1
    try:
        code = action()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1:])
