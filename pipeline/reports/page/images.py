"""The charts of the page as files, PNG and SVG, drawn without a browser and without a connection."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from colophon.pipeline.reports.page.charts import label
from colophon.pipeline.reports.page.markup import Chart
from colophon.shards.common.durable import replaced_file
from colophon.shards.common.output_paths import inside

_WIDTH = 640
_PIXELS_PER_UNIT = 2
_LONGEST_NAME = 60
_LONGEST_TITLE = 100
# The colours are those of `page.js` in the light.
_CONFIG = {
    "background": "#ffffff",
    "font": "sans-serif",
    "view": {"stroke": "transparent"},
    "mark": {"color": "#3b6fd0"},
    "axis": {"gridColor": "#d5d9de", "domainColor": "#d5d9de", "tickColor": "#d5d9de", "labelLimit": 150},
    "range": {"heatmap": ["#ffffff", "#7ea6e8", "#163f8f"]},
    "title": {"anchor": "start", "limit": _WIDTH},
}


def image_paths(charts: Sequence[Chart], directory: Path) -> list[tuple[Path, Path]]:
    """The PNG and SVG file of each chart: its title in ASCII letters and digits, with a number if another has it too.

    Raises:
        OutputPathError: in the place of one is a link, a directory, a pipe or the like.
    """
    return [
        (inside(directory, f"{name}.png"), inside(directory, f"{name}.svg"))
        for name in _names([chart.title for chart in charts])
    ]


def write_images(charts: Sequence[Chart], paths: Sequence[tuple[Path, Path]]) -> None:
    """Write each chart as PNG, 2 pixels for a unit of its SVG, and as SVG. Existing files are replaced.

    Raises:
        OSError: a file cannot be written.
    """
    import vl_convert

    for chart, (png, svg) in zip(charts, paths, strict=True):
        lines = [label(line, most=_LONGEST_TITLE) for line in (chart.title, *chart.note)]
        spec = {**chart.spec, "width": _WIDTH, "title": {"text": lines[0], "subtitle": lines[1:]}}
        drawn = vl_convert.vegalite_to_svg(spec, config=_CONFIG, allowed_base_urls=[])
        pixels = vl_convert.vegalite_to_png(spec, config=_CONFIG, allowed_base_urls=[], scale=_PIXELS_PER_UNIT)
        for path, content in ((svg, drawn.encode()), (png, pixels)):
            with replaced_file(path) as temporary:
                temporary.write_bytes(content)


def _names(titles: Sequence[str]) -> Iterator[str]:
    """Yield a name for each title: `Tokens of documents: half 40` gives `tokens-of-documents`."""
    seen: set[str] = set()
    for title in titles:
        words = re.sub(r"[^a-z0-9]+", "-", title.partition(": ")[0].lower())
        base = words[:_LONGEST_NAME].strip("-") or "chart"
        name, number = base, 2
        while name in seen:
            name, number = f"{base}-{number}", number + 1
        seen.add(name)
        yield name
