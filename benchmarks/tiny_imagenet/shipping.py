"""Train the model that comes with the package: a plateau that is killed and goes on, then a decay, in a given time.

    python -m benchmarks.tiny_imagenet.shipping --data /data/tiny-imagenet --output out/ --seconds 480

1. The recipe `tiny_imagenet_plateau` trains at a constant rate. It is killed (SIGKILL, no warning) `--stops` times and
   goes on from its last checkpoint; the log lines that it then repeats are compared with those of before.
2. The recipe `tiny_imagenet_decay` makes a model of its weights, in as many epochs as the rest of the time allows.
3. Its last weights are written in fp16 and evaluated, and on a sample of the images at other sizes.

The output folder takes `bundle/` (the plateau's run, exactly as it stands, see `moving`), the weights, and
`tiny-imagenet-shipped.json`. `moving unpack bundle/ --runs WORK` and the same command with `--work WORK` and
`--earlier RESULT` make the plateau longer on another day.
"""

import argparse
import hashlib
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import command_line, origin, write_result
from benchmarks.tiny_imagenet import moving
from benchmarks.tiny_imagenet.rows import read_rows
from benchmarks.tiny_imagenet.runs import done_steps
from benchmarks.tiny_imagenet.segments import (
    DECAY,
    PLATEAU,
    Place,
    Segment,
    median_rate,
    repeated,
    steps_of,
)
from sequencer2d import recipes
from sequencer2d.cli.main import EXIT_INTERRUPTED
from sequencer2d.data.words import class_words
from sequencer2d.training.checkpoint import FOLDER, LAST
from sequencer2d.training.runfiles import read_config

NAME, SCRIPT = "tiny-imagenet-shipped", "benchmarks.tiny_imagenet.shipping"
WEIGHTS = "sequencer2d_n_p4.tiny_imagenet.safetensors"
SIZES = (48, 64, 80, 96, 112, 128, 144, 160, 192)
"""Sides, in pixels, at which the weights are evaluated on a sample: half to double the decay's (Figure 3)."""
SAMPLE = 2500
INPUT_SIZE = 112
"""The side that the weights' file states, chosen before the run. Random crops make objects look larger in training, so
a model is at its best somewhat above the size of its training, which ends at 96²."""
_EVALUATION_S = 30.0
"""Expected seconds of the decay's evaluation, which compiles, and of its end."""
_KILLED = -9


class Failure(Exception):
    """A run that ended otherwise than it should, with what it printed last."""


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_intermixed_args(argv)
    options.output.mkdir(parents=True, exist_ok=True)
    place = Place(options.data, options.work, options.fields)
    started = time.monotonic()
    try:
        stops, start_s = train_plateau(place, options, started)
        seconds = {"plateau": round(time.monotonic() - started, 1)}
        left = started + options.seconds - options.reserve - time.monotonic()
        train_decay(place, options.decay_epochs or epochs_within(place, left - start_s), left)
        seconds["decay"] = round(time.monotonic() - started - seconds["plateau"], 1)
    except Failure as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    row = write_weights(place.run(DECAY), options.output / WEIGHTS, options.data)
    row |= {"seconds": seconds, "stops": stops, **story(place)}
    if options.earlier:
        row |= joined(read_rows(options.earlier)[0], row)
    source, result = origin(NAME, SCRIPT, command_line(SCRIPT, argv)), options.output / f"{NAME}.json"
    write_result({**source, "rows": [row]}, result)  # what the runs did is kept even if time ends before the accuracy
    row |= measure(options.output / WEIGHTS, options.data, options.limit)
    print(f"written to {write_result({**source, 'rows': [row]}, result)}: {row['top1_percent']}")
    return 0


def train_plateau(place: Place, options: argparse.Namespace, started: float) -> tuple[list[dict[str, Any]], float]:
    """Train at a constant rate until its share of the time is over, with hard stops in between.

    Returns what the stops did, and how many seconds the last start took.
    """
    stops: list[dict[str, Any]] = []
    total = options.plateau_share * options.seconds
    for _ in range(options.stops):
        segment = Segment(PLATEAU, place, [])
        code = segment.kill_after(options.kill_after, latest=started + total)
        if code != _KILLED:
            raise Failure(f"{PLATEAU} ended with code {code} before it was killed\n{segment.last_words()}")
        if not done_steps(segment.run):
            raise Failure(f"{PLATEAU} had saved nothing when its time was over; give more --seconds")
        stops.append({"log": place.log(PLATEAU), "step": done_steps(segment.run)})
        print(f"{PLATEAU}: killed; it goes on at step {stops[-1]['step']}", flush=True)
        pack(place, options.output)
    left = started + total - time.monotonic()
    segment = Segment(PLATEAU, place, [f"run.time_limit_s={max(1.0, left)}"])
    if (code := segment.wait()) not in (0, EXIT_INTERRUPTED):
        raise Failure(f"{PLATEAU} ended with code {code}\n{segment.last_words()}")
    pack(place, options.output)
    now = place.log(PLATEAU)
    return [repeated(stop["log"], now, stop["step"]) for stop in stops], segment.start_s or 0.0


def epochs_within(place: Place, seconds: float) -> int:
    """Epochs of the decay that fit beside its evaluation, by the plateau's rate and the pixels of an image."""
    lines, batch = place.log(PLATEAU), read_config(place.run(PLATEAU)).data.batch_size
    larger = (recipes.get(DECAY).data.size[0] / recipes.get(PLATEAU).data.size[0]) ** 2
    last = steps_of(lines)[-1]
    images = last["step"] / last["epoch"] * batch
    return max(2, int((seconds - _EVALUATION_S) * median_rate(lines) / larger / images))


