"""What to know before one believes a column's scores, in lines for a person."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from trainer.after.probe_labels import SHARES
from trainer.after.probe_report import ColumnReport, Doubt, ProbeResult

FEW_DOCUMENTS = 10
"""Of a class in a part."""
_FAR = 0.1
_LISTED = 3
_DOUBTS: dict[Doubt, str] = {
    "below_majority": "hit fewer documents than the most frequent class does",
    "first_epoch": "had their lowest validation loss after the first epoch",
    "limit": "had not converged at their last iteration or epoch",
}


def notes(column: ColumnReport) -> list[str]:
    """Lines on small classes, uneven parts and doubtful probes; none where there is nothing to say.

    Probes of shuffled labels have nothing to find, so theirs are left out.
    """
    return [f"{column.column}: {line}" for line in (*_on_parts(column), *_on_probes(column.results))]


def _on_parts(column: ColumnReport) -> Iterator[str]:
    few = [name for name, counts in column.classes.items() if min(counts.values()) < FEW_DOCUMENTS]
    if few:
        listed = "; ".join(f"{name} ({_parted(column.classes[name])})" for name in few[:_LISTED])
        more = f"; and {len(few) - _LISTED} more" if len(few) > _LISTED else ""
        yield f"classes with fewer than {FEW_DOCUMENTS} documents in a part, on which macro-F1 hangs: {listed}{more}"
    sizes = {part: sum(counts[part] for counts in column.classes.values()) for part in SHARES}
    shares = {part: size / sum(sizes.values()) for part, size in sizes.items()}
    if any(abs(shares[part] - wanted) > _FAR for part, wanted in SHARES.items()):
        found = ", ".join(f"{share:.0%} {part}" for part, share in shares.items())
        yield f"parts are {found} of the documents: those of one {column.split_by} are never divided"


def _on_probes(results: list[ProbeResult]) -> Iterator[str]:
    for doubt, said in _DOUBTS.items():
        found = [r for r in results if doubt in r.doubts and r.model != "shuffled"]
        if found:
            yield f"{len(found)} probe{'s' * (len(found) > 1)} {said}: {'; '.join(_listed(found))}"


def _listed(results: list[ProbeResult]) -> Iterator[str]:
    """`trained, last, linear of layers 0, 2`."""

    def kind(result: ProbeResult) -> tuple[str, str, str]:
        return result.model, result.states, result.probe

    for (model, states, probe), group in groupby(sorted(results, key=kind), kind):
        layers = sorted(result.layer for result in group)
        yield f"{model}, {states}, {probe} of layer{'s' * (len(layers) > 1)} {', '.join(map(str, layers))}"


def _parted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {part}" for part, count in counts.items())
