"""One self-contained HTML file about a model: every figure, every number, and what they mean.

What is measured stands in `report_parts`, and the page in `report_page`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sequencer2d.analysis.report_page import render
from sequencer2d.analysis.report_parts import PARTS, Limits, Part, Request, Section
from sequencer2d.data.sources import Source
from sequencer2d.errors import DataError, UserError
from sequencer2d.evaluation.pixels import Progress, match_classes
from sequencer2d.evaluation.subject import Subject
from sequencer2d.files import atomic_write

__all__ = ["PARTS", "Limits", "write_report"]


def write_report(
    subjects: Sequence[Subject],
    source: Source,
    path: str | Path,
    *,
    limits: Limits | None = None,
    common_only: bool = False,
    specs: Sequence[str] = (),
    data: str = "",
    marks: Mapping[str, str] | None = None,
    on_part: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Analyze the first model, beside the others, and write the report.

    A part that cannot be done for a model (no recurrences, a missing library, one input size only) says why in its
    place.

    Args:
        subjects: the model to analyze, then those to compare it with.
        source: images with labels.
        path: of the HTML file.
        limits: how many images each part takes.
        common_only: leave out classes of the data that a model does not have, instead of refusing them.
        specs: where each of the subjects was loaded from, for the page's head.
        data: where the images are from, for the page's head.
        marks: names and contents of `<meta>` elements.
        on_part: called with the title of each part before it is made.
        progress: called with the number of images that a part has done since the last call.

    Raises:
        ConfigError: classes that do not match.
        DataError: an image that cannot be read, or too few of them.
        UserError: no part can be done; the reason of the first one.
    """
    for subject in subjects:
        match_classes(subject, source, common_only=common_only)
    request = Request(tuple(subjects), source, limits or Limits(), common_only, progress)
    sections: list[tuple[str, Section]] = []
    failures: list[UserError] = []
    for part in PARTS:
        if on_part:
            on_part(part.title)
        sections.append((part.title, _build(part, request, failures)))
    if len(failures) == len(PARTS):
        raise failures[0]
    with atomic_write(path, "w") as file:
        file.write(render(request, sections, specs=specs, data=data, marks=marks or {}))
    return Path(path)


def _build(part: Part, request: Request, failures: list[UserError]) -> Section:
    """The section of a part, or why there is none, which is added to `failures`."""
    try:
        return part.build(request)
    except DataError:
        raise
    except UserError as error:
        failures.append(error)
        return Section(f"Not done: {error}")
