"""Vega-Lite specifications of the page's charts, made with Altair.

A chart has its numbers in it and refers to nothing else. Names from data are values of rows, never names of fields, so
that none is read as an expression; they are cut, and characters that control the direction of text are escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np

from colophon.pipeline.errors import printable
from colophon.pipeline.reports.evaluation_tables import Difference
from colophon.pipeline.reports.page.columns import Bins, Distribution, Value
from colophon.pipeline.reports.page.packed import Lengths
from colophon.pipeline.reports.page.relations import Relation
from colophon.shards.schema import ROLE_NAMES

Spec = dict[str, Any]

ROLE_COLOURS = ("#9aa0a6", "#b05fd0", "#d0559a", "#d98a00", "#0a94b8", "#3a9d4f", "#5b7fd6")
"""By role number; they differ on white and on black."""
_MOST_BARS = 25
_MOST_POINTS = 400
_LONGEST_LABEL = 48
_ROW_HEIGHT = 20
_SHARE = ".1%"
_HEAT = alt.Scale(interpolate="rgb", range="heatmap")
_HEAT_LEGEND = alt.Legend(format="%", orient="top", gradientLength=160)


_RUNS = alt.Color(
    "run:N",
    sort=None,
    scale=alt.Scale(domain=["A", "B"], range=["#8a94a6", "#d98a00"]),
    legend=alt.Legend(orient="top", title=None),
)
"""The colours of two runs that are compared; they differ on white and on black."""


def label(value: Value, *, most: int = _LONGEST_LABEL) -> str:
    """A value as the text of an axis or a cell."""
    text = printable(str(value)).replace("\n", " ") if value != "" else "(empty)"
    return text if len(text) <= most else f"{text[: most - 1]}…"


def interval(low: float, high: float) -> str:
    """`0.25–0.5`: an interval of numbers."""
    return f"{low:.4g}–{high:.4g}"


def distribution(column: Distribution) -> Spec:
    """Bars of a column's values, in the order of ordered values; a histogram of numbers in bins."""
    if column.bins is not None:
        edges = [column.bins.edges(int(index)) for index, _ in column.counts]
        rows = [
            {"low": low, "high": high, "documents": n, "values": interval(low, high)}
            for (low, high), (_, n) in zip(edges, column.counts, strict=True)
        ]
        x = alt.X("low:Q", bin="binned", title=label(column.name), axis=alt.Axis(labelFlush=True))
        bars = _chart(rows).mark_bar().encode(x=x, x2="high:Q", tooltip=_tooltip("values:N"))
        return _spec(bars.encode(y=_documents(alt.Y)), height=180)
    shown = column.counts[:_MOST_BARS]
    if not all(isinstance(value, str) for value, _ in shown):
        shown = sorted(shown)
    rows = [{"value": name, "documents": n} for name, (_, n) in zip(_labels(shown), shown, strict=True)]
    y = alt.Y("value:N", sort=None, title=None)
    bars = _chart(rows).mark_bar().encode(x=_documents(alt.X), y=y, tooltip=_tooltip("value:N"))
    return _spec(bars, height=_ROW_HEIGHT * max(len(rows), 1))


def compared_values(values: Sequence[str], shares: Sequence[tuple[float, float]]) -> Spec:
    """Bars of each value's share in two runs, A and B; the first values of many."""
    names = _labels([(value, 0) for value in values[:_MOST_BARS]])
    rows = [
        {"value": name, "run": run, "share": round(share, 6)}
        for name, pair in zip(names, shares, strict=False)
        for run, share in zip("AB", pair, strict=True)
    ]
    bars = _chart(rows).mark_bar().encode(
        x=alt.X("share:Q", title="share of known values", axis=alt.Axis(format="%")),
        y=alt.Y("value:N", sort=None, title=None),
        yOffset=alt.YOffset("run:N", sort=None),
        color=_RUNS,
        tooltip=["value:N", "run:N", alt.Tooltip("share:Q", format=_SHARE)],
    )  # fmt: skip
    return _spec(bars, height=1.6 * _ROW_HEIGHT * max(len(names), 1))


