"""The text of the page: everything from data is escaped here, and a policy forbids what would slip through.

The Content-Security-Policy names the hashes of the page's own two scripts: no other script runs, and nothing is loaded
from anywhere. Charts are data for these scripts. `ast` makes Vega interpret its expressions instead of compiling them,
which the policy forbids too.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from importlib.resources import files
from typing import Any

from rich.table import Table

from colophon.pipeline.errors import printable
from colophon.pipeline.reports.tables import plain_rows

LONGEST_TEXT = 4_000
"""Characters of a text from data; the rest is cut and counted."""


class Html(str):
    """Text that is HTML: what it is made of has been escaped."""

    __slots__ = ()


def shown(value: object, *, most: int = LONGEST_TEXT) -> Html:
    """A value as HTML, isolated from the direction of the text around it; control characters are visible."""
    text = str(value)
    cut = f"… [{len(text) - most:,} more characters]" if len(text) > most else ""
    return Html(f"<bdi>{escape(printable(text[:most]))}{cut}</bdi>")


def joined(parts: Iterable[Html]) -> Html:
    """Several pieces of HTML, one after the other."""
    return Html("\n".join(parts))


def paragraph(text: object, *, kind: str = "") -> Html:
    """A paragraph of text, or of HTML."""
    content = text if isinstance(text, Html) else shown(text)
    return Html(f'<p class="{escape(kind)}">{content}</p>' if kind else f"<p>{content}</p>")


def section(name: str, parts: Sequence[Html]) -> Html:
    """A section with its heading; the navigation links to it."""
    return Html(f'<section id="{_anchor(name)}"><h2>{escape(name)}</h2>\n{joined(parts)}</section>')


def navigation(names: Sequence[str]) -> Html:
    """Links to sections."""
    links = "".join(f'<li><a href="#{_anchor(name)}">{escape(name)}</a></li>' for name in names)
    return Html(f'<nav aria-label="Sections"><ul>{links}</ul></nav>')


def facts(named: Sequence[tuple[str, str]]) -> Html:
    """Numbers with their names."""
    items = "".join(f"<div><dt>{shown(name)}</dt><dd>{shown(value)}</dd></div>" for name, value in named)
    return Html(f'<dl class="facts">{items}</dl>')


def table(
    caption: str,
    headings: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    numeric: Sequence[int],
    has_row_headings: bool = False,
) -> Html:
    """A table that scrolls sideways in itself.

    Args:
        caption: its title.
        headings: a heading for each column.
        rows: the cells.
        numeric: the places of the columns that are aligned right.
        has_row_headings: the first cell of a row is its heading, which a screen reader repeats in each of its cells.
    """

    def cells(row: Sequence[object]) -> str:
        first = [f'<th scope="row">{shown(row[0], most=200)}</th>'] if has_row_headings else []
        rest = [
            f'<td class="n">{shown(cell, most=200)}</td>' if place in numeric else f"<td>{shown(cell, most=200)}</td>"
            for place, cell in enumerate(row[len(first) :], start=len(first))
        ]
        return "".join([*first, *rest])

    head = "".join(f'<th scope="col"{_right(i in numeric)}>{shown(name)}</th>' for i, name in enumerate(headings))
    body = "".join(f"<tr>{cells(row)}</tr>" for row in rows)
    return Html(
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(printable(caption))}"><table>'
        f"<caption>{shown(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def from_terminal(found: Table) -> Html:
    """A table of the terminal as one of the page."""
    headings, *rows = plain_rows(found)
    numeric = [place for place, column in enumerate(found.columns) if column.justify == "right"]
    caption = " ".join(str(found.title or "").split())
    notes = [paragraph(str(found.caption), kind="note")] if found.caption else []
    return joined([table(caption, headings, rows, numeric=numeric), *notes])


def searchable(found: Html, *, what: str) -> Html:
    """A table with a box that shows the rows that contain a text."""
    name = escape(printable(what))
    return Html(
        f'<div class="searchable"><label>Search {name} <input type="search" autocomplete="off" spellcheck="false">'
        f'</label> <output aria-live="polite"></output>{found}</div>'
    )


def details(summary: str, content: Html) -> Html:
    """Content that is hidden until it is asked for."""
    return Html(f"<details><summary>{shown(summary)}</summary>{content}</details>")


def preformatted(text: str) -> Html:
    """A text with its line breaks."""
    return Html(f'<pre tabindex="0">{shown(text, most=200_000)}</pre>')


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart of the page."""

    title: str
    spec: dict[str, Any]
    """Its Vega-Lite specification."""
    note: Sequence[str] = ()
    """Lines below the title of an image; the page has them as text."""


class Charts:
    """The charts of a page, each with a number."""

    def __init__(self) -> None:
        self.drawn: list[Chart] = []

    def figure(
        self, spec: dict[str, Any], *, title: str, numbers: Html | None = None, note: Sequence[str] = ()
    ) -> Html:
        """A chart with its title and note, and its numbers as a table for those who do not see it."""
        number = len(self.drawn)
        self.drawn.append(Chart(title=title, spec=spec, note=note))
        below = paragraph(" ".join(note), kind="note") if note else ""
        more = details("Numbers", numbers) if numbers is not None else ""
        return Html(
            f'<figure><figcaption id="title-{number}">{shown(title)}</figcaption>'
            f'<div class="chart" id="chart-{number}" aria-labelledby="title-{number}"></div>{below}{more}</figure>'
        )


def page(title: str, body: Html, *, charts: Sequence[Chart], library: str) -> str:
    """The whole page.

    Args:
        title: its title.
        body: its content.
        charts: the charts, by number.
        library: JavaScript that defines `vegaEmbed`; empty without charts.
    """
    scripts = [_in_script(code) for code in (f"(()=>{{{library}\n}})();", _resource("page.js"))]
    hashes = " ".join(f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in scripts)
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    tags = "\n".join(f"<script>{script}</script>" for script in scripts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{escape(printable(title))}</title>
<style>{_resource("page.css")}</style>
</head>
<body>
{body}
<script type="application/json" id="charts">{_json([chart.spec for chart in charts])}</script>
{tags}
</body>
</html>
"""


def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _json(value: object) -> str:
    """JSON that cannot end a script element: ASCII without `<`, `>` and `&`."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _in_script(code: str) -> str:
    """Code without the strings that would end its element or hide that end."""
    return re.sub(r"<(/script|!--)", r"<\\\1", code, flags=re.IGNORECASE)


def _right(is_number: bool) -> str:
    return ' class="n"' if is_number else ""


def _anchor(name: str) -> str:
    return "".join(character if character.isalnum() else "-" for character in name.lower())
