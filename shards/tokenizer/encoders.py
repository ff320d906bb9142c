"""Which engine turns texts into ids: gigatoken where it is exact, the reference library (tiktoken, `tokenizers`)
elsewhere. Ids never depend on the choice: the fast engine is compared with the reference when it is loaded, and texts
on which the two are known to differ, or might, go through the reference."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from colophon.shards.tokenizer.backends import Backend
from colophon.shards.tokenizer.engine_specs import NoEngineError
from colophon.shards.tokenizer.fast_engine import Gigatoken
from colophon.shards.tokenizer.hard_texts import difference
from colophon.shards.tokenizer.text_rows import IdSink, Parts, Positions, TextRows, cut_rows, text_rows
from colophon.shards.tokenizer.unicode_differences import unequal_rows

PART_BYTES = 256 << 10
"""Longer texts are cut, or go through the reference. No expression gives up on a text of this length."""
CALL_BYTES = 4 << 20
"""Text in one call of the engine: what its memory can grow by before it is looked at."""


class Encoder(Protocol):
    """Turns columns into ids."""

    engine: str
    """For people: the library, its version, and why it is this one."""

    def encode_batch(self, texts: pa.Array, sink: IdSink) -> Positions:
        """Append the ids of all texts, uint32, to `sink`; how many each text has, int64 [number of texts].

        `texts` is string or large_string of valid UTF-8; a null has no ids.
        """


class ReferenceEncoder:
    """A text at a time, by the backend itself."""

    def __init__(self, backend: Backend, *, reason: str) -> None:
        self.engine = f"{backend.library}: {reason}"
        self._backend = backend

    def encode_batch(self, texts: pa.Array, sink: IdSink) -> Positions:
        """See `Encoder.encode_batch`."""
        counts = np.zeros(len(texts), dtype=np.int64)
        for row, scalar in enumerate(texts):
            if text := scalar.as_py():
                ids = self._backend.encode(text)
                counts[row] = ids.size
                sink.extend(ids)
        return counts


class FastEncoder:
    """gigatoken, and the reference for the texts that it must not have."""

    def __init__(self, backend: Backend) -> None:
        """Build the engine.

        Raises:
            NoEngineError: it is missing or not for this vocabulary.
        """
        recipe = backend.recipe()
        self._engine = Gigatoken(recipe)
        self.engine = f"{self._engine.name}, ids checked against {backend.library}"
        self._named = _expression(recipe.reference_strings)
        self._backend = backend

    def encode_batch(self, texts: pa.Array, sink: IdSink) -> Positions:
        """See `Encoder.encode_batch`.

        Raises:
            NoEngineError: the engine failed; ids may have been appended.
        """
        rows = text_rows(texts)
        parts = cut_rows(rows, limit=PART_BYTES)
        slow = parts.uncut
        slow[unequal_rows(texts, rows)] = True
        if self._named is not None:
            slow |= pc.match_substring_regex(texts, self._named).fill_null(False).to_numpy(zero_copy_only=False)
        counts = np.zeros(parts.bounds.size - 1, dtype=np.int64)
        done = 0
        ends = np.append(parts.first, counts.size)
        for row in [*np.flatnonzero(slow).tolist(), len(texts)]:
            self._encode_parts(rows, parts, range(done, ends[row]), counts=counts, sink=sink)
            if row < len(texts):
                ids = self._backend.encode(texts[row].as_py())
                counts[ends[row]] = ids.size
                sink.extend(ids)
                done = ends[row + 1]
        return np.add.reduceat(counts, parts.first) if len(texts) else counts

    def _encode_parts(self, rows: TextRows, parts: Parts, which: range, *, counts: Positions, sink: IdSink) -> None:
        """The ids of the parts `which`, in calls of about `CALL_BYTES`."""
        begin = which.start
        while begin < which.stop:
            end = int(np.searchsorted(parts.bounds, parts.bounds[begin] + CALL_BYTES, side="right")) - 1
            end = min(max(end, begin + 1), which.stop)
            counts[begin:end], ids = self._engine.encode(rows.data, parts.bounds[begin : end + 1])
            sink.extend(ids, first_id=self._backend.first_id)
            begin = end


def _expression(strings: Sequence[str]) -> str | None:
    """What finds any of `strings`."""
    if not strings:
        return None
    expression = "|".join(map(re.escape, strings))
    try:
        pc.match_substring_regex(pa.array([""]), expression)
    except pa.ArrowInvalid as error:
        raise NoEngineError(f"it has {len(strings)} added tokens, too many to look for") from error
    return expression


def choose_encoder(backend: Backend) -> FastEncoder | ReferenceEncoder:
    """The fast engine if it can serve the vocabulary and gives the reference's ids for all hard texts."""
    try:
        encoder = FastEncoder(backend)
        problem = difference(encoder, backend)
    except NoEngineError as error:
        return ReferenceEncoder(backend, reason=str(error))
    return encoder if problem is None else ReferenceEncoder(backend, reason=problem)
