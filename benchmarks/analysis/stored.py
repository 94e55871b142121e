"""The figures of docs/analysis.md from what a run stored: no model and no data set is needed to draw them again.

Rows are in `benchmarks/results/analysis-*.json`, maps in `benchmarks/results/arrays/analysis-*.npz`.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from sequencer2d import recipes

Rows = list[dict[str, Any]]


class Stored:
    """What runs left in a folder of results."""

    def __init__(self, results: Path) -> None:
        self._results = results

    def rows(self, name: str) -> Rows:
        """The rows of analysis-NAME.json. Raises `FileNotFoundError`."""
        text = (self._results / f"analysis-{name}.json").read_text(encoding="utf-8")
        rows: Rows = json.loads(text)["rows"]
        return rows

    def arrays(self, name: str) -> list[dict[str, Any]]:
        """The arrays of analysis-NAME-*.npz, in the order of their numbers. Raises `FileNotFoundError`."""
        files = sorted((self._results / "arrays").glob(f"analysis-{name}-[0-9]*.npz"))
        if not files:
            raise FileNotFoundError(f"no arrays of {name}")
        return [_plain(file) for file in files]


def _plain(file: Path) -> dict[str, Any]:
    """The arrays of a file; numbers and strings as themselves."""
    with np.load(file) as stored:
        return {name: value.item() if value.ndim == 0 else value for name, value in stored.items()}


def named(label: str) -> str:
    """The model of a run that is called after its recipe, and the recipe; another label as it is."""
    return f"{recipes.get(label).model.name} ({label})" if label in recipes.names() else label


def _by(rows: Rows, *keys: str) -> Iterable[tuple[tuple[Any, ...], Rows]]:
    """The rows in groups that agree in `keys`, in the order in which the groups begin."""
    groups: dict[tuple[Any, ...], Rows] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups.items()


def resolution(stored: Stored) -> Any:
    from sequencer2d.analysis.charts import resolution_chart
    from sequencer2d.evaluation.resolution import ResolutionResult

    results = []
    for (model,), rows in _by(stored.rows("resolution"), "model"):
        native = next(row["size_pixels"] for row in rows if row["relative_percent"] == 100)
        sizes, top1 = np.transpose([[row["size_pixels"], row["top1_percent"] / 100] for row in rows])
        results.append(ResolutionResult(named(model), native, sizes.astype(int), top1, rows[0]["images"]))
    return resolution_chart(results)


def _corruption_results(stored: Stored) -> list[Any]:
    from sequencer2d.evaluation.mce import CorruptionResult

    clean = {row["model"]: row for row in stored.rows("robustness")}
    results = []
    for (model,), rows in _by(stored.rows("corruptions"), "model"):
        severities = [n for n in range(1, 6) if f"error_percent_{n}" in rows[0]]

        def table(key: str, rows: Rows = rows, severities: list[int] = severities) -> np.ndarray:
            return np.asarray([[row.get(f"{key}_{n}", np.nan) for n in severities] for row in rows]) / 100

        whole = clean[model]
        results.append(CorruptionResult(
            named(model), tuple(row["corruption"] for row in rows), tuple(severities), table("error_percent"),
            table("confidence_percent"), table("calibration_error_percent"), whole["clean_error_percent"] / 100,
            whole.get("clean_confidence_percent", np.nan) / 100, whole["clean_calibration_percent"] / 100,
            rows[0]["images"],
        ))  # fmt: skip
    return results


def corruptions(stored: Stored) -> Any:
    from sequencer2d.analysis.charts import corruption_chart

    return corruption_chart(_corruption_results(stored))


def calibration(stored: Stored) -> Any:
    from sequencer2d.analysis.charts import calibration_chart

    results = _corruption_results(stored)
    if any(np.isnan(result.confidence).any() for result in results):
        raise FileNotFoundError("the run stored no confidences")
    return calibration_chart(results)


def attacks(stored: Stored) -> Any:
    from sequencer2d.analysis.charts import attack_chart
    from sequencer2d.evaluation.attacks import AttackResult

    results = []
    for (model, attack), rows in _by(stored.rows("attacks"), "model", "attack"):
        epsilons = np.asarray([row["epsilon_levels"] for row in rows]) / 255
        steps = rows[0]["steps"]
        sizes = epsilons if attack == "fgsm" else 2.5 * epsilons / steps
        top1 = np.asarray([row["top1_percent"] for row in rows]) / 100
        clean = rows[0]["clean_top1_percent"] / 100
        is_random = attack == "pgd"
        count = rows[0]["images"]
        results.append(AttackResult(named(model), attack, epsilons, top1, clean, steps, sizes, is_random, count))
    return attack_chart(results)


def cka(stored: Stored) -> Any:
    from sequencer2d.analysis.cka import Similarity
    from sequencer2d.analysis.figures import similarity_figure

    results = []
    for (first, second), rows in _by(stored.rows("cka"), "first", "second"):
        blocks = tuple(tuple(dict.fromkeys(row[key] for row in rows)) for key in ("first_block", "second_block"))
        values = np.asarray([row["cka"] for row in rows]).reshape(len(blocks[0]), len(blocks[1]))
        results.append(Similarity((named(first), named(second)), blocks, values, rows[0]["images"]))
    return similarity_figure(results)


def erf(stored: Stored, name: str = "erf") -> Any:
    from sequencer2d.analysis.erf import ReceptiveField
    from sequencer2d.analysis.erf_methods import METHODS
    from sequencer2d.analysis.figures import receptive_field_grid
    from sequencer2d.analysis.layout import Layout

    models = []
    for (model,), fields in _by(stored.arrays(name), "model"):
        models.append([
            ReceptiveField(named(model), f["block"], METHODS[f["method"]], f["values"].astype(float),
                           tuple(f["center"].tolist()), Layout(f["layout"], *f["grid"].tolist(), 0, f["layout_found"]),
                           f["images"])
            for f in fields
        ])  # fmt: skip
    return receptive_field_grid(models)


def erf_paper(stored: Stored) -> Any:
    return erf(stored, "erf-paper")


def states_of(stored: Stored) -> Any:
    """The hidden states that the figure and the animation show."""
    from sequencer2d.analysis.hidden_states import HiddenStates

    (found,) = stored.arrays("hidden-states")
    scans = tuple(found["scans"].tolist())
    values = {name: found[name].astype(np.float32) for name in ("states", "fused")}
    return HiddenStates(**{**found, **values, "model": named(found["model"]), "scans": scans})


def hidden_states(stored: Stored) -> Any:
    from sequencer2d.analysis.figures import hidden_state_figure

    return hidden_state_figure(states_of(stored))


def memory(stored: Stored) -> Any:
    from sequencer2d.analysis.figures import memory_figure
    from sequencer2d.analysis.memory import MemoryReach, Reach

    (found,) = stored.arrays("memory")
    columns = zip(
        found["blocks"], found["scans"].tolist(), found["strides"].tolist(), found["histogram"],
        found["half_life_tokens"], found["tokens"].tolist(), strict=True,
    )  # fmt: skip
    scans = [
        Reach(str(block), scan, stride, histogram, half_life[~np.isnan(half_life)], tokens)
        for block, scan, stride, histogram, half_life, tokens in columns
    ]
    return memory_figure(MemoryReach(named(found["model"]), tuple(scans), found["images"]))


def grad_cam(stored: Stored) -> Any:
    from sequencer2d.analysis.attribution import Attribution
    from sequencer2d.analysis.figures import attribution_figure

    (found,) = stored.arrays("grad-cam")
    names = [str(name) for name in found.pop("class_names")]
    return attribution_figure(Attribution(**{**found, "model": named(found["model"])}), names)


FIGURES: dict[str, Callable[[Stored], Any]] = {
    "erf": erf,
    "erf-paper": erf_paper,
    "hidden-states": hidden_states,
    "memory": memory,
    "cka": cka,
    "grad-cam": grad_cam,
    "resolution": resolution,
    "corruptions": corruptions,
    "calibration": calibration,
    "attacks": attacks,
}
"""What draws docs/figures/analysis-NAME.png. Raises `FileNotFoundError` where no run has stored what it needs."""
