"""Human-readable notes on a column's probes: excluded classes, small classes, uneven parts, and warnings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, product

from colophon.trainer.probes.labels import BY_DOCUMENT, SHARES
from colophon.trainer.probes.report import ClassSize, ColumnReport, Control, ProbeResult, ProbeWarning

FEW_DOCUMENTS = 10
"""A class with fewer documents in a part is noted."""
_MAX_DEVIATION = 0.1
_MAX_EXAMPLES = 3
_WARNINGS: dict[ProbeWarning, str] = {
    "not_above_majority": "no more accurate than predicting the most frequent class",
    "first_epoch": "lowest validation loss after the first epoch",
    "limit": "not converged at the last iteration or epoch",
}
_MODELS: dict[Control, str] = {"trained": "the trained model", "untrained": "the untrained model"}
"""Shuffled labels are omitted: a probe of them has nothing to find."""


def notes(column: ColumnReport) -> list[str]:
    """Lines on excluded classes, small classes, uneven parts and probes with warnings; empty if there are none."""
    lines = (*_notes_on_excluded(column), *_notes_on_parts(column), *_notes_on_probes(column))
    return [f"{column.column}: {line}" for line in lines]


def _notes_on_excluded(column: ColumnReport) -> Iterator[str]:
    """Yield a line on classes with enough documents, perhaps the largest of all, in too few groups."""
    excluded = column.excluded.by_group()
    if excluded:
        largest = sorted(excluded.items(), key=lambda item: -item[1].documents)
        classes = [f"class {name!r} ({_size(size, group=column.split_by)})" for name, size in largest]
        pronoun = "it" if len(excluded) == 1 else "them"
        remedy = "" if column.split_by == BY_DOCUMENT else f"; --split-by {BY_DOCUMENT} would include {pronoun}"
        yield f"excluded, because the documents cannot be divided by group: {_examples(classes)}{remedy}"


def _notes_on_parts(column: ColumnReport) -> Iterator[str]:
    small = [f"{name} ({_by_part(c)})" for name, c in column.classes.items() if min(c.values()) < FEW_DOCUMENTS]
    if small:
        yield (f"macro-F1 depends on classes with fewer than {FEW_DOCUMENTS} documents in a part: {_examples(small)}")
    shares = {name: _shares(counts) for name, counts in column.classes.items()}
    deviations = {name: max(abs(of[part] - wanted) for part, wanted in SHARES.items()) for name, of in shares.items()}
    worst = max(deviations, key=lambda name: deviations[name])
    if deviations[worst] > _MAX_DEVIATION:
        wanted, found = (", ".join(f"{of[part]:.0%} {part}" for part in SHARES) for of in (SHARES, shares[worst]))
        yield (
            f"each class should be divided into {wanted}; class {worst!r} deviates most, with {found}: documents of "
            f"one {column.split_by} are never divided"
        )


def _notes_on_probes(column: ColumnReport) -> Iterator[str]:
    for (warning, description), (control, model) in product(_WARNINGS.items(), _MODELS.items()):
        results = [r for r in column.results if warning in r.warnings and r.model == control]
        if results:
            yield f"{_counted(len(results), 'probe')} of {model}: {description} ({'; '.join(_layers_by_kind(results))})"


def _layers_by_kind(results: Sequence[ProbeResult]) -> Iterator[str]:
    """Yield `last, linear of layers 0, 2` and so on."""

    def kind(result: ProbeResult) -> tuple[str, str]:
        return result.states, result.probe

    for (states, probe), group in groupby(sorted(results, key=kind), kind):
        layers = sorted(result.layer for result in group)
        yield f"{states}, {probe} of layer{'s' * (len(layers) > 1)} {', '.join(map(str, layers))}"


def _examples(items: Sequence[str]) -> str:
    """`a; b; c; and 2 more`."""
    more = f"; and {len(items) - _MAX_EXAMPLES} more" if len(items) > _MAX_EXAMPLES else ""
    return "; ".join(items[:_MAX_EXAMPLES]) + more


def _size(size: ClassSize, *, group: str) -> str:
    return f"{_counted(size.documents, 'document')} in {_counted(size.groups, 'group')} of {group}"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _shares(counts: dict[str, int]) -> dict[str, float]:
    total = sum(counts.values())
    return {part: count / total for part, count in counts.items()}


def _by_part(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {part}" for part, count in counts.items())
