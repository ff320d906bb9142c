"""Curves of training runs from their `metrics.jsonl`; `trainer.metrics` tells what stands there."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.errors import TrainerError
from colophon.trainer.plots.figures import new_figure, style_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

X_LABELS = {
    "step": "steps",
    "tokens": "tokens",
    "text_tokens": "text tokens",
    "seconds": "seconds in steps",
}
Y_LABELS = {
    "text_loss": "loss on text (nats a token)",
    "validation_text_loss": "validation loss on text (nats a token)",
    "loss": "loss that is minimised (nats a token)",
    "metadata_loss": "loss on metadata (nats a token)",
    "validation_metadata_loss": "validation loss on metadata (nats a token)",
    "metadata_accuracy": "accuracy of metadata",
    "validation_metadata_accuracy": "validation accuracy of metadata",
    "lr": "learning rate",
    "grad_norm": "norm of the gradient before clipping",
    "tokens_per_second": "tokens a second",
    "mfu": "share of the hardware's peak (MFU)",
    "data_wait": "share of the step waited for data",
    "memory_gb": "memory (GB)",
}
_VALIDATIONS = {
    "text_loss": "validation_text_loss",
    "loss": "validation_text_loss",
    "metadata_loss": "validation_metadata_loss",
    "metadata_accuracy": "validation_metadata_accuracy",
}
"""What is drawn as points beside a curve."""
_MAX_END_LABELS = 8
_LEGEND_COLUMNS = 4
_SMOOTH = 0.9
_WINDOW = 1 / 40
"""Of the longest curve: how far smoothing spreads a step, so that a spike of one step looks like one."""
_OUTLYING = 4
"""How many times their usual height values may lie above or below what is usual before they are cut off."""
_USUAL = 0.01, 0.99
_FEW = 20
_NOT_NOISY = ("lr",)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One quantity of one run; `n` steps that have it, `v` validations."""

    name: str
    """Of the run."""
    x: NumPyArray
    """float64 [n], ascending."""
    y: NumPyArray
    """float64 [n]."""
    validation_x: NumPyArray
    """float64 [v]."""
    validation_y: NumPyArray
    """float64 [v]: empty where the quantity is not a loss on text."""


def training_runs(output: Path) -> list[str]:
    """Names of the training runs under `output` that have metrics."""
    return sorted(path.parent.name for path in output.glob("training/*/metrics.jsonl"))


def read_curve(output: Path, name: str, *, x: str = "step", y: str = "text_loss") -> Curve:
    """The curve of the training run `name` under `output`.

    Seconds are those that steps took, by their tokens and tokens a second; validation and checkpoints are not counted.

    Args:
        output: the `output.path` of the recipe.
        name: of the training run.
        x: one of `X_LABELS`.
        y: one of `Y_LABELS`.

    Raises:
        TrainerError: no such run, an unknown quantity, or one that the run never logged (the choices are listed).
    """
    for option, value, known in (("x", x, X_LABELS), ("y", y, Y_LABELS)):
        if value not in known:
            raise TrainerError(f"{option}: unknown quantity {value!r}; available: {', '.join(known)}")
    path = output / "training" / name / "metrics.jsonl"
    if not path.is_file():
        raise TrainerError(
            f"{output}: no metrics of a training run {name!r}; available: {', '.join(training_runs(output)) or 'none'}"
        )
    records = _records(path)
    steps = [record for record in records if "loss" in record]
    places = _places(steps, x)
    validation = _VALIDATIONS.get(y, y)
    validations = [record for record in records if "loss" not in record and record.get(validation) is not None]
    measured = [record for record in steps if record.get(y) is not None]
    if not measured and not validations:
        raise TrainerError(f"{path}: has no {y}; available: {', '.join(_logged(records)) or 'nothing yet'}")
    return Curve(
        name=name,
        x=_array(places[record["step"]] for record in measured),
        y=_array(record[y] for record in measured),
        validation_x=_array(places[record["step"]] for record in validations if record["step"] in places),
        validation_y=_array(record[validation] for record in validations if record["step"] in places),
    )


def read_curves(output: Path, names: Sequence[str] | None, *, x: str = "step", y: str = "text_loss") -> list[Curve]:
    """The curves of some training runs; None: of all that logged the quantity.

    Raises:
        TrainerError: as `read_curve`; or no run has metrics.
    """
    if names is not None:
        return [read_curve(output, name, x=x, y=y) for name in dict.fromkeys(names)]
    found, missing = [], TrainerError(f"{output}: no training run has metrics yet; colophon train makes them")
    for name in training_runs(output):
        try:
            found.append(read_curve(output, name, x=x, y=y))
        except TrainerError as error:
            missing = error
    if not found:
        raise missing
    return found


def smoothed(values: NumPyArray, *, factor: float) -> NumPyArray:
    """Moving average float64 [n] of `values` [n]: weights fall by `factor` in [0, 1) a step back, and sum to 1 from the
    first value on (the bias correction of Adam, arXiv 1412.6980, section 3). NaN has no weight; before the first number
    there is none."""
    result = np.empty(len(values))
    total = weight = 0.0
    for i, value in enumerate(values.tolist()):
        known = 0.0 if math.isnan(value) else 1 - factor
        total, weight = factor * total + (known * value if known else 0.0), factor * weight + known
        result[i] = total / weight if weight else math.nan
    return result


