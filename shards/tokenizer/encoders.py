"""Encoders of text columns: gigatoken where it is exact, the reference library (tiktoken, `tokenizers`) elsewhere.

Ids never depend on the choice. The fast engine is compared with the reference when it is loaded, and texts on which the
two differ or might differ are encoded by the reference.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from colophon.shards.tokenizer.backends import Backend
from colophon.shards.tokenizer.engine_specs import NoEngineError
from colophon.shards.tokenizer.fast_engine import Gigatoken
from colophon.shards.tokenizer.hard_texts import hard_texts
from colophon.shards.tokenizer.text_rows import CutRows, IdSink, Positions, TextRows, cut_rows, text_rows
from colophon.shards.tokenizer.unicode_differences import unequal_rows

PART_BYTES = 256 << 10
"""Longer texts are cut into parts, or encoded by the reference. No pattern fails on a text of this length."""
CALL_BYTES = 4 << 20
"""Text in one call of the engine; its memory is measured after each call."""


class ColumnEncoder(Protocol):
    """Encodes columns of text as ids."""

    engine: str
    """Human-readable: the library with its version, or the library and the reason why there is no fast engine."""

    def encode_batch(self, texts: pa.Array, sink: IdSink) -> Positions:
        """Append the ids of all texts, uint32, to `sink`; return each text's number of ids, int64 [number of texts].

        `texts` is string or large_string of valid UTF-8; a null has no ids.
        """


class ReferenceEncoder:
    """Encodes one text at a time with the backend itself."""

    def __init__(self, backend: Backend, *, reason: str) -> None:
        self.engine = f"{backend.library}: {reason}"
        self._backend = backend

    def encode_batch(self, texts: pa.Array, sink: IdSink) -> Positions:
        """See `ColumnEncoder.encode_batch`."""
        counts = np.zeros(len(texts), dtype=np.int64)
        for row, scalar in enumerate(texts):
            if text := scalar.as_py():
                ids = self._backend.encode(text)
                counts[row] = ids.size
                sink.extend(ids)
        return counts


class FastEncoder:
    """Encodes with gigatoken, and with the reference the texts on which gigatoken may differ."""

    def __init__(self, backend: Backend) -> None:
        """Build the engine.

        Raises:
            NoEngineError: gigatoken is missing or cannot encode with this vocabulary.
        """
        spec = backend.engine_spec()
        self._engine = Gigatoken(spec)
        self.engine = f"{self._engine.name}, ids checked against {backend.library}"
        self._reference_expression = _expression(spec.reference_strings)
        self._backend = backend

    def encode_batch(self, texts: pa.Array, sink: IdSink) -> Positions:
        """See `ColumnEncoder.encode_batch`.

        Raises:
            NoEngineError: the engine failed; ids may have been appended.
        """
        rows = text_rows(texts)
        parts = cut_rows(rows, limit=PART_BYTES)
        slow = parts.uncut
        slow[unequal_rows(texts, rows)] = True
        if self._reference_expression is not None:
            found = pc.match_substring_regex(texts, self._reference_expression)
            slow |= found.fill_null(False).to_numpy(zero_copy_only=False)
        # In order: the engine encodes the parts between two slow rows, the reference encodes each slow row whole.
        counts = np.zeros(parts.bounds.size - 1, dtype=np.int64)
        num_done = 0
        first_parts = np.append(parts.first, counts.size)
        for row in [*np.flatnonzero(slow).tolist(), len(texts)]:
            self._encode_parts(rows, parts, range(num_done, first_parts[row]), counts=counts, sink=sink)
            if row < len(texts):
                ids = self._backend.encode(texts[row].as_py())
                counts[first_parts[row]] = ids.size
                sink.extend(ids)
                num_done = first_parts[row + 1]
        return np.add.reduceat(counts, parts.first) if len(texts) else counts

    def _encode_parts(self, rows: TextRows, parts: CutRows, numbers: range, *, counts: Positions, sink: IdSink) -> None:
        """Append the ids of the parts `numbers` and set their `counts`, in calls of about `CALL_BYTES`."""
        begin = numbers.start
        while begin < numbers.stop:
            end = int(np.searchsorted(parts.bounds, parts.bounds[begin] + CALL_BYTES, side="right")) - 1
            end = min(max(end, begin + 1), numbers.stop)
            counts[begin:end], ids = self._engine.encode(rows.data, parts.bounds[begin : end + 1])
            sink.extend(ids, first_id=self._backend.first_id)
            begin = end


def _expression(strings: Sequence[str]) -> str | None:
    """The regular expression that matches any of `strings`; None if there are none."""
    if not strings:
        return None
    expression = "|".join(map(re.escape, strings))
    try:
        pc.match_substring_regex(pa.array([""]), expression)
    except pa.ArrowInvalid as error:
        raise NoEngineError(f"it has {len(strings)} added tokens, too many to search for") from error
    return expression


_COMPARED: dict[tuple[Any, ...], str | None] = {}
"""`first_difference` by vocabulary: each stage of a process loads it again, and comparing takes longer than loading."""


def choose_encoder(backend: Backend) -> FastEncoder | ReferenceEncoder:
    """The fast encoder if it supports the vocabulary and gives the reference's ids for all hard texts.

    A process compares a vocabulary once.
    """
    vocabulary = (backend.library, backend.sha256, *backend.special.items(), *backend.marked_strings)
    try:
        encoder = FastEncoder(backend)
        if vocabulary not in _COMPARED:
            _COMPARED[vocabulary] = first_difference(encoder, backend)
        text = _COMPARED[vocabulary]
    except NoEngineError as error:
        return ReferenceEncoder(backend, reason=str(error))
    if text is None:
        return encoder
    shown = f"{text[:40]!r}{'…' if len(text) > 40 else ''}"
    return ReferenceEncoder(backend, reason=f"the fast engine gives other ids for {shown}")


def first_difference(encoder: ColumnEncoder, reference: Backend) -> str | None:
    """The first hard text whose ids by `encoder` differ from the reference's; None if there is none."""
    texts = list(hard_texts(reference))
    sink = IdSink(np.dtype(np.uint32), expected=100_000)
    lists = sink.lists(encoder.encode_batch(pa.array(texts, pa.string()), sink))
    offsets, ids = lists.offsets.to_numpy(), lists.values.to_numpy()
    for row, text in enumerate(texts):
        if not np.array_equal(ids[offsets[row] : offsets[row + 1]], reference.encode(text)):
            return text
    return None
