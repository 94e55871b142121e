"""Move runs to another machine: pack their folders into a few small files, and unpack them there.

    python -m benchmarks.tiny_imagenet.moving pack bundle/ --runs runs/tiny-imagenet
    python -m benchmarks.tiny_imagenet.moving unpack bundle/ --runs runs/tiny-imagenet

An unfinished run travels with its last checkpoint, optimizer included, and goes on there as if it had not moved. With
`--moments bfloat16` the optimizer's moments are rounded, which saves a third and is written down in the run's row. Of a
finished run its best weights travel, in fp16, and its log. Runs are taken in this order, the most advanced first, as
long as they fit; those left out are named. The largest that fits has about 4.7 M parameters, or 6.5 M with rounded
moments: 14 or 10 bytes a parameter.
"""

import argparse
import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.tiny_imagenet.rows import COMMITS, ROUNDED
from benchmarks.tiny_imagenet.runs import done_steps, is_finished
from sequencer2d.errors import UserError
from sequencer2d.files import atomic_write, read_json, write_json
from sequencer2d.training.checkpoint import FOLDER, LAST
from sequencer2d.training.runfiles import CONFIG

MANIFEST = "manifest.json"
PART_BYTES = 16 * 2**20
BUNDLE_BYTES = 64 * 2**20
_SPARE_BYTES = 2**20
"""Left for what else travels with the bundle: results and messages."""
_BEST = "best.safetensors"
_CHECKPOINT = f"{FOLDER}/{LAST}"
_MOMENTS = ("exp_avg", "exp_avg_sq")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("pack", "unpack"))
    parser.add_argument("bundle", type=Path, metavar="FOLDER", help="folder of the packed files")
    parser.add_argument("--runs", type=Path, default=Path("runs/tiny-imagenet"), metavar="FOLDER")
    parser.add_argument("--names", nargs="+", metavar="RUN", help="pack only these runs' folders")
    parser.add_argument("--moments", choices=("float32", "bfloat16"), default="float32")
    options = parser.parse_args(argv)
    try:
        if options.verb == "unpack":
            lines = unpack(options.bundle, options.runs)
        else:
            lines = pack(options.runs, options.bundle, names=options.names, moments=getattr(torch, options.moments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines))
    return 0


def pack(
    runs: Path, bundle: Path, *, names: list[str] | None = None, moments: torch.dtype = torch.float32
) -> list[str]:
    """Write the runs that fit into `bundle`, a folder of files of at most 16 MiB, 64 MiB in all; say what was done.

    Args:
        runs: folder of the runs' folders.
        bundle: an empty or new folder.
        names: of the runs' folders; None for all.
        moments: float32 for an exact move, bfloat16 for a smaller one.

    Raises:
        UserError: a folder that holds no run, or a bundle that is not empty.
    """
    if bundle.exists() and any(bundle.iterdir()):
        raise UserError(f"{bundle} is not empty; give a new folder")
    if not runs.is_dir():
        raise UserError(f"no folder {runs}; name the folder of the runs with --runs")
    found = names or sorted(path.name for path in runs.iterdir() if (path / CONFIG).is_file())
    for name in found:
        if not (runs / name / CONFIG).is_file():
            raise UserError(f"{runs / name} holds no run; give names of folders of {runs}")
    buffer, lines = io.BytesIO(), []
    with tarfile.open(fileobj=buffer, mode="w|") as archive:
        for name in sorted(found, key=lambda name: (is_finished(runs / name), -done_steps(runs / name), name)):
            contents = _contents(runs / name, moments)
            size = sum(len(content) + 2 * tarfile.BLOCKSIZE for content in contents.values())
            if buffer.tell() + size > BUNDLE_BYTES - _SPARE_BYTES:
                lines.append(f"{name}: left out, its {size / 2**20:.0f} MiB do not fit any more")
                continue
            for file, content in contents.items():
                _add(archive, f"{name}/{file}", content)
            lines.append(f"{name}: packed, {size / 2**20:.1f} MiB")
    _write_parts(buffer.getvalue(), bundle)
    return lines


