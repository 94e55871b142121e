"""Two hosts on one machine: network namespaces with an address each, joined by a cable that can be pulled.

Where the system allows no namespaces (they need root or the right to make them), `Hosts.available()` is false.
"""

import contextlib
import os
import shutil
import subprocess
from types import TracebackType

ADDRESSES = ("10.77.0.1", "10.77.0.2")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Hosts:
    """Two namespaces. `launcher(i)` are the words before a command that is to run on host i."""

    def __init__(self) -> None:
        self.names = tuple(f"s2d-{os.getpid()}-{number}" for number in (0, 1))
        self.links = tuple(f"s2d{number}" for number in (0, 1))

    @staticmethod
    def available() -> bool:
        if shutil.which("ip") is None or os.geteuid() != 0:
            return False
        try:
            with Hosts():
                return True
        except subprocess.CalledProcessError:
            return False

    def __enter__(self) -> "Hosts":
        try:
            for name in self.names:
                ip("netns", "add", name)
            first, second = self.names
            ip(
                "-n",
                first,
                "link",
                "add",
                self.links[0],
                "type",
                "veth",
                "peer",
                "name",
                self.links[1],
                "netns",
                second,
            )
            for name, link, address in zip(self.names, self.links, ADDRESSES, strict=True):
                ip("-n", name, "addr", "add", f"{address}/24", "dev", link)
                ip("-n", name, "link", "set", "lo", "up")
                ip("-n", name, "link", "set", link, "up")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in self.names:
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "del", name)

    def launcher(self, host: int) -> list[str]:
        return ["ip", "netns", "exec", self.names[host]]

    def cable(self, plugged: bool) -> None:
        """Pull the cable between the hosts, or plug it in."""
        ip("-n", self.names[1], "link", "set", self.links[1], "up" if plugged else "down")
