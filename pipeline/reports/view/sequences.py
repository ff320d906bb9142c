"""The packed sequences that hold parts of a document."""

from __future__ import annotations

from typing import Any

import numpy as np

from colophon.pipeline.reports.inspection import shown_sequence
from colophon.pipeline.reports.page.packed import opened
from colophon.pipeline.reports.view.documents import Documents
from colophon.shards.common.errors import ShardError, did_you_mean
from colophon.shards.manifest import checked_path
from colophon.shards.tokenizer.tokenizer import Tokenizer

_MOST_TOKENS = 32_768


def sequence_of(documents: Documents, number: int, *, layout: str, place: int, tokenizer: Tokenizer) -> dict[str, Any]:
    """A sequence with a part of a document, as `inspect` has it, and how many sequences have one.

    Args:
        documents: the documents of a run.
        number: the document's number.
        layout: the layout's name.
        place: the number of the sequence among those with a part of the document, from 0.
        tokenizer: the run's.

    Raises:
        IndexError: there is no such document or place.
        ShardError: there is no such layout, or a file cannot be read or differs from its record.
    """
    run, layouts = documents.run, documents.run.manifest.layouts
    if layout not in layouts:
        available, guess = ", ".join(layouts) or "none", did_you_mean(layout, layouts)
        raise ShardError(f"{run.directory} has no layout {layout!r}; available: {available}{guess}")
    partition, row = documents.locate(number)
    before = 0
    for record in layouts[layout].records:
        if record.partition == partition:
            break
        before += record.rows
    else:
        raise ShardError(f"{run.directory}: {layout} has no file of partition {partition}")
    dataset = opened([checked_path(run.directory, record)], tokenizer)
    offsets, _, _, run_documents = dataset.files[0].all_runs()
    runs = np.flatnonzero(run_documents == row)
    rows = np.unique(np.searchsorted(offsets, runs, side="right") - 1)
    if not len(rows):
        return {"layout": layout, "sequences": 0}
    if not 0 <= place < len(rows):
        raise IndexError(f"{layout} has {len(rows):,} sequences of document {number}, numbered from 0; not {place}")
    found = shown_sequence(dataset, tokenizer, layout=layout, row=int(rows[place]), tokens=_MOST_TOKENS)
    first = number - row
    for one in found["runs"]:
        one["tokens"] = len(one.pop("input_ids"))
        one["document"] = None if one["document"] is None else one["document"] + first
    return {**found, "sequence": before + int(rows[place]), "place": place, "sequences": len(rows)}
