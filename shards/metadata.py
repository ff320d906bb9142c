"""The metadata of a partition's documents as ids: rendered, tokenized once per distinct value, cut, dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from colophon.shards.arrow_files import list_values
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.layouts import AppendLayout, Layout, MetaTokensLayout, PlainLayout, PrependLayout, dropped
from colophon.shards.templates import MAX_WIDTH, render, template_of
from colophon.shards.tokenizer.text_rows import TextRows, cut_rows

_BYTES_OF_A_TOKEN = 64
_ROWS = 1 << 14
_RENDERED_BYTES = 64 << 20
_OTHER_BYTES = 64
"""An upper bound for a number or a date as text."""


class TextEncoder(Protocol):
    """The part of a tokenizer that packing uses."""

    def encode_batch(self, texts: pa.Array) -> pa.ListArray:
        """list<uint16|uint32> [n]: ids of each text without special tokens."""
        ...


@dataclass(frozen=True, kw_only=True)
class DocumentMetadata:
    """The ids between boc and eoc, for each document of a partition.

    Documents with the metadata "ab", "c" and "ab" have ids [97, 98, 99], starts [0, 2, 0] and lengths [2, 1, 2].
    """

    wrapped: NumPyArray
    """bool [num_documents]: whether the document has a wrapper."""
    starts: NumPyArray
    """int64 [num_documents]: index in `ids` of the document's first id."""
    lengths: NumPyArray
    """int64 [num_documents]: the document's number of ids; 0 is an empty wrapper."""
    ids: NumPyArray
    """The ids of all distinct metadata, one after the other; empty for meta tokens."""
    counts: dict[str, int]
    """`documents_dropped`, `documents_without_metadata`, `metadata_cut`, `metadata_tokens_cut`."""


def document_metadata(
    layout: Layout,
    *,
    ids: pa.Array,
    columns: Mapping[str, pa.Array],
    tokenizer: TextEncoder,
    seed: int,
    kept: NumPyArray | None = None,
) -> DocumentMetadata:
    """The metadata ids of each document in `layout`.

    Args:
        layout: the position of metadata, its template, dropout and budget.
        ids: string [num_documents], the document ids from which dropout is derived.
        columns: the annotation columns of the template, each [num_documents].
        tokenizer: encodes the distinct metadata strings.
        seed: the seed of the recipe's `[pack]`; with the id it decides which documents are dropped.
        kept: bool [num_documents]: the documents that the layout has, which alone are counted; None: all.
    """
    num_documents = len(ids)
    if isinstance(layout, PlainLayout):
        return _no_metadata(num_documents)
    drop = _dropped(ids, dropout=layout.dropout, seed=seed)
    if isinstance(layout, MetaTokensLayout):
        missing = np.zeros(num_documents, bool)
        starts, lengths = np.zeros(num_documents, np.int64), np.full(num_documents, layout.num_meta_tokens)
        pool, cut = np.empty(0, np.uint32), np.zeros(num_documents, np.int64)
    else:
        starts, lengths, pool, missing = _encode(layout, columns, tokenizer=tokenizer, num_documents=num_documents)
        cut = np.maximum(lengths - layout.max_metadata_tokens, 0)
    empty = drop | missing
    cut = np.where(empty, 0, cut)
    wrapped = ~empty if layout.when_dropped == "nothing" else np.ones(num_documents, bool)
    counted = slice(None) if kept is None else kept
    counts = {
        "documents_dropped": int(drop[counted].sum()),
        "documents_without_metadata": int(missing[counted].sum()),
        "metadata_cut": int((cut[counted] > 0).sum()),
        "metadata_tokens_cut": int(cut[counted].sum()),
    }
    return DocumentMetadata(
        wrapped=wrapped, starts=starts, lengths=np.where(empty, 0, lengths - cut), ids=pool, counts=counts
    )


def _no_metadata(num_documents: int) -> DocumentMetadata:
    zeros = np.zeros(num_documents, np.int64)
    return DocumentMetadata(
        wrapped=np.zeros(num_documents, bool), starts=zeros, lengths=zeros, ids=np.empty(0, np.uint32), counts={}
    )


def most_metadata_bytes(layout: Layout) -> int:
    """The UTF-8 bytes to which a document's metadata is cut before it is tokenized: 64 for each token of its budget.

    Text has 2 to 5 bytes a token, so that cut metadata still fills its budget. Its ids are those of the whole metadata
    up to the last word, which the cut may divide. Tokens beyond the cut are not in `metadata_tokens_cut`.
    """
    return _BYTES_OF_A_TOKEN * layout.max_metadata_tokens if isinstance(layout, PrependLayout | AppendLayout) else 0


