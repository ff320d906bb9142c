"""Results of probes, as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from colophon.trainer.evaluation.bootstrap import Estimate

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
    """With `shuffled`: the mean over the permutations, and the lowest and the highest of them."""
    accuracy_over_untrained: Estimate | None
    """Trained model: its accuracy minus that of the untrained model, on the same draws. None for the controls."""
    chosen: float
    """The penalty's strength (linear) or the learning rate (MLP) with the lowest validation loss."""
    epochs: int
    """MLP: epochs until the lowest validation loss. Linear probe: iterations over all training documents. Of the first
    permutation with `shuffled`, as `chosen`."""
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
    permutations: int
    """Number of permutations of the labels for `shuffled`."""
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
