"""The page of the report: sections as one HTML document that fetches nothing."""

import base64
import html
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from sequencer2d import __version__
from sequencer2d.analysis.about import model_text, weights_text
from sequencer2d.analysis.report_parts import Request, Section

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.2rem;border-top:1px solid #ddd;padding-top:1rem;margin-top:2rem}
nav a{display:inline-block;margin-right:1rem;color:#26c;text-decoration:none}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem}dt{color:#666}dd{margin:0;overflow-wrap:anywhere}
img{display:block;max-width:100%;height:auto;margin:1rem 0}
table{border-collapse:collapse;font-size:12px}td,th{padding:.2rem .6rem;border-bottom:1px solid #eee;text-align:left}
.number{text-align:right}td{white-space:nowrap}.wide{overflow-x:auto}
@media(max-width:700px){.wide img{max-width:none;width:680px}dl{grid-template-columns:1fr}dd{margin-bottom:.4rem}}
"""
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
{marks}<title>{title}</title><style>{style}</style></head>
<body><h1>{title}</h1>{head}<nav>{links}</nav>
{body}
</body></html>
"""


def render(
    request: Request,
    sections: Sequence[tuple[str, Section]],
    *,
    specs: Sequence[str] = (),
    data: str = "",
    marks: Mapping[str, str] | None = None,
) -> str:
    """The document.

    Args:
        request: what was asked.
        sections: each with its title.
        specs: where each model was loaded from.
        data: where the images are from.
        marks: names and contents of `<meta>` elements.
    """
    links = "".join(f'<a href="#s{index}">{html.escape(title)}</a>' for index, (title, _) in enumerate(sections))
    body = "\n".join(_section(index, title, section) for index, (title, section) in enumerate(sections))
    said = (f"<dt>{html.escape(term)}</dt><dd>{html.escape(text)}</dd>" for term, text in _head(request, specs, data))
    metas = (f'<meta name="{html.escape(k)}" content="{html.escape(v)}">\n' for k, v in (marks or {}).items())
    title = f"How {html.escape(request.first.name)} sees"
    parts = {"links": links, "head": f"<dl>{''.join(said)}</dl>", "marks": "".join(metas), "body": body}
    return PAGE.format(title=title, style=STYLE, **parts)


def _head(request: Request, specs: Sequence[str], data: str) -> Iterator[tuple[str, str]]:
    """The models, the data, how certain the numbers are, and when they were measured."""
    source, limits = request.source, request.limits
    for place, subject in enumerate(request.subjects):
        yield "beside" if place else "model", model_text(subject)
        if specs:
            yield "weights", weights_text(specs[place])
    labeled, drawn = min(limits.labeled, len(source)), min(limits.images, len(source))
    images = f"{len(source)} images in {len(source.class_names)} classes; measured on {labeled}, drawn with {drawn}"
    yield "data", f"{data}: {images}" if data else images
    yield "certainty", f"a share of {labeled} images is uncertain by up to ±{_uncertainty(labeled):.0f} points (95 %)"
    yield "made", f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC, sequencer2d {__version__}"


def _uncertainty(count: int) -> float:
    """Half the width of the 95 % interval of a share of `count` images, in percent.

    The width is that of a share of one half, where it is largest.
    """
    return 100 * 1.96 * math.sqrt(0.25 / count)


def _section(index: int, title: str, section: Section) -> str:
    sources = (f"data:{kind};base64,{base64.b64encode(data).decode()}" for kind, data in section.pictures)
    alt = html.escape(title)
    pictures = "".join(f'<div class="wide"><img alt="{alt}" src="{source}"></div>' for source in sources)
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
