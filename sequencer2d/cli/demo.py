"""`sequencer2d demo`: train on the digits, evaluate, predict, draw."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sequencer2d import terminal
from sequencer2d.cli.common import need, new_folder, writable_path
from sequencer2d.cli.train import resolve

if TYPE_CHECKING:
    from sequencer2d.evaluation.predict import Prediction

SHOWN = 32
PHOTO_SIZE = 64
"""Pixels of a photo that the model of digits is shown."""


EPILOG = """\
examples:
  sequencer2d demo                                   into runs/demo
  sequencer2d demo --output runs/a run.epochs=5      shorter, less accurate"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "demo",
        help="see it work in minutes: train on handwritten digits on the CPU",
        description=(
            "Train a small Sequencer2D on scikit-learn's 1,797 handwritten digits on the CPU (a few minutes, no "
            "download), evaluate it on test digits, predict some of them and draw curves and predictions. At the end "
            "hidden states run over scikit-learn's two photos, and the model that comes with the package names them."
        ),
        epilog=EPILOG,
    )
    parser.add_argument("fields", nargs="*", metavar="field=value", help="set a field of the recipe 'digits'")
    parser.add_argument(
        "--output",
        type=writable_path,
        metavar="FOLDER",
        help="folder to write to (default: the first new one of runs/demo, -2, …)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    for package in ("sklearn", "matplotlib"):
        need(package, "train", "the demo")
    from sequencer2d.training.loop import train

    started = time.perf_counter()
    output = arguments.output or new_folder(Path("runs"), "demo")
    config = resolve("digits", [f"run.output={output}", "run.device=cpu", *arguments.fields], None)
    train(config)
    predictions, truths = predict_digits(output)
    photographs = see_photographs(output)
    _report(output, predictions, truths, time.perf_counter() - started)
    _report_photographs(output, photographs)
    return 0


def predict_digits(run_folder: Path) -> tuple[list[Prediction], list[str]]:
    """Write test digits as image files, predict them with the run's model, draw that; (predictions, truths)."""
    from sequencer2d.analysis.predictions import draw_predictions
    from sequencer2d.data.opening import open_source
    from sequencer2d.evaluation.predict import predict
    from sequencer2d.evaluation.subject import load_checkpoint

    digits = open_source("digits", "test")
    folder = run_folder / "images"
    folder.mkdir(exist_ok=True)
    paths, truths = [], []
    for number in range(SHOWN):
        index = number * len(digits) // SHOWN
        image, target = digits[index]
        paths.append(folder / f"{index:03d}.png")
        truths.append(digits.class_names[target])
        image.save(paths[-1])
    subject = load_checkpoint(run_folder)
    predictions = list(predict(subject.model, paths, subject.data, class_names=subject.class_names, top_k=3))
    title = f"{run_folder}: {subject.architecture}, digits of the test set"
    draw_predictions(predictions, truths, run_folder / "predictions.png", title=title)
    return predictions, truths


def see_photographs(run_folder: Path) -> list[Prediction]:
    """Draw the hidden states of a model as they run over scikit-learn's two photos; what the model sees in them.

    The model is the one that comes with the package. Without one it is the run's own, which knows digits alone: its
    states are drawn, and it is not asked what the photos show.
    """
    from PIL import Image
    from sklearn.datasets import load_sample_images

    from sequencer2d.analysis.animation import running_animation
    from sequencer2d.analysis.hidden_states import hidden_states
    from sequencer2d.evaluation.pixels import read_images
    from sequencer2d.evaluation.predict import class_names_of, predict
    from sequencer2d.evaluation.subject import load_checkpoint
    from sequencer2d.models.shipped import SHIPPED, default_model

    folder = run_folder / "photos"
    folder.mkdir(exist_ok=True)
    photos = load_sample_images()
    paths = [folder / Path(name).name for name in photos.filenames]  # they are paths within scikit-learn
    for path, pixels in zip(paths, photos.images, strict=True):
        Image.fromarray(pixels).save(path)
    subject = load_checkpoint(default_model()) if SHIPPED else load_checkpoint(run_folder).adapted(PHOTO_SIZE)
    large = subject.resized(2 * max(subject.data.size)) if SHIPPED else subject
    for path, image in zip(paths, read_images([str(path) for path in paths], large.data), strict=True):
        running_animation(hidden_states(large, image), path.with_suffix(".gif"), side=168, every=2)
    if not SHIPPED:
        return []
    return list(predict(subject.model, paths, subject.data, class_names=class_names_of(subject.model), top_k=3))


def _report_photographs(output: Path, predictions: list[Prediction]) -> None:
    whose = "the model that comes with the package" if predictions else "the model of digits, which has seen no photo"
    terminal.write(f"two photographs, and the states of {whose}, as they run over them:")
    for path in sorted((output / "photos").glob("*.gif")):
        terminal.write(f"  {path}")
    for prediction in predictions:
        seen = ", ".join(f"{guess.name} {guess.probability:.0%}" for guess in prediction.found.guesses)
        terminal.write(f"  {Path(prediction.path).name}: {seen}")


def _report(output: Path, predictions: list[Prediction], truths: list[str], seconds: float) -> None:
    from sequencer2d.files import read_json

    summary = read_json(output / "summary.json")
    firsts = [prediction.found.guesses[0].name for prediction in predictions]
    right = sum(first == truth for first, truth in zip(firsts, truths, strict=True))
    folder = shlex.quote(str(output))
    last, best = summary["final"]["top1"], summary["best"]["top1"]
    terminal.write(f"\ntest accuracy {last:.2f} % after the last epoch, {best:.2f} % after the best")
    terminal.write(f"{right} of the {len(truths)} digits drawn are right; {seconds:.0f} s in all")
    terminal.write(f"  curves       {output / 'curves.png'}")
    terminal.write(f"  predictions  {output / 'predictions.png'}")
    terminal.write(f"  checkpoint   {output / 'best.safetensors'}")
    terminal.write("try it yourself:")
    terminal.write(f"  {_command()} eval {folder}")
    terminal.write(f"  {_command()} predict {folder} {folder}/images --top 3")


def _command() -> str:
    """How this command was called, as far as it can be repeated."""
    called, on_path = Path(sys.argv[0]), shutil.which("sequencer2d")
    if called.name != "sequencer2d":
        return "python -m sequencer2d"
    return "sequencer2d" if on_path and called.exists() and called.samefile(on_path) else shlex.quote(str(called))
