"""Compares the kernels that two versions of this repository compile: whether a refactoring changed their code.

    git worktree add /tmp/before COMMIT
    python -m tests.ops.compare_kernels compile /tmp/before /tmp/before.json
    python -m tests.ops.compare_kernels compile . /tmp/after.json
    python -m tests.ops.compare_kernels compare /tmp/before.json /tmp/after.json

Each version compiles the cases of `test_compiling.GPUS` by its own `compile_kernels`. Names, line numbers and debugging
information are taken out of the PTX, and what is left is compared, kernel by kernel. For kernels whose PTX differs, the
registers, spilled bytes, shared memory and instructions of the machine code are printed for both sides, and the program
exits with 1. It needs no GPU, but some minutes of one core for each version.
"""

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton

from tests.ops.test_compiling import GPUS

PTXAS = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"
# What a step of a scan does: products, asynchronous copies, other memory traffic, barriers.
COUNTED = ("mma", "wgmma", "cp.async", "ld.", "st.", "bar.", "tanh", "ex2")

# {a group of kernels: {PTX: what the assembler says of it}}
Kernels = dict[str, dict[str, str]]


def compile_tree(tree: Path) -> Kernels:
    """The kernels of one version for all GPUs."""
    found: Kernels = collections.defaultdict(dict)
    for gpu in GPUS:
        with tempfile.TemporaryDirectory() as cache:
            compile_cases(tree, gpu, cache)
            for path in sorted(Path(cache).rglob("*.ptx")):
                metadata = json.loads(path.with_suffix(".json").read_text())
                group = f"{gpu} {path.stem}, {metadata['num_warps']} warps"
                found[group][normalized(path.read_text(), path.stem)] = resources(path, metadata["shared"])
    return found


def compile_cases(tree: Path, gpu: str, cache: str) -> None:
    """Have a version compile the cases of one GPU into a cache of Triton's."""
    (capability, shared), cases = GPUS[gpu]
    names = ("grid", "hidden", "cell", "dtype_name")
    order = {"capability": capability, "shared": shared}
    order["cases"] = [dict(zip(names, case, strict=True)) for case in cases]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": str(tree), "TRITON_CACHE_DIR": cache}
    command = [sys.executable, "-m", "tests.ops.compile_kernels"]
    done = subprocess.run(
        command, input=json.dumps(order), env=environment, cwd=tree, capture_output=True, text=True, check=True
    )
    answer = json.loads(done.stdout)
    assert not any(answer["problems"].values()), answer["problems"]
    errors = [result["error"] for result in answer["results"] if "error" in result]
    assert not errors, errors


def normalized(ptx: str, name: str) -> str:
    """PTX without debugging information, comments and the kernel's name."""
    ptx = re.sub(r"\.section\s+\.debug.*", "", ptx, flags=re.DOTALL)
    ptx = re.sub(r"//[^\n]*", "", ptx).replace(name, "kernel")
    lines = (line.strip() for line in ptx.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith((".file", ".loc", "$L__tmp", "$L__func")))


def resources(path: Path, shared: int) -> str:
    """What a kernel takes of a GPU, and how many instructions of each kind it has."""
    ptx = path.read_text()
    architecture = re.search(r"\.target (sm_\w+)", ptx)
    assert architecture is not None
    with tempfile.NamedTemporaryFile(suffix=".cubin") as binary:
        command = [str(PTXAS), "-v", f"--gpu-name={architecture[1]}", str(path), "-o", binary.name]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers, spills = re.search(r"Used (\d+) registers", report), re.search(r"(\d+) bytes spill stores", report)
    assert registers is not None
    assert spills is not None
    opcodes = re.findall(r"(?m)^\s*(?:@\S+ )?([a-z][\w.]*)", ptx)
    counts = " ".join(f"{kind} {sum(map(str.startswith, opcodes, [kind] * len(opcodes)))}" for kind in COUNTED)
    return f"{registers[1]} registers, {spills[1]} bytes spilled, {shared} bytes shared, {counts}"


def compare(before: Kernels, after: Kernels) -> list[str]:
    """A paragraph for every group of kernels whose PTX is not the same."""
    different = []
    for group in sorted(before.keys() | after.keys()):
        left, right = before.get(group, {}), after.get(group, {})
        if left.keys() != right.keys():
            gone = sorted(left[ptx] for ptx in left.keys() - right.keys())
            new = sorted(right[ptx] for ptx in right.keys() - left.keys())
            if gone == new:
                different.append(f"{group}: {len(gone)} with other PTX, the same resources and instructions")
            else:
                different.append(
                    "\n  ".join([f"{group}:", *(f"- {line}" for line in gone), *(f"+ {line}" for line in new)])
                )
    return different


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("compile", "compare"))
    parser.add_argument("source", type=Path, help="compile: a version's folder; compare: the file of the one before")
    parser.add_argument("target", type=Path, help="compile: the file to write; compare: the file of the one after")
    arguments = parser.parse_args()
    if arguments.command == "compile":
        arguments.target.write_text(json.dumps(compile_tree(arguments.source.resolve())))
        return 0
    before, after = (json.loads(path.read_text()) for path in (arguments.source, arguments.target))
    different = compare(before, after)
    print(f"{sum(map(len, before.values()))} kernels; {len(different)} groups differ", *different, sep="\n")
    return int(bool(different))


if __name__ == "__main__":
    sys.exit(main())