def smoothing_for(curves: Sequence[Curve], y: str) -> float:
    """Factor of `smoothed` for curves of `y`: 0.9 from 400 steps on, less for shorter curves, none up to 40 steps, and
    none for a learning rate, which has no noise.

    An average over 1 / (1 - factor) steps lags by about as many: at most a fortieth of the longest curve.
    """
    longest = max(len(curve.x) for curve in curves)
    return 0.0 if y in _NOT_NOISY else round(min(_SMOOTH, max(0.0, 1 - 1 / max(1.0, longest * _WINDOW))), 2)


def draw_curves(curves: Sequence[Curve], *, x: str, y: str, smooth: float | None = None) -> Figure:
    """Curves of several runs over one another: smoothed lines over their own pale values, validations as points.

    The axis holds every value, but for single ones that lie far beyond all others; the title counts them, and the
    averages leave them out.

    Args:
        curves: at least one.
        x: what they were read by.
        y: what they show.
        smooth: factor of `smoothed`; 0: none. None: as `smoothing_for` has it.

    Raises:
        TrainerError: `smooth` is not in [0, 1), or matplotlib is not installed.
    """
    if smooth is None:
        smooth = smoothing_for(curves, y)
    if not 0 <= smooth < 1:
        raise TrainerError(f"smooth must be at least 0 and below 1, got {smooth}")
    low, high, num_cut = _bounds(curves)
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
        axes.xaxis.set_major_formatter(_counts())
        if y == "tokens_per_second":
            axes.yaxis.set_major_formatter(_counts())
        axes.set_title(_title(curves, smooth=smooth, num_cut=num_cut))
        margin = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
        axes.set_ylim(low - margin, high + margin)
        if in_legend:
            figure.legend(frameon=False, loc="outside lower center", ncols=_LEGEND_COLUMNS, fontsize="small")
        else:
            _label_ends(axes, curves, lines=lines)
        return figure


def _records(path: Path) -> list[dict[str, Any]]:
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:  # the last line of a run that is being written, or was killed
            continue
    return records


def _places(steps: Sequence[Mapping[str, Any]], x: str) -> dict[int, float]:
    """Where each step stands on the axis `x`; step 0 too, for a validation before training."""
    places, tokens, seconds = {0: 0.0}, 0, 0.0
    for record in steps:
        seconds += (record["tokens"] - tokens) / record["tokens_per_second"] if record["tokens_per_second"] else 0.0
        tokens = record["tokens"]
        places[record["step"]] = seconds if x == "seconds" else float(record[x])
    return places


def _logged(records: Sequence[Mapping[str, Any]]) -> list[str]:
    return [name for name in Y_LABELS if any(record.get(name) is not None for record in records)]


def _array(values: Any) -> NumPyArray:
    return np.fromiter(values, np.float64)


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


def _title(curves: Sequence[Curve], *, smooth: float, num_cut: int) -> str:
    parts = []
    if any(len(curve.x) for curve in curves) and smooth:
        parts.append(f"lines: training, smoothed by {smooth:g}; pale: each step")
    elif any(len(curve.x) and len(curve.validation_x) for curve in curves):
        parts.append("lines: training")
    if any(len(curve.x) and len(curve.validation_x) for curve in curves):
        parts.append("points: validation")
    if num_cut:
        parts.append(f"{num_cut:,} value{'s' if num_cut > 1 else ''} beyond the axis")
    return "; ".join(parts)


def _bounds(curves: Sequence[Curve]) -> tuple[float, float, int]:
    """The lowest and the highest value that the axis holds, and how many it does not.

    Those are cut off that lie further beyond the middle 98 % than `_OUTLYING` times its height: they would flatten all
    the rest.
    """
    values = np.concatenate([part for c in curves for part in (c.y, c.validation_y)])
    kept = values
    if len(values) >= _FEW:
        # Never the extreme values themselves, however few there are.
        low = float(np.quantile(values, _USUAL[0], method="higher"))
        high = float(np.quantile(values, _USUAL[1], method="lower"))
        beyond = _OUTLYING * (high - low)
        kept = values[(values >= low - beyond) & (values <= high + beyond)] if beyond else values
    return float(kept.min()), float(kept.max()), len(values) - len(kept)


def _label_ends(axes: Axes, curves: Sequence[Curve], *, lines: Sequence[NumPyArray]) -> None:
    """The runs' names beside the axes, moved apart where they would overlap, with a line to the end of each curve."""
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
    """Heights at least `gap` from each other, in the same order, about where they were."""
    order = np.argsort(heights, kind="stable")
    placed = np.asarray(heights, np.float64)[order]
    # Least squares under "each at least `gap` above the one before": the pool-adjacent-violators algorithm on the
    # heights without their gaps.
    blocks: list[list[float]] = []
    for value in placed - gap * np.arange(len(placed)):
        blocks.append([value])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    level = np.concatenate([[np.mean(block)] * len(block) for block in blocks])
    result = np.empty(len(placed))
    result[order] = level + gap * np.arange(len(placed))
    return [float(height) for height in result]


def _counts() -> Any:
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep="")
