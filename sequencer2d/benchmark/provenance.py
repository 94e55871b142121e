"""Where numbers come from: the device, the versions of what they depend on, the sources."""

import datetime as dt
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import sequencer2d

PACKAGES = ("torch", "torchvision", "timm", "triton", "numpy")
PACKAGE_ROOT = Path(sequencer2d.__file__).parent
SPEED_LAYERS = ("ops", "nn", "models")


def provenance(name: str) -> dict[str, Any]:
    """Fields `name`, `date`, `device`, `versions` and `commit` of a result file."""
    return {"name": name, "date": now(), "device": device(), "versions": versions(), "commit": commit()}


def now() -> str:
    """The time, UTC, ISO 8601, to the second."""
    return dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")


def device(kind: str | None = None) -> dict[str, Any]:
    """The accelerators, or the processor, with the sizes that decide a result.

    Args:
        kind: "cuda" or "cpu"; None for CUDA where there is some.
    """
    if kind != "cpu" and torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        return {
            "kind": "cuda",
            "name": properties.name,
            "count": torch.cuda.device_count(),
            "memory_mib": properties.total_memory // 2**20,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return {"kind": "cpu", "name": _processor_name(), "count": os.cpu_count(), "threads": torch.get_num_threads()}


def versions() -> dict[str, str]:
    """Versions of Python, of the package and of what its results depend on."""
    found = {"python": platform.python_version(), "sequencer2d": sequencer2d.__version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit of the sources, with "+changes" behind it when tracked files differ from it.

    It comes from git or, where the sources stand without their repository, from the environment variable
    `SEQUENCER2D_COMMIT`; "unknown" when neither knows it.
    """
    root = PACKAGE_ROOT.parent
    try:
        if not (root / ".git").exists():  # installed: a repository further up is somebody else's
            raise FileNotFoundError(root / ".git")
        revision = git(root, "rev-parse", "HEAD")
        changed = git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("SEQUENCER2D_COMMIT", "unknown")
    return revision + ("+changes" if changed else "")


def source_digest() -> str:
    """Twelve digits that change whenever a source file on which our models' speed depends does (ops, nn, models)."""
    digest = hashlib.sha256()
    for layer in SPEED_LAYERS:
        for path in sorted((PACKAGE_ROOT / layer).rglob("*.py")):
            digest.update(str(path.relative_to(PACKAGE_ROOT)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def git(root: Path, *arguments: str) -> str:
    """What git prints for `arguments` in the folder `root`."""
    run = subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True)
    return run.stdout.strip()


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
