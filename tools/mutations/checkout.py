"""The checkout, and copies of it in which tests run, so that neither side changes under the other."""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path.cwd()
"""The checkout, in whose root the command is run."""


class Copy:
    """A copy of the checkout, changes that are not committed included, in a folder for temporary files."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sequencer2d-mutations-"))
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.folder / name)
        self.clock = int(time.time())

    def write(self, path: str, text: bytes) -> None:
        """Write a file with a time of its own: Python believes a compiled file of the same time and size."""
        self.clock += 2
        (self.folder / path).write_bytes(text)
        os.utime(self.folder / path, (self.clock, self.clock))

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
