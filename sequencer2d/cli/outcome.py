"""What a run on one's own photos comes to: accuracy, mistakes, what to do next."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sequencer2d import terminal

if TYPE_CHECKING:
    from sequencer2d.training.config import TrainConfig


def report(config: TrainConfig, summary: dict[str, Any]) -> None:
    """Judge the best weights of a run on its validation images; write and say what came out.

    Writes `mistakes.csv`, and `mistakes.png` if there are mistakes, into the run's folder.

    Args:
        config: of the run, which trained a classifier on image files.
        summary: what `training.loop.train` returned.
    """
    import numpy as np

    from sequencer2d.analysis.evaluation_report import SHOWN, write_mistakes
    from sequencer2d.cli.common import remark, resolve_device
    from sequencer2d.data.opening import open_split
    from sequencer2d.evaluation.intervals import accuracy_text
    from sequencer2d.evaluation.mistakes import judge
    from sequencer2d.evaluation.subject import load_checkpoint
    from sequencer2d.precisions import autocast_dtype

    output = Path(config.run.output)
    source = open_split(config.data, config.data.val_split)
    if not Path(source.describe(0)).is_file():
        remark("mistakes are shown for images that are files; these are not")
        return
    subject, device = load_checkpoint(output), resolve_device(config.run.device)
    judged = list(judge(subject, source, device=device, amp_dtype=autocast_dtype(config.precision)))
    right = sum(one.right for one in judged)
    wrong = len(judged) - right
    write_mistakes(judged, output, f"{output}: {config.model.name} on {config.data.source}, validation")
    shown, command = shlex.quote(str(output)), "sequencer2d"
    _, targets = source.identities()
    chance = 100 * int(np.bincount(targets).max()) / len(source)
    accuracy = f"{right} of {len(judged)} validation images are right: {accuracy_text(right, len(judged))}"
    beside = f"the largest class alone would be {chance:.1f} %"
    lines = [
        "",
        f"{accuracy}; {beside}; best epoch {summary['best']['epoch']}, {summary['duration_s'] / 60:.1f} min",
        "The best epoch was chosen on these images: expect a little less on new ones.",
        f"  curves      {output / 'curves.png'}",
        f"  mistakes    {output / 'mistakes.csv'}",
    ]
    if wrong:
        lines.append(f"              {output / 'mistakes.png'}: the {min(SHOWN, wrong)} most confident of {wrong}")
    lines += [
        f"  weights     {output / 'best.safetensors'}",
        "what to do next:",
        f"  {command} predict {shown} photo.jpg",
        f"  {command} export {shown} --format onnx",
        f"  {command} eval {shown} --per-class",
    ]
    terminal.write("\n".join(lines))
