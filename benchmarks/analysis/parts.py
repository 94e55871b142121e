"""The parts of the analysis: each measures one thing for all models and writes its rows, then its figure."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.analysis.photos import PHOTOS, TEMPLE
from benchmarks.analysis.writing import Run

BATCH = 256  # small images in short steps: a GPU would wait for each launch


def models(run: Run) -> None:
    """How the models came about, where they are run folders."""
    import json

    folders = [Path(spec.rpartition("@")[2]) for spec in (run.arguments.model, *run.arguments.peers)]
    summaries = [
        json.loads(path.read_text(encoding="utf-8")) for f in folders if (path := f / "summary.json").is_file()
    ]
    run.rows("models", [
        {"model": summary["model"], "parameters": summary["parameters"], "epochs": summary["epochs"],
         "top1_percent": summary["final"]["top1"], "top5_percent": summary["final"]["top5"],
         "seconds": summary["duration_s"], "images_per_second": summary["images_per_s"],
         "trained_on": summary["device"],
         "seed": summary["config"]["run"]["seed"]}
        for summary in summaries
    ])  # fmt: skip


def erf(run: Run) -> None:
    """By both methods, each with the number of images that it usually has if there are as many, on evaluation crops."""
    from sequencer2d.analysis.erf import receptive_fields
    from sequencer2d.analysis.erf_methods import METHODS

    for method, suffix in ((METHODS["energy"], ""), (METHODS["paper"], "_paper")):
        count = min(method.images, run.arguments.images) if method.one_scale else run.arguments.images
        models = [receptive_fields(s, run.pixels(s, count), method=method.name) for s in run.subjects]
        run.rows(f"erf{suffix}", [
            {"model": field.model, "block": field.block, "method": method.name, "layout": field.layout.kind,
             "layout_found": field.layout.found, "images": field.images, **vars(field.shape),
             "cruciform": field.shape.cruciform}
            for fields in models for field in fields
        ])  # fmt: skip
        name = f"erf{suffix.replace('_', '-')}"
        for number, field in enumerate(field for fields in models for field in fields):
            run.arrays(name, number, field.save)
        run.draw(name)


def hidden(run: Run) -> None:
    """Of a photo that may be passed on, at twice the model's size, so that more than 28×28 tokens show it."""
    from sequencer2d.analysis.animation import running_animation
    from sequencer2d.analysis.hidden_states import hidden_states
    from sequencer2d.data.eval_transforms import eval_transform

    subject = run.subjects[0].resized(2 * max(run.subjects[0].data.size))
    states = hidden_states(subject, np.asarray(eval_transform(subject.data)(TEMPLE.load())))
    run.arrays("hidden-states", 0, replace(states, states=_coarse(states.states), fused=_coarse(states.fused)).save)
    run.draw("hidden-states")
    running_animation(states, run.arguments.figures / "analysis-recurrences.gif", side=168, every=2)


def _coarse(values: np.ndarray) -> np.ndarray:
    """As fine as colors show it: in steps of 1/128, which makes a small file."""
    return (np.round(values * 128) / 128).astype(np.float16)


def memory(run: Run) -> None:
    from sequencer2d.analysis.memory import memory_reach

    reach = memory_reach(run.subjects[0], run.pixels(run.subjects[0]))
    rows = []
    for scan in reach.scans:
        low, middle, high = scan.quantiles()
        rows.append({"model": reach.model, "block": scan.block, "direction": scan.direction,
             "stride_pixels": scan.stride,
                     "half_life_tokens": middle, "half_life_tokens_10": low, "half_life_tokens_90": high,
                     "half_life_pixels": middle * scan.stride, "images": reach.images})  # fmt: skip
    run.rows("memory", rows)
    run.arrays("memory", 0, reach.save)
    run.draw("memory")


def cka(run: Run) -> None:
    from sequencer2d.analysis.cka import similarity

    first, count = run.subjects[0], min(run.arguments.limit, 1000)
    images = run.pixels(first, count)
    results = [
        similarity(first, other, images, None if other is first else run.pixels(other, count)) for other in run.subjects
    ]
    run.rows("cka", [
        {"first": result.models[0], "second": result.models[1], "first_block": row, "second_block": column,
         "cka": result.values[i, j], "images": result.images}
        for result in results
        for i, row in enumerate(result.blocks[0]) for j, column in enumerate(result.blocks[1])
    ])  # fmt: skip
    run.draw("cka")


