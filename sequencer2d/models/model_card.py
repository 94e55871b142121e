"""The model card of the Hugging Face hub: README.md with a header in YAML, from the model and its run's summary."""

import json
from collections.abc import Mapping
from typing import Any

PAPER = "https://arxiv.org/abs/2205.01972"


def model_card(description: Mapping[str, Any], summary: Mapping[str, Any] | None, repo_id: str | None) -> str:
    """The card's text.

    Args:
        description: what `describe_model` says.
        summary: `summary.json` of the run that trained the model; without one the card states no results.
        repo_id: the repository that the examples name; without one they name a folder.
    """
    parts = [_header(description, summary), _introduction(description, summary), _usage(repo_id)]
    if summary:
        parts.append(_training(summary))
    parts.append(_input(description))
    return "\n".join(parts)


def _header(description: Mapping[str, Any], summary: Mapping[str, Any] | None) -> str:
    lines = ["---", "license: apache-2.0", "library_name: sequencer2d", "pipeline_tag: image-classification", "tags:"]
    lines += [f"- {tag}" for tag in ("image-classification", "sequencer2d", "timm", "lstm")]
    data = _data(summary)
    if data:
        # JSON's strings are YAML's: a name with colons or quotes stays a name.
        lines += ["datasets:", f"- {json.dumps(data)}"]
    if summary and "top1" in summary.get("final", {}):
        lines += [
            "model-index:",
            f"- name: {json.dumps(description['model'])}",
            "  results:",
            "  - task:",
            "      type: image-classification",
            "    dataset:",
            f"      name: {json.dumps(data or 'unknown')}",
            f"      type: {json.dumps(data or 'unknown')}",
            "    metrics:",
            "    - type: accuracy",
            f"      value: {summary['final']['top1'] / 100:.4f}",
        ]
    return "\n".join([*lines, "---", ""])


def _introduction(description: Mapping[str, Any], summary: Mapping[str, Any] | None) -> str:
    size = f", {summary['parameters'] / 1e6:.1f} M parameters" if summary and "parameters" in summary else ""
    return (
        f"# {description['model']}\n\n"
        f"An image classifier for {description['num_classes']} classes{size}: a Sequencer, which mixes the tokens of "
        f"an image with LSTMs ([Tatsunami and Taki 2022]({PAPER})).\n"
    )


def _usage(repo_id: str | None) -> str:
    where, source = repo_id or "path/to/this/folder", f"hf-hub:{repo_id}" if repo_id else "path/to/this/folder"
    return (
        "## Use\n\n```python\nfrom sequencer2d.models import Sequencer2D\n\n"
        f'model = Sequencer2D.from_pretrained("{where}")\n```\n\n'
        f"```\nsequencer2d predict {source} photo.jpg\n```\n"
    )


def _training(summary: Mapping[str, Any]) -> str:
    final, best = summary.get("final") or {}, summary.get("best") or {}
    rows = [
        ("data", _data(summary)),
        ("epochs", summary.get("epochs")),
        ("top-1 after the last epoch", _percent(final.get("top1"))),
        ("top-1 of the best epoch", _percent(best.get("top1"))),
        ("top-5 after the last epoch", _percent(final.get("top5"))),
        ("device", summary.get("device")),
        ("time", f"{summary['duration_s'] / 60:.1f} min" if "duration_s" in summary else None),
        (
            "sequencer2d, PyTorch",
            ", ".join(str((summary.get("versions") or {}).get(k)) for k in ("sequencer2d", "torch")),
        ),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows if value is not None)
    return f"## Training\n\n| | |\n|---|---|\n{table}\n"


def _input(description: Mapping[str, Any]) -> str:
    images = description["input"]
    height, width = images["size"]
    text = (
        f"## Input\n\nRGB images of {height}×{width} pixels (any size from the stride up runs), resampled by "
        f"{images['interpolation']} interpolation, crop {images['crop_pct']}, normalized with mean "
        f"{_numbers(images['mean'])} and standard deviation {_numbers(images['std'])}.\n"
    )
    names = description.get("class_names")
    return text + (f"\n## Classes\n\n{', '.join(names)}\n" if names else "")


def _data(summary: Mapping[str, Any] | None) -> str | None:
    """The data's name: the source, or the last part of a folder's path."""
    data = ((summary or {}).get("config") or {}).get("data") or {}
    name = str(data.get("source") or "").rstrip("/")
    if name in ("", "folder"):
        name = str(data.get("root") or "").rstrip("/")
    return name.rsplit("/", 1)[-1] or None


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f} %"


def _numbers(values: list[float]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"
