"""The figure of a study: what the class is worth along a document, the distance from the floors, the class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from results import Estimate, Record, Results

from colophon.trainer.plots.figures import COLOURS, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FLOOR, _PLAIN, _PREPEND, _OTHER = "#888888", COLOURS[0], COLOURS[1], COLOURS[2]


def save_figure(records: Sequence[Record], to: Path) -> None:
    """Draw the results of all layouts, as the suffix of `to` names: `.png`, `.svg` or `.webp`."""
    results = Results(records)
    with new_figure(width=10, height=3.2) as figure:
        gain, excess, classes = figure.subplots(1, 3, width_ratios=(1.1, 1.1, 0.8))
        _draw_gain(gain, results)
        _draw_excess(excess, results)
        _draw_class(classes, results)
        figure.savefig(to, dpi=110)


def _draw_gain(axes: Axes, results: Results) -> None:
    exact, places = results.exact_gain, np.arange(len(results.words))
    axes.plot(places, exact, color=_FLOOR, label="exact: I(class; word | words before)")
    _points(axes, places, [results.gain(part) for part in range(len(exact))], colour=_PREPEND)
    axes.plot([], [], "o", color=_PREPEND, label="trained: plain − prepend")
    axes.set_xticks(places, results.part_names)
    axes.set(title="What the class is worth", xlabel="word of the document", ylabel="nats per word", ylim=(0, None))
    axes.legend(frameon=False, fontsize="small", loc="lower left")


def _draw_excess(axes: Axes, results: Results) -> None:
    arms = results.arms[::-1]
    for place, arm in enumerate(arms):
        limit, colour = (0.02, _PREPEND) if arm == "prepend" else (0.04, _PLAIN if arm == "plain" else _OTHER)
        axes.plot([limit, limit], [place - 0.35, place + 0.35], color=_FLOOR)
        _points(axes, place, [results.excess(arm)], colour=colour, upright=False)
    axes.set_yticks(range(len(arms)), arms)
    axes.set(title="Above the floor", xlabel="nats per word; grey: the limit", xlim=(0, 0.045))


def _draw_class(axes: Axes, results: Results) -> None:
    exact = results.exact
    floors = {"append": ("H(class | text)", exact["class_after_text"]), "append-control": ("H(class)", exact["class"])}
    for place, (arm, (name, floor)) in enumerate(floors.items()):
        axes.plot([place - 0.35, place + 0.35], [floor, floor], color=_FLOOR)
        axes.annotate(name, (place, floor), xytext=(0, 6), textcoords="offset points", ha="center", fontsize="small")
        _points(axes, place, [results.of(arm, lambda record: float(record["class_after_text"]))], colour=_OTHER)
    axes.set_xticks(range(2), list(floors))
    axes.set(title="The class after the text", ylabel="nats; grey: exact", xlim=(-0.6, 1.6), ylim=(0, 1.6))


def _points(axes: Axes, places: object, found: Sequence[Estimate], *, colour: str, upright: bool = True) -> None:
    """Draw means with their intervals over seeds."""
    means, halves = [each.mean for each in found], [each.half_width for each in found]
    x, y, error = (np.atleast_1d(places), means, "yerr") if upright else (means, np.atleast_1d(places), "xerr")
    axes.errorbar(x, y, fmt="o", color=colour, markersize=4, capsize=3, linewidth=1, **{error: halves})
