"""What a report or a page is about: the model, its file, the day of its weights."""

from datetime import datetime, timezone

from sequencer2d.evaluation.subject import Subject
from sequencer2d.models.shipped import SHIPPED
from sequencer2d.models.specs import split_label, weights_file


def model_text(subject: Subject) -> str:
    """`photos (sequencer2d_n_p4): 3.9 M parameters, 5 classes, images of 32×32 pixels`."""
    parameters = sum(parameter.numel() for parameter in subject.model.parameters())
    height, width = subject.data.size
    architecture = subject.architecture
    named = f"{subject.name} ({architecture})" if architecture not in ("", subject.name) else subject.name
    classes = f"{len(subject.class_names)} classes, " if subject.class_names else ""
    return f"{named}: {parameters / 1e6:.1f} M parameters, {classes}images of {height}×{width} pixels"


def weights_text(spec: str) -> str:
    """Where a model's weights are and, for a file that is here, of which day: `runs/a/best.safetensors, 2026-11-29`."""
    path = weights_file(spec)
    if path is None:
        name = split_label(spec)[1]
        return "weights that come with the package" if name in SHIPPED else name
    return f"{path}, {datetime.fromtimestamp(path.stat().st_mtime, timezone.utc):%Y-%m-%d}"
