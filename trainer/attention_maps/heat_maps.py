"""Figures of attention: its masses by layer and head, and distances between bins of documents."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from colophon.trainer.attention_maps.bins import METRICS, BinReport
from colophon.trainer.attention_maps.report import AttentionReport
from colophon.trainer.plots.figures import new_figure, shortened_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INCHES_PER_LETTER = 0.09
_MAX_COLUMNS, _MAX_TICKS = 4, 9
_MAX_DOUBLINGS = 4


def draw_attention(report: AttentionReport) -> Figure:
    """A heat map for each part: attention of each head of each layer as a multiple of even attention, on a log scale.

    Raises:
        TrainerError: matplotlib is not installed.
    """
    parts = report.parts
    columns = min(len(parts), _MAX_COLUMNS)
    num_rows = -(-len(parts) // columns)
    with new_figure(width=1.2 + 2.3 * columns, height=1.1 + 2.3 * num_rows) as figure:
        grid = figure.subplots(num_rows, columns, squeeze=False, sharex=True, sharey=True)
        panels = grid.ravel()
        for axes in panels[len(parts) :]:
            axes.set_visible(False)
        ratios = [np.log2(np.maximum(part.by_head, 1e-9) / max(part.uniform, 1e-9)) for part in parts]
        largest = max(float(np.abs(ratio).max()) for ratio in ratios)
        limit = min(_MAX_DOUBLINGS, max(1, math.ceil(largest)))
        images = []
        for axes, part, ratio in zip(panels, parts, ratios, strict=False):
            images.append(axes.imshow(ratio, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto", origin="lower"))
            axes.set_title(f"{part.part}\n{part.mass.value:.1%} (evenly {part.uniform:.1%})")
            axes.set_xticks(*_ticks(len(part.by_head[0])))
            axes.set_yticks(*_ticks(len(part.by_head)))
            axes.spines[:].set_visible(True)
        for row in grid:
            row[0].set_ylabel("layer")
        for axes in panels[max(0, len(parts) - columns) : len(parts)]:
            axes.set_xlabel("head")
            axes.tick_params(labelbottom=True)
        bar = figure.colorbar(images[-1], ax=grid, extend="both", shrink=0.8, ticks=range(-limit, limit + 1))
        bar.set_ticklabels([f"1/{2**-power}" if power < 0 else f"{2**power}" for power in range(-limit, limit + 1)])
        bar.set_label("attention, as a multiple of even attention")
        figure.suptitle(
            f"{report.name}, step {report.step:,}, layout {report.layout}: attention of text tokens "
            f"({report.documents} documents)"
        )
        return figure


def _ticks(count: int) -> tuple[list[int], list[str]]:
    """Places and names, from 1, of at most nine of `count` layers or heads: 12 gives 1, 3, 5, 7, 9, 11."""
    places = list(range(0, count, -(-count // _MAX_TICKS)))
    return places, [str(place + 1) for place in places]


def draw_bins(report: BinReport, *, title: str) -> Figure:
    """A heat map for each metric: mean distance of documents, bin by bin.

    Raises:
        TrainerError: matplotlib is not installed.
    """
    names, size = [shortened_label(name) for name in report.bins], len(report.bins)
    longest = max(map(len, names)) * _INCHES_PER_LETTER
    # Wide enough for the titles, and for names beside and below the maps.
    width, height = max(9.5, 2 * (2.2 + longest + 0.5 * size)), max(4.0, 2.2 + 0.7 * longest + 0.5 * size)
    with new_figure(width=width, height=height) as figure:
        for axes, distances in zip(figure.subplots(1, len(METRICS)), report.distances, strict=True):
            image = axes.imshow(np.array(distances.pairs), cmap="cividis")
            axes.set_xticks(range(size), names, rotation=45, ha="right")
            axes.set_yticks(range(size), names)
            axes.set_title(
                f"{distances.metric}: within {distances.within:.3g},\n"
                f"between {distances.between:.3g} (p = {distances.p_value:.3f})"
            )
            axes.set_xlabel(report.column)
            figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03, label="mean distance of two documents")
        figure.suptitle(title)
        return figure
