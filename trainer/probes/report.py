"""Results of probes: as data for JSON, and as a figure of curves over layers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from colophon.trainer.evaluation.bootstrap import Estimate
from colophon.trainer.plots.figures import COLOURS, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

States: TypeAlias = Literal["last", "mean"]
Kind: TypeAlias = Literal["linear", "mlp"]
Control: TypeAlias = Literal["trained", "untrained", "shuffled"]
ProbeContext: TypeAlias = Literal["none", "empty"]
STATES: tuple[States, ...] = ("last", "mean")
KINDS: tuple[Kind, ...] = ("linear", "mlp")
CONTROLS: tuple[Control, ...] = ("trained", "untrained", "shuffled")
CONTEXTS: tuple[ProbeContext, ...] = ("none", "empty")

ProbeWarning: TypeAlias = Literal["limit", "first_epoch", "not_above_majority"]
"""Why a score may describe the probe rather than the states: it stopped at its iteration or epoch limit, its validation
loss was lowest after the first epoch, or it is no more accurate than predicting the most frequent class."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """Scores of predictions on the test documents."""

    accuracy: Estimate
    macro_f1: Estimate


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """The result of one probe."""

    layer: int
    """0: the embedding; n: after layer n."""
    states: States
    probe: Kind
    model: Control
    """`shuffled`: the trained model, with labels shuffled for the fit."""
    score: Score
    accuracy_over_untrained: Estimate | None
    """Trained model: its accuracy minus that of the untrained model, on the same draws. None for the controls."""
    chosen: float
    """The penalty's strength (linear) or the learning rate (MLP) with the lowest validation loss."""
    epochs: int
    """MLP: epochs until the lowest validation loss. Linear probe: iterations over all training documents."""
    warnings: tuple[ProbeWarning, ...]

    @property
    def is_suspect(self) -> bool:
        """Whether the table and the figure mark it; never with shuffled labels, where there is nothing to find."""
        return bool(self.warnings) and self.model != "shuffled"


@dataclass(frozen=True, kw_only=True)
class ClassSize:
    """Documents and groups of an excluded class."""

    documents: int
    groups: int


@dataclass(frozen=True, kw_only=True)
class Excluded:
    """Documents without a class, and excluded classes by reason, the largest first."""

    documents_without_value: int = 0
    few_documents: dict[str, ClassSize] = field(default_factory=dict)
    """Fewer than 20."""
    few_groups: dict[str, ClassSize] = field(default_factory=dict)
    """Enough documents, in fewer groups than there are parts."""
    few_documents_in_a_part: dict[str, ClassSize] = field(default_factory=dict)
    """So many documents in one group that a part would have fewer than 3."""

    def by_group(self) -> dict[str, ClassSize]:
        """Classes with enough documents that are excluded because of their groups."""
        return {**self.few_groups, **self.few_documents_in_a_part}


@dataclass(frozen=True, kw_only=True)
class ColumnReport:
    """The probes for one annotation column."""

    column: str
    split_by: str
    classes: dict[str, dict[str, int]]
    """Number of documents of each class in each part."""
    groups: dict[str, int]
    """Number of groups, such as domains, in each part; none is in two."""
    excluded: Excluded
    majority: Score
    """The score of predicting the most frequent class of the training part."""
    results: list[ProbeResult]


@dataclass(frozen=True, kw_only=True)
class ProbeReport:
    """The content of `training/<name>/probe-<settings>.json`."""

    name: str
    step: int
    output: str
    """`output.path` of the run that the documents come from."""
    context: ProbeContext
    documents: int
    crop: int
    seed: int
    columns: list[ColumnReport]
    notes: tuple[str, ...] = ()
    """Lines on columns whose values mean something else than in training."""

    def as_dict(self) -> dict[str, Any]:
        """The report for JSON; the keys are the fields of the classes."""
        return asdict(self)


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


_LINE_STYLES: dict[Control, str] = {"trained": "-", "untrained": "--", "shuffled": ":"}
_MARKERS: dict[Kind, str] = {"linear": "o", "mlp": "s"}


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
