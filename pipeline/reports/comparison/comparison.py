"""The comparison of two runs, from their files to its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colophon.pipeline.reports.comparison.columns import ComparedColumn, compared_columns
from colophon.pipeline.reports.comparison.documents import MatchedDocuments, matched
from colophon.pipeline.reports.comparison.layouts import LayoutCost, layout_costs
from colophon.pipeline.reports.comparison.settings import Change, Changes, changes
from colophon.pipeline.reports.summary import document_counts
from colophon.shards.manifest import Manifest
from colophon.shards.outputs import TOKENS
from colophon.shards.run_output import RunOutput


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The differences from run A (before) to run B (after)."""

    paths: tuple[Path, Path]
    counts: tuple[dict[str, int], dict[str, int]]
    """Counts of the documents of each run, see `document_counts`."""
    tokenizers: tuple[str | None, str | None]
    """The name of each run's tokenizer; None without tokens."""
    notes: list[str]
    """Lines on what cannot be compared."""
    changes: Changes
    columns: list[ComparedColumn]
    documents: MatchedDocuments | None
    """None if a run has no ids."""
    layouts: dict[str, tuple[LayoutCost | None, LayoutCost | None]]

    def as_dict(self) -> dict[str, Any]:
        """The comparison as a JSON value."""
        return {
            "a": str(self.paths[0]),
            "b": str(self.paths[1]),
            "notes": self.notes,
            "counts": {"a": self.counts[0], "b": self.counts[1]},
            "settings": {
                "recipe": _changes(self.changes.recipe),
                "bins": _changes(self.changes.bins),
                "outputs": _changes(self.changes.outputs),
            },
            "documents": None if self.documents is None else _documents(self.documents),
            "columns": [_column(column) for column in self.columns],
            "layouts": {name: {"a": _layout(one), "b": _layout(other)} for name, (one, other) in self.layouts.items()},
        }


def compare(before: RunOutput, after: RunOutput) -> Comparison:
    """Compare two runs. Reads all annotation files and ids, in bounded memory.

    Raises:
        ShardError: a file of a run cannot be read or differs from its record.
    """
    columns = compared_columns(before, after)
    costs = layout_costs(before.manifest), layout_costs(after.manifest)
    has_ids = all(TOKENS in run.manifest.outputs for run in (before, after))
    documents = matched(before, after, columns) if has_ids else None
    return Comparison(
        paths=(before.directory, after.directory),
        counts=(document_counts(before.manifest), document_counts(after.manifest)),
        tokenizers=(_tokenizer(before.manifest)[0], _tokenizer(after.manifest)[0]),
        notes=list(_notes(before, after, documents)),
        changes=changes(before.manifest, after.manifest),
        columns=columns,
        documents=documents,
        layouts={name: (costs[0].get(name), costs[1].get(name)) for name in dict.fromkeys([*costs[0], *costs[1]])},
    )


def _notes(before: RunOutput, after: RunOutput, documents: MatchedDocuments | None) -> Iterator[str]:
    for name, run in (("A", before), ("B", after)):
        if TOKENS not in run.manifest.outputs:
            yield f"{name} has no tokens, which hold the ids: its documents cannot be matched"
    if documents is not None and not documents.both:
        yield "no id is in both runs: no document can be compared. Do the recipes read ids from the same column?"
    tokenizers = [_tokenizer(run.manifest) for run in (before, after)]
    if None not in (tokenizers[0][1], tokenizers[1][1]) and tokenizers[0][1] != tokenizers[1][1]:
        names = " and ".join(dict.fromkeys(str(name) for name, _ in tokenizers))
        yield f"the tokenizers differ ({names}): numbers of tokens are of different units"


def _tokenizer(manifest: Manifest) -> tuple[str | None, str | None]:
    """The name and the sha256 of a run's tokenizer."""
    output = manifest.outputs.get(TOKENS)
    settings = output.settings.get("tokenizer") if output else None
    if not isinstance(settings, dict):
        return None, None
    return str(settings.get("name")), str(settings.get("sha256"))


def _changes(found: Sequence[Change]) -> list[dict[str, Any]]:
    return [{"key": change.key, "a": change.before, "b": change.after} for change in found]


def _documents(found: MatchedDocuments) -> dict[str, Any]:
    return {
        "both": found.both,
        "only_a": found.only_before,
        "only_b": found.only_after,
        "repeated_ids": list(found.repeated),
        "columns": {
            one.name: {
                "documents": one.documents,
                "changed": one.changed,
                "mean_change": one.mean_change,
                "pairs": [{"a": before, "b": after, "documents": n} for before, after, n in one.pairs],
                "examples": [
                    {
                        "id": example.id,
                        "url": example.url,
                        "a": {"value": example.before, "score": example.score_before},
                        "b": {"value": example.after, "score": example.score_after},
                    }
                    for example in one.examples
                ],
            }
            for one in found.columns
        },
    }


def _column(column: ComparedColumn) -> dict[str, Any]:
    sides = [
        None if one is None else {"documents": one.documents, "known": one.known}
        for one in (column.before, column.after)
    ]
    return {
        "name": column.name,
        "a": sides[0],
        "b": sides[1],
        "total_variation": column.total_variation,
        "jensen_shannon_bits": column.divergence,
        "values": [
            {"value": value, "a": counts[0], "b": counts[1]}
            for value, counts in zip(column.values, column.counts, strict=True)
        ],
    }


def _layout(cost: LayoutCost | None) -> dict[str, Any] | None:
    if cost is None:
        return None
    return {
        "sequences": cost.sequences,
        "tokens": cost.tokens,
        "tokens_by_role": dict(cost.by_role),
        "utilisation": cost.utilisation,
        "against_plain": cost.against_plain,
    }
