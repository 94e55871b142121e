"""The page of the report: sections as one HTML document that fetches nothing."""

import base64
import html
import math
from collections.abc import Sequence
from typing import Any

from sequencer2d import __version__
from sequencer2d.analysis.report_parts import Request, Section

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.2rem;border-top:1px solid #ddd;padding-top:1rem;margin-top:2rem}
nav a{margin-right:1rem;color:#26c;text-decoration:none}img{display:block;max-width:100%;height:auto;margin:1rem 0}
table{border-collapse:collapse;font-size:12px}td,th{padding:.2rem .6rem;border-bottom:1px solid #eee;text-align:left}
.number{text-align:right}td{white-space:nowrap}.wide{overflow-x:auto}
"""
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><h1>{title}</h1><p>{summary}</p><nav>{links}</nav>
{body}
</body></html>
"""


def render(request: Request, sections: Sequence[tuple[str, Section]]) -> str:
    """The document.

    Args:
        request: what was asked.
        sections: each with its title.
    """
    links = "".join(f'<a href="#s{index}">{html.escape(title)}</a>' for index, (title, _) in enumerate(sections))
    body = "\n".join(_section(index, title, section) for index, (title, section) in enumerate(sections))
    title = f"How {html.escape(request.first.name)} sees"
    return PAGE.format(title=title, style=STYLE, links=links, summary=html.escape(_summary(request)), body=body)


def _summary(request: Request) -> str:
    """What was measured, on what, and how certain it is."""
    first, source, limits = request.first, request.source, request.limits
    parameters = sum(parameter.numel() for parameter in first.model.parameters())
    beside = ", ".join(subject.name for subject in request.subjects[1:])
    height, width = first.data.size
    labeled, drawn = min(limits.labeled, len(source)), min(limits.images, len(source))
    return (
        f"{first.name}: {parameters / 1e6:.1f} M parameters, {len(first.class_names)} classes, images of "
        f"{height}×{width} pixels{'; beside ' + beside if beside else ''}. Measured on {labeled}, drawn with {drawn} "
        f"of {len(source)} images in {len(source.class_names)} classes: a share of so many images is uncertain by up "
        f"to ±{_uncertainty(labeled):.0f} points. sequencer2d {__version__}."
    )


def _uncertainty(count: int) -> float:
    """Half the width of the 95 % interval of a share of `count` images, in percent.

    The width is that of a share of one half, where it is largest.
    """
    return 100 * 1.96 * math.sqrt(0.25 / count)


def _section(index: int, title: str, section: Section) -> str:
    pictures = "".join(
        f'<img alt="{html.escape(title)}" src="data:{kind};base64,{base64.b64encode(data).decode()}">'
        for kind, data in section.pictures
    )
    head = f"<h2>{html.escape(title)}</h2><p>{html.escape(section.text)}</p>"
    return f'<section id="s{index}">{head}{pictures}{_table(section.rows)}</section>'


def _table(rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th{_class(value)}>{html.escape(key)}</th>" for key, value in rows[0].items())
    body = "".join(
        "<tr>" + "".join(f"<td{_class(value)}>{html.escape(_cell(value))}</td>" for value in row.values()) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _class(value: Any) -> str:
    return ' class="number"' if isinstance(value, (int, float)) else ""


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1f}" if math.isfinite(value) else "–"
    return str(value)
