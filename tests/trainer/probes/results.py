"""Results of probes for tests of notes and figures."""

from __future__ import annotations

from typing import Any

from colophon.trainer.evaluation.bootstrap import Estimate
from colophon.trainer.probes.report import ColumnReport, Excluded, ProbeResult, Score


def score(value: float, *, interval: bool = True) -> Score:
    """The same accuracy and macro-F1, with intervals of ± 0.1."""
    estimate = Estimate(value, value - 0.1, value + 0.1) if interval else Estimate(value, None, None)
    return Score(accuracy=estimate, macro_f1=estimate)


def column_report(
    classes: dict[str, tuple[int, int, int]], results: list[ProbeResult], *, excluded: Excluded | None = None
) -> ColumnReport:
    """A report on a column, from the number of documents of each class in each part."""
    return ColumnReport(
        column="topic",
        split_by="domain",
        classes={name: dict(zip(("train", "validation", "test"), of, strict=True)) for name, of in classes.items()},
        groups={"train": 18, "validation": 6, "test": 6},
        excluded=excluded or Excluded(),
        majority=score(0.4),
        permutations=5,
        results=results,
    )


def result_with(*warnings: Any, layer: int = 0, model: Any = "trained") -> ProbeResult:
    """The result of an MLP on mean states, with `warnings`."""
    return ProbeResult(
        layer=layer,
        states="mean",
        probe="mlp",
        model=model,
        score=score(0.3),
        accuracy_over_untrained=None,
        chosen=0.1,
        epochs=1,
        warnings=warnings,
    )
