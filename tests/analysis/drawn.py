"""One figure of each kind, from numbers made up for it.

    python -m tests.analysis.drawn     # writes drawn.json anew

`drawn.json` holds what each of them contains (`benchmarks.contents`). Any change of a figure shows there: look at the
difference before it is committed.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contents import contents
from sequencer2d.analysis.attribution import Attribution
from sequencer2d.analysis.charts import attack_chart, calibration_chart, corruption_chart, resolution_chart
from sequencer2d.analysis.cka import Similarity
from sequencer2d.analysis.erf import ReceptiveField
from sequencer2d.analysis.erf_methods import METHODS
from sequencer2d.analysis.figures import (
    attribution_figure,
    hidden_state_figure,
    memory_figure,
    receptive_field_grid,
    similarity_figure,
)
from sequencer2d.analysis.hidden_states import HiddenStates
from sequencer2d.analysis.layout import Layout
from sequencer2d.analysis.memory import BINS, MemoryReach, Reach
from sequencer2d.analysis.paper_figures import Point, accuracy_figure, resolution_figure
from sequencer2d.benchmark.published import Published
from sequencer2d.evaluation.attacks import AttackResult
from sequencer2d.evaluation.mce import CorruptionResult
from sequencer2d.evaluation.resolution import ResolutionResult

RECORD = Path(__file__).with_suffix(".json")


def receptive_fields(*, alone: bool = False) -> Any:
    y, x = np.mgrid[:12, :12] - 6
    maps = [np.where((x == 0) | (y == 0), 4.0, 0.25), np.exp(-(x**2 + y**2) / 9.0), np.full((12, 12), 1.0)]
    layout = Layout("NHWC", 6, 6, 0)
    fields = [
        ReceptiveField(f"m{i // 2}", f"b{i}", METHODS["energy"], m, (6, 6, 8, 8), layout, 5) for i, m in enumerate(maps)
    ]
    return receptive_field_grid([fields[:2], fields[2:]] if not alone else [fields[:1]])


def states() -> HiddenStates:
    """A vertical LSTM and a horizontal one, of two units each, on two rows and three columns of tokens."""
    maps = np.arange(4 * 2 * 3 * 2, dtype=np.float32).reshape(4, 2, 3, 2) / 24 - 1
    image = np.full((8, 12, 3), 100, dtype=np.uint8)
    return HiddenStates("m", "b", image, maps, maps[0] * 2, (0, 1, 2, 3))


def reach() -> MemoryReach:
    """Two blocks, of four scans each; half-lives double with the scan."""
    histogram = np.zeros(BINS)
    histogram[30:40] = 0.1
    scans = [
        Reach(
            f"stages.{block}.blocks.0",
            scan,
            4.0 * (block + 1),
            histogram,
            2.0**scan * np.arange(1, 6),
            8 // (block + 1),
        )
        for block in range(2)
        for scan in range(4)
    ]
    return MemoryReach("m", tuple(scans), 7)


def similarities() -> Any:
    names = tuple(f"stages.0.blocks.{number}" for number in range(25))
    values = np.linspace(0, 1, 50).reshape(2, 25)
    return similarity_figure([Similarity(("m", "n"), (("stages.0.blocks.0", "stem"), names), values, 64)])


def attributions() -> Any:
    maps = np.linspace(0, 1, 8, dtype=np.float32).reshape(2, 2, 2)
    pixels = np.zeros((2, 2, 2, 3), dtype=np.uint8)
    classes, probabilities = np.asarray([0, 1]), np.asarray([0.996, 0.25])
    result = Attribution("m", "b", maps, pixels, classes, probabilities, classes, probabilities, np.asarray([0, 0]))
    return attribution_figure(result, ["n01440764", "dog"])


def attributions_of_a_class() -> Any:
    """Maps that speak for a class that is not predicted, of an image without a label."""
    maps, pixels = np.zeros((1, 2, 2), dtype=np.float32), np.zeros((1, 2, 2, 3), dtype=np.uint8)
    result = Attribution("m", "b", maps, pixels, *(np.asarray([value]) for value in (1, 0.1, 0, 0.9)))
    return attribution_figure(result, ["cat", "dog"])


def resolutions() -> Any:
    sizes = np.asarray([16, 32, 64])
    results = [
        ResolutionResult(name, 32, sizes, np.asarray([0.25, 0.5, 0.4]) / n, 9) for n, name in ((1, "m"), (2, "n"))
    ]
    return resolution_chart(results)


def corruptions(clean: float = 0.125) -> list[CorruptionResult]:
    """One model under two corruptions at three severities."""
    error = np.asarray([[0.2, 0.54, 0.9], [0.1, 0.555, 0.7]])
    return [
        CorruptionResult(
            "m", ("fog", "jpeg_compression"), (1, 3, 5), error, error / 2, error / 4, clean, 0.75, 0.05, 11
        )
    ]


def attacks() -> Any:
    epsilons, accuracy = np.asarray([1, 4]) / 255, np.asarray([0.5, 0.125])
    options = ((("fgsm", 1, epsilons, False)), ("pgd", 5, epsilons / 2, True))
    return attack_chart(
        [AttackResult("m", n, epsilons, accuracy, 0.75, steps, sizes, r, 13) for n, steps, sizes, r in options]
    )


def figure_1() -> Any:
    """Two Sequencers, one model of each other family, and two that were measured, one of them of an unknown family."""
    families = ("Trans.", "CNN", "GMLP", "LMLP", "FFT")
    points = [Point(family, 40, 60 + 4 * n, family, family, "paper") for n, family in enumerate(families)]
    points += [Point("L", 50, 90, "Seq.", "Sequencer2D", "paper"), Point("S", 10, 88, "Seq.", "Sequencer2D", "paper")]
    points += [Point("mine", 20, 64, "Seq.", "", "measured"), Point("other", 20, 70, "?", "", "measured")]
    return accuracy_figure(points)


def figure_3(*, accuracy: bool = True) -> Any:
    """Memory and rates of two models, one of which the paper published; with accuracies or without."""
    result = ResolutionResult("m", 32, np.asarray([16, 32]), np.asarray([0.25, 0.5]), 9)
    published = {"m": [Published("M", "M", "m", "Seq.", 32, 1, 1, (3, 900), (50, 60), 80)]}
    return resolution_figure(
        [result] if accuracy else [],
        {"m": [(32, 10), (64, 40)]} if accuracy else {},
        {"m": [(32, 2000), (64, 100)], "n": [(32, 1000)]},
        about="a GPU",
        batch=16,
        published=published if accuracy else None,
    )


FIGURES: dict[str, Callable[[], Any]] = {
    "receptive fields": receptive_fields,
    "one receptive field": lambda: receptive_fields(alone=True),
    "hidden states": lambda: hidden_state_figure(states(), count=3),
    "chosen hidden states": lambda: hidden_state_figure(states(), channels=[1]),
    "memory": lambda: memory_figure(reach()),
    "similarity": similarities,
    "attribution": attributions,
    "attribution of a class": attributions_of_a_class,
    "resolution": resolutions,
    "corruptions": lambda: corruption_chart(corruptions()),
    "corruptions without clean": lambda: corruption_chart(corruptions(float("nan"))),
    "calibration": lambda: calibration_chart(corruptions()),
    "attacks": attacks,
    "figure 1": figure_1,
    "figure 3": figure_3,
    "figure 3 without accuracy": lambda: figure_3(accuracy=False),
}

if __name__ == "__main__":
    record = {name: contents(draw()) for name, draw in FIGURES.items()}
    RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
