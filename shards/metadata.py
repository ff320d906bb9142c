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
from colophon.shards.templates import render


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
    layout: Layout, *, ids: pa.Array, columns: Mapping[str, pa.Array], tokenizer: TextEncoder, seed: int
) -> DocumentMetadata:
    """The metadata ids of each document in `layout`.

    Args:
        layout: the position of metadata, its template, dropout and budget.
        ids: string [num_documents], the document ids from which dropout is derived.
        columns: the annotation columns of the template, each [num_documents].
        tokenizer: encodes the distinct metadata strings.
        seed: the seed of the recipe's `[pack]`; with the id it decides which documents are dropped.
    """
    num_documents = len(ids)
    if isinstance(layout, PlainLayout):
        return _no_metadata(num_documents)
    drop = dropped(ids.to_pylist(), dropout=layout.dropout, seed=seed)
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
    counts = {
        "documents_dropped": int(drop.sum()),
        "documents_without_metadata": int(missing.sum()),
        "metadata_cut": int((cut > 0).sum()),
        "metadata_tokens_cut": int(cut.sum()),
    }
    return DocumentMetadata(
        wrapped=wrapped, starts=starts, lengths=np.where(empty, 0, lengths - cut), ids=pool, counts=counts
    )


def _no_metadata(num_documents: int) -> DocumentMetadata:
    zeros = np.zeros(num_documents, np.int64)
    return DocumentMetadata(
        wrapped=np.zeros(num_documents, bool), starts=zeros, lengths=zeros, ids=np.empty(0, np.uint32), counts={}
    )


def _encode(
    layout: PrependLayout | AppendLayout, columns: Mapping[str, pa.Array], *, tokenizer: TextEncoder, num_documents: int
) -> tuple[NumPyArray, NumPyArray, NumPyArray, NumPyArray]:
    """Start and length of each document's ids in the pool, the pool of distinct strings' ids, and the mask of nulls."""
    distinct = render(layout.template, columns, num_rows=num_documents).dictionary_encode()
    offsets, pool = list_values(tokenizer.encode_batch(distinct.dictionary))
    missing = pc.is_null(distinct.indices).to_numpy(zero_copy_only=False)
    index = pc.fill_null(distinct.indices, 0).to_numpy(zero_copy_only=False)
    if len(offsets) == 1:  # every document lacks metadata
        zeros = np.zeros(num_documents, np.int64)
        return zeros, zeros, pool, missing
    return offsets[index], np.diff(offsets)[index], pool, missing