def compared_numbers(column: str, bins: Bins, shares: Sequence[tuple[float, float]]) -> Spec:
    """Lines of each interval's share in two runs, A and B."""
    edges = [bins.edges(index) for index in range(len(shares))]
    places = [*((low, (low, high)) for low, high in edges), (edges[-1][1], edges[-1])]  # the last step needs its end
    rows = [
        {"low": place, "values": interval(*ends), "run": run, "share": round(share, 6)}
        for (place, ends), pair in zip(places, [*shares, shares[-1]], strict=True)
        for run, share in zip("AB", pair, strict=True)
    ]
    lines = _chart(rows).mark_line(interpolate="step-after").encode(
        x=alt.X("low:Q", title=label(column), axis=alt.Axis(labelFlush=True)),
        y=alt.Y("share:Q", title="share of known values", axis=alt.Axis(format="%")),
        color=_RUNS,
        tooltip=["values:N", "run:N", alt.Tooltip("share:Q", format=_SHARE)],
    )  # fmt: skip
    return _spec(lines, height=180)


def lengths(found: Lengths) -> Spec:
    """Documents by their tokens, in intervals between powers of two."""
    rows = [
        {"tokens": f"{low:,}" if low == high else f"{low:,}–{high:,}", "documents": n}
        for low, high, n in found.by_power()
    ]
    x = alt.X("tokens:N", sort=None, title="tokens of a document", axis=alt.Axis(labelAngle=-40))
    return _spec(_chart(rows).mark_bar().encode(x=x, y=_documents(alt.Y), tooltip=_tooltip("tokens:N")), height=180)


def sources(counts: Mapping[str, Mapping[str, int]]) -> Spec:
    """Tokens of each named source of the input, the largest first."""
    shown = sorted(((name, each["tokens"]) for name, each in counts.items()), key=lambda one: (-one[1], one[0]))
    shown = shown[:_MOST_BARS]
    rows = [{"source": name, "tokens": n} for name, (_, n) in zip(_labels(shown), shown, strict=True)]
    chart = _chart(rows).mark_bar().encode(
        x=alt.X("tokens:Q", axis=alt.Axis(format="~s", tickMinStep=1)),
        y=alt.Y("source:N", sort=None, title=None),
        tooltip=["source:N", alt.Tooltip("tokens:Q", format=",")],
    )  # fmt: skip
    return _spec(chart, height=_ROW_HEIGHT * max(len(rows), 1))


def heat_map(relation: Relation) -> Spec:
    """For each value down, the share of its documents by the value across."""
    across, down = axis_labels(relation)
    shares = relation.documents / np.maximum(relation.documents.sum(axis=1, keepdims=True), 1)
    rows = [
        {"across": x, "down": y, "documents": int(relation.documents[j, i]), "share": round(float(shares[j, i]), 4)}
        for j, y in enumerate(down)
        for i, x in enumerate(across)
    ]
    chart = _chart(rows).mark_rect().encode(
        x=alt.X("across:N", sort=None, title=label(relation.across.name), axis=alt.Axis(labelAngle=-40)),
        y=alt.Y("down:N", sort=None, title=label(relation.down.name), axis=alt.Axis(labelSeparation=6)),
        color=alt.Color("share:Q", title="share of the row", scale=_HEAT, legend=_HEAT_LEGEND),
        tooltip=[
            alt.Tooltip("down:N", title=label(relation.down.name)),
            alt.Tooltip("across:N", title=label(relation.across.name)),
            alt.Tooltip("documents:Q", format=","),
            alt.Tooltip("share:Q", format=_SHARE),
        ],
    )  # fmt: skip
    return _spec(chart, height=max((_ROW_HEIGHT if relation.down.bins is None else 10) * len(down), 60))


def axis_labels(relation: Relation) -> tuple[list[str], list[str]]:
    """The labels of a heat map's values across and down."""
    across, down = relation.values
    return _axis(relation.across, across), _axis(relation.down, down)


def layout_roles(layouts: Mapping[str, Mapping[str, Any]]) -> Spec:
    """Tokens of each layout by role."""
    names = _labels([(name, 0) for name in layouts])
    rows = [
        {"layout": name, "role": role, "number": number, "tokens": counts["tokens"][role]}
        for name, counts in zip(names, layouts.values(), strict=True)
        for number, role in reversed(list(enumerate(ROLE_NAMES)))
    ]
    scale = alt.Scale(domain=list(reversed(ROLE_NAMES)), range=list(reversed(ROLE_COLOURS)))
    chart = _chart(rows).mark_bar().encode(
        x=alt.X("tokens:Q", axis=alt.Axis(format="~s")),
        y=alt.Y("layout:N", sort=None, title=None),
        color=alt.Color("role:N", scale=scale, sort=None, legend=alt.Legend(orient="top", columns=4, title=None)),
        order=alt.Order("number:Q", sort="descending"),
        tooltip=["layout:N", "role:N", alt.Tooltip("tokens:Q", format=",")],
    )  # fmt: skip
    return _spec(chart, height=28 * len(names))