def most_column_bytes(layout: Layout) -> int:
    """The bytes to which a column is cut before it is rendered. As many remain as metadata may have, and as many
    characters as a format's width, so that the beginning of the metadata is that of the whole column."""
    return most_metadata_bytes(layout) + 4 * MAX_WIDTH


def shortened(values: pa.Array, most: int, *, at_words: bool = False) -> pa.Array:
    """The strings, cut to `most` bytes. Columns of other types, and arrays without a longer string, are unchanged.

    Args:
        values: the column.
        most: bytes; of a longer string at least these bytes remain, and at most three more, unless `at_words`.
        at_words: cut a longer string to at most `most` bytes, before a space behind a letter in the second half of
            them if there is one; no token crosses such a place.
    """
    is_text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    if not is_text or values.nbytes <= most:
        return values
    lengths = pc.binary_length(values).fill_null(0).to_numpy(zero_copy_only=False)
    is_long = lengths > most
    if not is_long.any():
        return values
    cut = _at_word if at_words else _prefix
    replaced = [cut(values[row].as_py(), most) for row in np.flatnonzero(is_long).tolist()]
    return pc.replace_with_mask(values, pa.array(is_long), pa.array(replaced, values.type))


def _prefix(text: str, most: int) -> str:
    return text[: most + 3].encode()[: most + 3].decode(errors="ignore")


def _at_word(text: str, most: int) -> str:
    start = text[: most + 1].encode()[: most + 1]
    parts = cut_rows(TextRows(np.frombuffer(start, np.uint8), np.array([0, len(start)])), limit=most)
    place = most if parts.uncut[0] else int(parts.bounds[1])
    end = place if place > most // 2 else most
    return start[:end].decode(errors="ignore")


def _distinct(
    layout: PrependLayout | AppendLayout, columns: Mapping[str, pa.Array], *, most: int, num_rows: int
) -> pa.DictionaryArray:
    """The documents' metadata, each string once; rendered for as many documents at a time as have about 64 MiB."""
    parts, step = [], _rows_at_once(layout, columns)
    for first in range(0, max(num_rows, 1), step):
        part = {name: column.slice(first, step) for name, column in columns.items()}
        rendered = render(layout.template, part, num_rows=min(step, num_rows - first))
        parts.append(shortened(rendered, most, at_words=True).dictionary_encode())
    return pa.chunked_array(parts).unify_dictionaries().combine_chunks()


def _rows_at_once(layout: PrependLayout | AppendLayout, columns: Mapping[str, pa.Array]) -> int:
    """The number of documents whose metadata has at most 64 MiB before it is cut; 1 to 16,384."""
    longest = {name: _longest(column) for name, column in columns.items()}
    fields = template_of(layout.template).fields
    of_fields = sum(max(longest[field.name], 4 * MAX_WIDTH if field.spec else 0) for field in fields)
    return max(min(_RENDERED_BYTES // (4 * len(layout.template) + of_fields + 1), _ROWS), 1)


def _longest(column: pa.Array) -> int:
    """Bytes of a column's longest string; an upper bound for other types."""
    values = column.dictionary if pa.types.is_dictionary(column.type) else column
    is_text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    return (pc.max(pc.binary_length(values)).as_py() or 0) if is_text else _OTHER_BYTES


def _dropped(ids: pa.Array, *, dropout: float, seed: int) -> NumPyArray:
    found = [dropped(ids.slice(at, _ROWS).to_pylist(), dropout=dropout, seed=seed) for at in range(0, len(ids), _ROWS)]
    return np.concatenate([np.zeros(0, bool), *found])


def _encode(
    layout: PrependLayout | AppendLayout, columns: Mapping[str, pa.Array], *, tokenizer: TextEncoder, num_documents: int
) -> tuple[NumPyArray, NumPyArray, NumPyArray, NumPyArray]:
    """Start and length of each document's ids in the pool, the pool of distinct strings' ids, and the mask of nulls."""
    most = most_metadata_bytes(layout)
    columns = {name: shortened(column, most_column_bytes(layout)) for name, column in columns.items()}
    distinct = _distinct(layout, columns, most=most, num_rows=num_documents)
    offsets, pool = list_values(tokenizer.encode_batch(distinct.dictionary))
    missing = pc.is_null(distinct.indices).to_numpy(zero_copy_only=False)
    index = pc.fill_null(distinct.indices, 0).to_numpy(zero_copy_only=False)
    if len(offsets) == 1:  # every document lacks metadata
        zeros = np.zeros(num_documents, np.int64)
        return zeros, zeros, pool, missing
    return offsets[index], np.diff(offsets)[index], pool, missing