def cam(run: Run) -> None:
    """Of photos that may be passed on; what they show is known where the model has a class for it."""
    from sequencer2d.analysis.arrays import save_arrays
    from sequencer2d.analysis.attribution import grad_cam
    from sequencer2d.data.eval_transforms import eval_transform
    from sequencer2d.evaluation.predict import class_names_of

    subject = run.subjects[0]
    names, transform = list(class_names_of(subject.model)), eval_transform(subject.data)
    pixels = np.stack([np.asarray(transform(photo.load())) for photo in PHOTOS])
    truths = np.array([names.index(photo.shown) if photo.shown in names else -1 for photo in PHOTOS])
    result = grad_cam(subject, pixels, truths=truths)
    known = {name: value for name, value in vars(result).items() if value is not None}
    run.arrays("grad-cam", 0, lambda path: save_arrays(path, class_names=names, **known))
    run.draw("grad-cam")


def resolution(run: Run) -> None:
    from sequencer2d.evaluation.resolution import resolution_sweep

    results = [
        resolution_sweep(subject, run.source, limit=run.arguments.limit, batch_size=BATCH) for subject in run.subjects
    ]
    run.rows("resolution", [
        {"model": result.model, "size_pixels": int(size), "top1_percent": 100 * top1,
             "relative_percent": 100 * relative,
         "images": result.count}
        for result in results
        for size, top1, relative in zip(result.sizes, result.top1, result.relative, strict=True)
    ])  # fmt: skip
    run.draw("resolution")


def corruptions(run: Run) -> None:
    from sequencer2d.evaluation.robustness import compare_corruption_errors

    results = compare_corruption_errors(
        run.subjects, run.source, limit=run.arguments.limit, workers=run.arguments.workers, batch_size=2 * BATCH
    )
    run.rows("corruptions", [
        {"model": r.model, "corruption": name, "images": r.count, "clean_error_percent": 100 * r.clean_error,
         "error_percent": 100 * r.error[i].mean(), "calibration_error_percent": 100 * r.calibration[i].mean(),
         **{f"{key}_{severity}": 100 * values[i, j] for j, severity in enumerate(r.severities)
            for key, values in (("error_percent", r.error), ("confidence_percent", r.confidence),
                                ("calibration_error_percent", r.calibration))}}
        for r in results for i, name in enumerate(r.corruptions)
    ])  # fmt: skip
    run.rows("robustness", [
        {"model": r.model, "images": r.count, "clean_error_percent": 100 * r.clean_error,
         "mean_error_percent": 100 * r.mean_error, "clean_calibration_percent": 100 * r.clean_calibration,
         "clean_confidence_percent": 100 * r.clean_confidence,
         "mean_calibration_percent": 100 * r.calibration.mean()}
        for r in results
    ])  # fmt: skip
    run.draw("corruptions")
    run.draw("calibration")


def attacks(run: Run) -> None:
    from sequencer2d.evaluation.attacks import AttackSettings, attack_accuracy

    settings = AttackSettings(epsilons=(0.5 / 255, 1 / 255, 2 / 255, 4 / 255), steps=10, step_size=None)
    results = [
        attack_accuracy(subject, run.source, attack, settings, limit=min(run.arguments.limit, 1000), batch_size=BATCH)
        for subject in run.subjects
        for attack in ("fgsm", "pgd")
    ]
    run.rows("attacks", [
        {"model": r.model, "attack": r.attack, "steps": r.steps, "images": r.count, "epsilon_levels": 255 * epsilon,
         "top1_percent": 100 * accuracy, "clean_top1_percent": 100 * r.clean_accuracy}
        for r in results for epsilon, accuracy in zip(r.epsilons, r.accuracy, strict=True)
    ])  # fmt: skip
    run.draw("attacks")


def shape_texture(run: Run) -> None:
    from sequencer2d.evaluation.shape_texture import spectral_conflict

    results = [spectral_conflict(subject, run.source, limit=min(run.arguments.limit, 2000)) for subject in run.subjects]
    run.rows("shape_texture", [
        {"model": r.model, "images": r.count, "shape": r.shape, "texture": r.texture, "other": r.other,
         "shape_bias_percent": None if r.shape_bias is None else 100 * r.shape_bias}
        for r in results
    ])  # fmt: skip


def report(run: Run) -> None:
    from sequencer2d.analysis.report import Limits, write_report

    limits = Limits(labeled=run.arguments.limit, workers=run.arguments.workers)
    print(
        write_report(
            run.subjects, run.source, run.arguments.report, limits=limits,
            on_part=lambda title: print(f"  {title} …", flush=True),
        )
    )  # fmt: skip


PARTS = (models, erf, hidden, memory, cka, resolution, shape_texture, cam, corruptions, attacks, report)
"""What docs/analysis.md is about comes first, the report, which repeats it for readers without the repository, last."""
NAMES = tuple(part.__name__ for part in PARTS)
