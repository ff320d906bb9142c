"""Figures of curves of training runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.errors import TrainerError
from colophon.trainer.plots.curves import X_LABELS, Y_LABELS, Curve
from colophon.trainer.plots.figures import new_figure, style_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_END_LABELS = 8
_LEGEND_COLUMNS = 4
_SMOOTH = 0.9
_WINDOW = 1 / 40
"""Smoothing spreads a step over at most this share of the longest curve, so a spike of one step stays narrow."""
_OUTLIER_HEIGHTS = 4
"""A value is an outlier if it is further outside the middle 98 % than this many times their height."""
_MIDDLE = 0.01, 0.99
_MIN_VALUES_WITH_OUTLIERS = 20
_NOT_NOISY = ("lr",)


def smoothed(values: NumPyArray, *, factor: float) -> NumPyArray:
    """Moving average float64 [n] of `values` [n].

    Weights fall by `factor` in [0, 1) a step back, and sum to 1 from the first value on (the bias correction of Adam,
    arXiv 1412.6980, section 3). NaN has no weight; the average is NaN before the first number.
    """
    result = np.empty(len(values))
    total = weight = 0.0
    for i, value in enumerate(values.tolist()):
        known = 0.0 if math.isnan(value) else 1 - factor
        total, weight = factor * total + (known * value if known else 0.0), factor * weight + known
        result[i] = total / weight if weight else math.nan
    return result


def smoothing_for(curves: Sequence[Curve], y: str) -> float:
    """The factor of `smoothed` for curves of `y`.

    It is 0.9 from 400 steps on, less for shorter curves, and 0 up to 40 steps and for a learning rate, which has no
    noise. An average over 1 / (1 - factor) steps lags by about as many: at most a fortieth of the longest curve.
    """
    longest = max(len(curve.x) for curve in curves)
    return 0.0 if y in _NOT_NOISY else round(min(_SMOOTH, max(0.0, 1 - 1 / max(1.0, longest * _WINDOW))), 2)


def draw_curves(curves: Sequence[Curve], *, x: str, y: str, smooth: float | None = None) -> Figure:
    """A figure of several runs: smoothed lines over the pale values of the steps, validations as points.

    The axis holds every value except outliers; the title counts them, and the averages exclude them.

    Args:
        curves: at least one.
        x: the quantity of their x axis.
        y: the quantity of their y axis.
        smooth: factor of `smoothed`; 0: none. None: `smoothing_for` decides.

    Raises:
        TrainerError: `smooth` is not in [0, 1), or matplotlib is not installed.
    """
    if smooth is None:
        smooth = smoothing_for(curves, y)
    if not 0 <= smooth < 1:
        raise TrainerError(f"smooth must be at least 0 and below 1, got {smooth}")
    low, high, num_outliers = _bounds(curves)
    inside = [np.where((curve.y < low) | (curve.y > high), np.nan, curve.y) for curve in curves]
    lines = [smoothed(values, factor=smooth) for values in inside]
    in_legend = len(curves) > _MAX_END_LABELS
    legend_rows = -(-len(curves) // _LEGEND_COLUMNS) if in_legend else 0
    with new_figure(width=8, height=4.8 + 0.22 * legend_rows) as figure:
        axes = figure.subplots()
        for number, (curve, line) in enumerate(zip(curves, lines, strict=True)):
            _draw(axes, curve, line=line, number=number, raw=bool(smooth))
        axes.set_xlabel(X_LABELS[x])
        axes.set_ylabel(Y_LABELS[y])
        axes.grid(visible=True, axis="y", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.xaxis.set_major_formatter(_count_format())
        if y == "tokens_per_second":
            axes.yaxis.set_major_formatter(_count_format())
        axes.set_title(_title(curves, smooth=smooth, num_outliers=num_outliers))
        margin = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
        axes.set_ylim(low - margin, high + margin)
        if in_legend:
            figure.legend(frameon=False, loc="outside lower center", ncols=_LEGEND_COLUMNS, fontsize="small")
        else:
            _label_ends(axes, curves, lines=lines)
        return figure


def _draw(axes: Axes, curve: Curve, *, line: NumPyArray, number: int, raw: bool) -> None:
    colour, line_style = style_of(number)
    if len(curve.x):
        if raw:
            axes.plot(curve.x, curve.y, color=colour, alpha=0.35, linewidth=0.8)
        axes.plot(curve.x, line, color=colour, linestyle=line_style, linewidth=1.6, label=curve.name)
    if len(curve.validation_x):
        alone = not len(curve.x)
        axes.plot(
            curve.validation_x,
            curve.validation_y,
            color=colour,
            linestyle=line_style if alone else "none",
            linewidth=0.8,
            marker="o",
            markersize=5,
            markeredgecolor="white",
            markeredgewidth=0.7,
            label=curve.name if alone else None,
        )


def _title(curves: Sequence[Curve], *, smooth: float, num_outliers: int) -> str:
    parts = []
    if any(len(curve.x) for curve in curves) and smooth:
        parts.append(f"lines: training, smoothed by {smooth:g}; pale: each step")
    elif any(len(curve.x) and len(curve.validation_x) for curve in curves):
        parts.append("lines: training")
    if any(len(curve.x) and len(curve.validation_x) for curve in curves):
        parts.append("points: validation")
    if num_outliers:
        parts.append(f"{num_outliers:,} value{'s' if num_outliers > 1 else ''} beyond the axis")
    return "; ".join(parts)


def _bounds(curves: Sequence[Curve]) -> tuple[float, float, int]:
    """The lowest and the highest value on the axis, and the number of outliers, which would flatten all other values.

    With the middle 98 % from 2 to 4, values below -6 and above 12 are outliers.
    """
    values = np.concatenate([part for c in curves for part in (c.y, c.validation_y)])
    kept = values
    if len(values) >= _MIN_VALUES_WITH_OUTLIERS:
        # Quantiles inside the extreme values, however few values there are.
        low = float(np.quantile(values, _MIDDLE[0], method="higher"))
        high = float(np.quantile(values, _MIDDLE[1], method="lower"))
        beyond = _OUTLIER_HEIGHTS * (high - low)
        kept = values[(values >= low - beyond) & (values <= high + beyond)] if beyond else values
    return float(kept.min()), float(kept.max()), len(values) - len(kept)


def _label_ends(axes: Axes, curves: Sequence[Curve], *, lines: Sequence[NumPyArray]) -> None:
    """Write the runs' names beside the axes, moved apart where they would overlap, with a line to each curve's end."""
    ends = [
        (line[-1], c.x[-1]) if len(c.x) else (c.validation_y[-1], c.validation_x[-1])
        for c, line in zip(curves, lines, strict=True)
    ]
    low, high = axes.get_ylim()
    heights = _moved_apart([(y - low) / (high - low) for y, _ in ends], gap=0.05)
    for number, (curve, (y, x), height) in enumerate(zip(curves, ends, heights, strict=True)):
        colour = style_of(number)[0]
        axes.annotate(
            curve.name,
            xy=(x, y),
            xytext=(1.045, height),
            textcoords="axes fraction",
            color=colour,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "linestyle": ":",
                "color": colour,
                "linewidth": 0.8,
                "shrinkA": 1,
                "shrinkB": 1,
            },
        )


def _moved_apart(heights: Sequence[float], *, gap: float) -> list[float]:
    """Heights in the same order and at least `gap` apart, as near as possible to the given ones.

    Heights [0.5, 0.5] with a gap of 0.1 become [0.45, 0.55].
    """
    order = np.argsort(heights, kind="stable")
    placed = np.asarray(heights, np.float64)[order]
    # Least squares where each height is at least `gap` above the one before: the pool-adjacent-violators algorithm on
    # the heights without their gaps.
    blocks: list[list[float]] = []
    for value in placed - gap * np.arange(len(placed)):
        blocks.append([value])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    level = np.concatenate([[np.mean(block)] * len(block) for block in blocks])
    result = np.empty(len(placed))
    result[order] = level + gap * np.arange(len(placed))
    return [float(height) for height in result]


def _count_format() -> Any:
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep="")
