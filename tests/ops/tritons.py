"""Compiles the fused kernels with every Triton that the declared range of PyTorch can bring: `./dev tritons`.

    python -m tests.ops.tritons [VERSION ...]

Needs no GPU, but the package index, and some ten minutes of one core. Each Triton goes to a folder of its own, which
stays (`SEQUENCER2D_TRITONS`, by default in the system's folder for temporary files). Exits with 1 if a kernel does not
compile, or if kernels are missing that a Triton should have.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.ops.test_compiling import GPUS, check, check_repeated, compile_kernels, repeated_launches
from tests.ops.test_prepared import KERNELS

# By PyTorch 2.7, 2.8, 2.9, 2.10 and 2.11, 2.12 and 2.13, 2.14, 2.15: the kernels that each can have.
FAMILIES = {
    "3.3.1": {"shared", "blocks"},
    "3.4.0": {"shared", "blocks"},
    "3.5.1": {"shared", "blocks", "products"},
    "3.6.0": {"shared", "blocks", "products", "registers"},
    "3.7.1": {"shared", "blocks", "products", "registers"},
    "3.8.0": {"shared", "blocks", "products", "registers"},
    "3.9.0": {"shared", "blocks", "products", "registers"},
}


def install(version: str) -> Path:
    """A folder with this Triton alone."""
    root = Path(os.environ.get("SEQUENCER2D_TRITONS", Path(tempfile.gettempdir()) / "sequencer2d-tritons"))
    folder = root / version
    if not (folder / "triton").is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        subprocess.run([*command, f"triton=={version}"], check=True)
    return folder


def problems(version: str) -> list[str]:
    """What a Triton fails to do."""
    found = []
    for gpu, ((capability, shared), cases) in GPUS.items():
        started = time.monotonic()
        answer = compile_kernels(capability, shared, cases, install(version))
        assert answer["triton"] == version, answer["triton"]
        missing = {family: why for family, why in answer["problems"].items() if why and family in FAMILIES[version]}
        try:
            check(answer, cases, gpu)
        except AssertionError as error:
            missing["kernels"] = str(error)
        found += [f"{gpu}, {what}: {why}" for what, why in missing.items()]
        print(f"Triton {version}, {gpu}: {time.monotonic() - started:.0f} s", *found[-len(missing) or len(found) :])
    try:
        parts = ((0, 3), (3, 7), (7, 11), (11, None))
        families = {
            name: KERNELS[slice(*part)]
            for name, part in zip(("shared", "registers", "blocks", "products"), parts, strict=True)
        }
        names = [name for family, kernels in families.items() if family in FAMILIES[version] for name in kernels]
        check_repeated(repeated_launches(install(version)), names)
    except AssertionError as error:
        found.append(f"launches through handles: {error}")
        print(f"Triton {version}:", found[-1])
    return found


def main() -> int:
    failed = False
    for version in sys.argv[1:] or FAMILIES:
        failed |= bool(problems(version))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
