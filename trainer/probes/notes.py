"""What to know before one believes a column's scores, in lines for a person."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, product

from colophon.trainer.probes.labels import BY_DOCUMENT, SHARES
from colophon.trainer.probes.report import ClassSize, ColumnReport, Control, Doubt, ProbeResult

FEW_DOCUMENTS = 10
"""Of a class in a part."""
_FAR = 0.1
_LISTED = 3
_DOUBTS: dict[Doubt, str] = {
    "not_above_majority": "no more documents hit than by guessing the most frequent class",
    "first_epoch": "lowest validation loss after the first epoch",
    "limit": "not converged at the last iteration or epoch",
}
_TOLD: dict[Control, str] = {"trained": "the trained model", "untrained": "the untrained model"}
"""Shuffled labels have nothing to be found."""


def notes(column: ColumnReport) -> list[str]:
    """Lines on classes left out, small ones, uneven parts and doubtful probes; none where there is nothing to say.

    Probes of shuffled labels have nothing to find, so theirs are left out.
    """
    return [f"{column.column}: {line}" for line in (*_on_left_out(column), *_on_parts(column), *_on_probes(column))]


def _on_left_out(column: ColumnReport) -> Iterator[str]:
    """Classes that are large enough, maybe the largest of all, but lie in too few groups."""
    found = column.left_out.by_group()
    if found:
        largest = sorted(found.items(), key=lambda item: -item[1].documents)
        named = [f"class {name!r} ({_size(size, of=column.split_by)})" for name, size in largest]
        freely = "" if column.split_by == BY_DOCUMENT else f"; --split-by {BY_DOCUMENT} would take {_them(len(found))}"
        yield f"left out for want of groups to divide: {_first(named)}{freely}"


def _on_parts(column: ColumnReport) -> Iterator[str]:
    few = [f"{name} ({_parted(c)})" for name, c in column.classes.items() if min(c.values()) < FEW_DOCUMENTS]
    if few:
        yield f"classes with fewer than {FEW_DOCUMENTS} documents in a part, on which macro-F1 hangs: {_first(few)}"
    shares = {name: _shares(counts) for name, counts in column.classes.items()}
    off = {name: max(abs(of[part] - wanted) for part, wanted in SHARES.items()) for name, of in shares.items()}
    worst = max(off, key=lambda name: off[name])
    if off[worst] > _FAR:
        wanted, found = (", ".join(f"{of[part]:.0%} {part}" for part in SHARES) for of in (SHARES, shares[worst]))
        yield (
            f"parts should have {wanted} of each class; furthest off is {worst!r} with {found}: documents of one "
            f"{column.split_by} are never divided"
        )


def _on_probes(column: ColumnReport) -> Iterator[str]:
    for (doubt, said), (model, told) in product(_DOUBTS.items(), _TOLD.items()):
        found = [r for r in column.results if doubt in r.doubts and r.model == model]
        if found:
            yield f"{_number(len(found), 'probe')} of {told}: {said} ({'; '.join(_listed(found))})"


def _listed(results: list[ProbeResult]) -> Iterator[str]:
    """`last, linear of layers 0, 2`."""

    def kind(result: ProbeResult) -> tuple[str, str]:
        return result.states, result.probe

    for (states, probe), group in groupby(sorted(results, key=kind), kind):
        layers = sorted(result.layer for result in group)
        yield f"{states}, {probe} of layer{'s' * (len(layers) > 1)} {', '.join(map(str, layers))}"


def _first(things: list[str]) -> str:
    more = f"; and {len(things) - _LISTED} more" if len(things) > _LISTED else ""
    return "; ".join(things[:_LISTED]) + more


def _size(size: ClassSize, *, of: str) -> str:
    return f"{_number(size.documents, 'document')} in {_number(size.groups, 'group')} of {of}"


def _number(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'s' * (count != 1)}"


def _them(count: int) -> str:
    return "it" if count == 1 else "them"


def _shares(counts: dict[str, int]) -> dict[str, float]:
    total = sum(counts.values())
    return {part: count / total for part, count in counts.items()}


def _parted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {part}" for part, count in counts.items())