def train_decay(place: Place, epochs: int, seconds: float) -> None:
    """Train the plateau's weights to the end, or as far as `seconds` allow; evaluated at the end alone."""
    print(f"{DECAY}: {epochs} epochs in {seconds:.0f} s", flush=True)
    first = place.run(PLATEAU) / "checkpoints" / "last.pt"
    fields = [f"run.epochs={epochs}", f"run.time_limit_s={max(1.0, seconds)}", f"model.checkpoint={first}"]
    segment = Segment(DECAY, place, [*fields, f"run.eval_interval={epochs}"])
    if (code := segment.wait()) not in (0, EXIT_INTERRUPTED):
        raise Failure(f"{DECAY} ended with code {code}\n{segment.last_words()}")


def pack(place: Place, output: Path) -> None:
    """Put the plateau's run, as it stands, into the output folder; the bundle of before is replaced whole."""
    new, bundle = place.work / "bundle", output / "bundle"
    shutil.rmtree(new, ignore_errors=True)
    moving.pack(place.work, new, names=[PLATEAU])
    shutil.rmtree(bundle, ignore_errors=True)
    shutil.move(new, bundle)


def write_weights(run: Path, path: Path, data: Path) -> dict[str, Any]:
    """Write a run's last weights in fp16, for images of `INPUT_SIZE` and with words for classes; what the file is.

    The last ones, because their choice uses no validation image, and a decay that ran out of time has no others.
    """
    from sequencer2d.models.checkpoints import read_checkpoint, write_checkpoint

    found = read_checkpoint(run / FOLDER / LAST)
    size = {"size": [INPUT_SIZE, INPUT_SIZE]}
    state = {name: w.half() if w.is_floating_point() else w for name, w in found.state_dict.items()}
    said = {"input": found.meta["input"] | size, "class_descriptions": class_words(data, found.meta["class_names"])}
    write_checkpoint(state, found.meta | said, path)
    content = path.read_bytes()
    return {
        "model": found.meta["model"],
        "file": path.name,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "parameters": sum(w.numel() for w in state.values()),
    }


def measure(weights: Path, data: Path, limit: int | None) -> dict[str, Any]:
    """Top-1 (%) of the written weights in fp32: at the file's size on `limit` images or all, at `SIZES` on a sample."""
    from sequencer2d.data.opening import open_source
    from sequencer2d.evaluation.resolution import resolution_sweep
    from sequencer2d.evaluation.subject import load_subject

    subject = load_subject(weights).to("cuda" if torch.cuda.is_available() else "cpu")
    source = open_source("folder", "val", root=str(data))
    native = resolution_sweep(subject, source, sizes=[INPUT_SIZE], limit=limit, batch_size=250)
    swept = resolution_sweep(subject, source, sizes=SIZES, limit=min(limit or SAMPLE, SAMPLE), batch_size=250)
    return {
        "top1_percent": round(100 * float(native.top1[0]), 2),
        "image_size": INPUT_SIZE,
        "images": native.count,
        "sizes": [int(size) for size in swept.sizes],
        "sizes_top1_percent": [round(100 * float(share), 2) for share in swept.top1],
        "sizes_images": swept.count,
    }


def story(place: Place) -> dict[str, Any]:
    """Both runs' rates and curves: [step, loss, learning rate] a log line, [step, top-1] an evaluation."""
    told: dict[str, Any] = {"images_per_second": {}, "epochs": {}, "curve": {}, "top1": {}}
    for part, recipe in (("plateau", PLATEAU), ("decay", DECAY)):
        lines = place.log(recipe)
        told["images_per_second"][part] = round(median_rate(lines), 1)
        told["epochs"][part] = round(steps_of(lines)[-1]["epoch"], 2)
        told["curve"][part] = [[line["step"], round(line["loss"], 4), line["lr"]] for line in steps_of(lines)]
        told["top1"][part] = [[line["step"], line["top1"]] for line in lines if line.get("top1") is not None]
    return told


def joined(earlier: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """The hard stops and the plateau's seconds of an earlier call and of this one, which made its plateau longer."""
    plateau = round(earlier["seconds"]["plateau"] + row["seconds"]["plateau"], 1)
    return {"stops": earlier["stops"] + row["stops"], "seconds": row["seconds"] | {"plateau": plateau}}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fields", nargs="*", metavar="field=value", help="set a field of both recipes")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="train/<class>/* and val/<class>/*")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="for what is kept")
    parser.add_argument("--work", type=Path, default=Path("runs/shipping"), metavar="FOLDER", help="of the runs")
    parser.add_argument(
        "--earlier", type=Path, metavar="FILE", help="result of the call whose plateau this one makes longer"
    )
    parser.add_argument("--seconds", type=float, default=480, metavar="N", help="in all (default: 480)")
    parser.add_argument("--stops", type=int, default=2, metavar="N", help="hard stops of the plateau (default: 2)")
    parser.add_argument(
        "--kill-after", type=float, default=45, metavar="N", help="seconds of training before each (default: 45)"
    )
    parser.add_argument(
        "--plateau-share", type=float, default=0.6, metavar="SHARE", help="of the time, its starts included"
    )
    parser.add_argument("--reserve", type=float, default=35, metavar="N", help="seconds for writing and measuring")
    parser.add_argument("--decay-epochs", type=int, metavar="N", help="default: as many as the time allows")
    parser.add_argument("--limit", type=int, metavar="N", help="evaluate a random sample of N images (default: all)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