def unpack(bundle: Path, runs: Path) -> list[str]:
    """Put a bundle's runs into the folder `runs`; a run that is there already is left alone. Says what was done.

    Raises:
        UserError: no bundle, or one that is damaged.
    """
    lines: dict[str, str] = {}
    with tarfile.open(fileobj=io.BytesIO(_read_parts(bundle)), mode="r|") as archive:
        for member in archive:
            name, _, file = member.name.partition("/")
            content = archive.extractfile(member)
            if not file or ".." in Path(member.name).parts or content is None:
                raise UserError(f"{bundle} holds {member.name!r}, which is no file of a run")
            if name not in lines:
                there = (runs / name / CONFIG).exists()
                lines[name] = f"{name}: {'is there already, left alone' if there else 'unpacked'}"
            if lines[name].endswith("unpacked"):
                _put(runs / name / file, content.read())
    return list(lines.values())


def _contents(run: Path, moments: torch.dtype) -> dict[str, bytes]:
    """The files of a run's folder that travel. The configuration comes last: with it the folder holds a run."""
    names = [name for name in ("log.jsonl", ROUNDED, COMMITS, "summary.json") if (run / name).is_file()]
    contents = {name: (run / name).read_bytes() for name in names}
    if is_finished(run):
        contents[_BEST] = _rounded_weights(run / _BEST)
    elif (run / _CHECKPOINT).is_file():
        contents[_CHECKPOINT] = (run / _CHECKPOINT).read_bytes()
        if moments != torch.float32:
            contents[_CHECKPOINT] = _rounded_moments(run / _CHECKPOINT, moments)
            steps = read_json(run / ROUNDED)["steps"] if (run / ROUNDED).exists() else []
            contents[ROUNDED] = json.dumps({"steps": [*steps, done_steps(run)]}).encode()
        if (run / _BEST).is_file():
            contents[_BEST] = _rounded_weights(run / _BEST)
    return {**contents, CONFIG: (run / CONFIG).read_bytes()}


def _rounded_weights(path: Path) -> bytes:
    """A file of weights in fp16, with what it says of its model."""
    from safetensors import safe_open
    from safetensors.torch import save

    with safe_open(path, "pt") as file:
        names = file.keys()
        weights = {name: file.get_tensor(name) for name in names}
        metadata = file.metadata()
    return save({name: w.half() if w.is_floating_point() else w for name, w in weights.items()}, metadata)


def _rounded_moments(path: Path, dtype: torch.dtype) -> bytes:
    """A checkpoint whose optimizer holds its moments in `dtype`."""
    return _with_moments(torch.load(path, map_location="cpu", weights_only=True), dtype)


def _with_moments(checkpoint: dict[str, Any], dtype: torch.dtype) -> bytes:
    for state in checkpoint["optimizer"]["state"].values():
        state.update({name: state[name].to(dtype) for name in _MOMENTS if name in state})
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    return buffer.getvalue()


def _put(path: Path, content: bytes) -> None:
    """Write a file of a run; moments become fp32 again, and the checkpoint gets its file by step too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent.name == FOLDER:
        checkpoint = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        content = _with_moments(checkpoint, torch.float32)
        _write(path.with_name(f"step-{checkpoint['progress']['step']:08d}.pt"), content)
    _write(path, content)


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as file:
        file.write(content)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _write_parts(content: bytes, bundle: Path) -> None:
    bundle.mkdir(parents=True, exist_ok=True)
    parts = {}
    for number, start in enumerate(range(0, len(content), PART_BYTES)):
        part = content[start : start + PART_BYTES]
        parts[f"part-{number}"] = hashlib.sha256(part).hexdigest()
        _write(bundle / f"part-{number}", part)
    write_json(bundle / MANIFEST, {"parts": parts})


def _read_parts(bundle: Path) -> bytes:
    if not (bundle / MANIFEST).is_file():
        raise UserError(f"{bundle} holds no packed runs: it has no {MANIFEST}")
    found = []
    for name, digest in read_json(bundle / MANIFEST)["parts"].items():
        part = (bundle / name).read_bytes() if (bundle / name).is_file() else b""
        if hashlib.sha256(part).hexdigest() != digest:
            raise UserError(f"{bundle / name} is missing or damaged; copy the bundle again")
        found.append(part)
    return b"".join(found)


if __name__ == "__main__":
    sys.exit(main())
