"""What every result file says of the run it comes from: see `benchmarks/results/README.md` for the fields."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "torchvision", "timm", "triton", "numpy")


def provenance(name: str) -> dict[str, Any]:
    """Fields `name`, `date`, `device`, `versions` and `commit` of a result file.

    The commit comes from git or, where the sources stand without their repository, from the environment variable
    `SEQUENCER2D_COMMIT`; "unknown" when neither knows it.
    """
    return {
        "name": name,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "device": device(),
        "versions": versions(),
        "commit": commit(),
    }


def device() -> dict[str, Any]:
    """The accelerators, or the processor where there is none, with the sizes that decide a result."""
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
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
    import sequencer2d

    found = {"python": platform.python_version(), "sequencer2d": sequencer2d.__version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit of the sources, with "+changes" behind it when tracked files differ from it."""
    root = Path(__file__).parent.parent
    try:
        revision = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("SEQUENCER2D_COMMIT", "unknown")
    return revision + ("+changes" if changed else "")


def write_result(result: dict[str, Any], path: Path | None = None) -> Path:
    """Write one result file, atomically: by default `benchmarks/results/<name>.json`."""
    from sequencer2d.files import write_json

    target = path or RESULTS / f"{result['name']}.json"
    write_json(target, result)
    return target


def _git(root: Path, *arguments: str) -> str:
    run = subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True)
    return run.stdout.strip()


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