def stage_times(passes: Mapping[str, Mapping[str, Any]]) -> Spec:
    """Seconds of all workers in each step of each pass."""
    rows = [
        {"pass": label(name), "step": label(step), "seconds": seconds}
        for name, timing in passes.items()
        for step, seconds in timing["worker_seconds"].items()
    ]
    chart = _chart(rows).mark_bar().encode(
        x=alt.X("seconds:Q", title="seconds of all workers"),
        y=alt.Y("pass:N", sort=None, title=None),
        color=alt.Color("step:N", sort=None, legend=alt.Legend(orient="top", columns=3, title=None)),
        tooltip=["pass:N", "step:N", alt.Tooltip("seconds:Q", format=",.2f")],
    )  # fmt: skip
    return _spec(chart, height=28 * len(passes))


def curves(named: Mapping[str, Sequence[tuple[float, float]]], *, title: str) -> Spec:
    """Points (step, value) of each training run, as lines; of many points, evenly spaced ones."""
    rows = [
        {"training": label(name), "step": step, "value": value}
        for name, points in named.items()
        for step, value in _thinned(points)
    ]
    chart = _chart(rows).mark_line(point=len(rows) < 60 * max(len(named), 1)).encode(
        x=alt.X("step:Q", title="step"),
        y=alt.Y("value:Q", title=title, scale=alt.Scale(zero=False)),
        color=alt.Color("training:N", sort=None, legend=alt.Legend(orient="top", columns=3, title=None)),
        tooltip=["training:N", alt.Tooltip("step:Q", format=","), alt.Tooltip("value:Q", format=".4f")],
    )  # fmt: skip
    return _spec(chart, height=240)


def differences(found: Sequence[Difference]) -> Spec:
    """Differences of losses as points with their intervals, beside a line at 0."""
    names = _labels([(f"{one.label} − {one.base}", 0) for one in found])
    rows = [{"compared": name, "kind": one.kind, **one.estimate} for name, one in zip(names, found, strict=True)]
    tooltip = ["compared:N", *(alt.Tooltip(f"{name}:Q", format="+.4f") for name in ("value", "low", "high"))]
    y = alt.Y("compared:N", sort=None, title=None, axis=alt.Axis(labelLimit=300))
    base = _chart(rows).encode(y=y, color=alt.Color("kind:N", sort=None, legend=None), tooltip=tooltip)
    x = alt.X("low:Q", title="Δ bits/byte: below 0, the first one is better", scale=alt.Scale(zero=True))
    zero = _chart([{"zero": 0}]).mark_rule(strokeDash=[4, 3], color="#888888").encode(x="zero:Q")
    drawn = alt.layer(
        zero,
        base.mark_rule(strokeWidth=2).encode(x=x, x2="high:Q"),
        base.mark_point(filled=True, size=70).encode(x="value:Q"),
    )
    return _spec(drawn, height=36 * len(found) + 10)


def _chart(rows: Sequence[Mapping[str, Any]]) -> Any:
    return alt.Chart(alt.Data(values=list(rows)))


def _spec(chart: Any, *, height: float) -> Spec:
    spec: Spec = chart.properties(width="container", height=height).to_dict()
    spec.pop("config", None)  # the page has its own, for light and dark
    return spec


def _documents(axis: Any) -> Any:
    return axis("documents:Q", title="documents", axis=alt.Axis(format="~s", tickMinStep=1))


def _tooltip(value: str) -> list[Any]:
    return [value, alt.Tooltip("documents:Q", format=",")]


def _axis(column: Distribution, values: Sequence[Value]) -> list[str]:
    if column.bins is not None:
        return [interval(*column.bins.edges(int(value))) for value in values]
    return _labels([(value, 0) for value in values])


def _labels(values: Sequence[tuple[Value, int]]) -> list[str]:
    """A label for each value; those that are equal once they are cut get a number."""
    labels: dict[str, None] = {}
    for value, _ in values:
        name, number = label(value), 2
        while name in labels:
            name, number = f"{label(value)} ({number})", number + 1
        labels[name] = None
    return list(labels)


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    places = np.unique(np.linspace(0, len(points) - 1, min(len(points), _MOST_POINTS)).astype(int))
    return [points[place] for place in places] if len(points) else []
