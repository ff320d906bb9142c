"""Figures of the scores of probes over layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from colophon.trainer.plots.figures import COLOURS, new_figure
from colophon.trainer.probes.report import CONTROLS, KINDS, STATES, ColumnReport, Control, Kind, ProbeReport, States

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINE_STYLES: dict[Control, str] = {"trained": "-", "untrained": "--", "shuffled": ":"}
_MARKERS: dict[Kind, str] = {"linear": "o", "mlp": "s"}


def draw_probes(report: ProbeReport) -> Figure:
    """A figure of macro-F1 over layers: a row for each column, with axes for last and for mean states.

    Raises:
        TrainerError: matplotlib is not installed.
    """
    with new_figure(width=8, height=0.6 + 2.9 * len(report.columns)) as figure:
        grid = figure.subplots(len(report.columns), len(STATES), sharex=True, sharey="row", squeeze=False)
        for row, column in zip(grid, report.columns, strict=True):
            for axes, states in zip(row, STATES, strict=True):
                _draw(axes, column, states)
            row[0].set_ylabel(f"macro-F1 of {column.column}\n({len(column.classes)} classes)")
        for axes in grid[-1]:
            axes.set_xlabel("layer (0: embedding)")
        figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
        has_suspects = any(result.is_suspect for column in report.columns for result in column.results)
        figure.suptitle(
            f"{report.name}, step {report.step:,}: linear and MLP probes of frozen states"
            + ("\nhollow points: see `warnings`" if has_suspects else "")
        )
        return figure


def _draw(axes: Axes, column: ColumnReport, states: States) -> None:
    from matplotlib.ticker import MaxNLocator

    for control in CONTROLS:
        size = 4 if control == "trained" else 2.5
        for kind, colour in zip(KINDS, COLOURS, strict=False):
            results = [r for r in column.results if (r.model, r.probe, r.states) == (control, kind, states)]
            x, f1 = [r.layer for r in results], [r.score.macro_f1 for r in results]
            if control == "trained" and all(e.low is not None and e.high is not None for e in f1):
                low, high = [e.low or 0.0 for e in f1], [e.high or 0.0 for e in f1]
                axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(
                x,
                [e.value for e in f1],
                color=colour,
                linestyle=_LINE_STYLES[control],
                marker=_MARKERS[kind],
                markersize=size,
                linewidth=1.6 if control == "trained" else 1,
                label=f"{kind}, {'shuffled labels' if control == 'shuffled' else control}",
            )
            suspects = [r for r in results if r.is_suspect]
            if suspects:
                axes.plot(
                    [r.layer for r in suspects],
                    [r.score.macro_f1.value for r in suspects],
                    color=colour,
                    linestyle="none",
                    marker=_MARKERS[kind],
                    markersize=size,
                    markerfacecolor="white",
                    zorder=3,  # above the full points of shuffled labels, which are often at the same place
                )
    majority = column.majority.macro_f1.value
    axes.axhline(majority, color="#777777", linewidth=1, label="most frequent class")
    axes.set_title("last text token" if states == "last" else "mean over text tokens")
    axes.set_ylim(0, 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True, axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
