"""Blocks of packed rows: ids, a view of the mapped file or read from a store, and what a conversion derives from runs.

A block has about a million ids, so memory does not depend on the size of a layout, and numpy works on whole blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.errors import ShardError
from colophon.shards.reader import PackedDataset, PackedFile
from colophon.shards.schema import Role

_BLOCK_IDS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Block:
    """`n` rows of one packed file, of `sequence_length + 1` ids each."""

    partition: str
    input_ids: NumPyArray
    """uint16 or uint32 [n, sequence_length + 1], a view of a local file."""
    run_lengths: NumPyArray
    """uint32 [num_runs], rows one after the other, as `run_roles` and `run_documents`."""
    run_roles: NumPyArray
    run_documents: NumPyArray
    runs_per_row: NumPyArray
    """int64 [n]."""

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def width(self) -> int:
        """Ids of a row."""
        return int(self.input_ids.shape[1])

    def token_weights(self, role_weights: NumPyArray) -> NumPyArray:
        """[n, sequence_length + 1], of the type of `role_weights` [7]: the weight of each token as a label.

        The first token of a row is no label and has weight 0; `[:, 1:]` are the weights of the labels.
        """
        weights: NumPyArray = np.repeat(role_weights[self.run_roles], self.run_lengths).reshape(self.input_ids.shape)
        weights[:, 0] = 0
        return weights

    @cached_property
    def segments(self) -> Segments:
        """The segments of all rows."""
        first_runs = np.cumsum(self.runs_per_row) - self.runs_per_row
        opens = (self.run_roles == Role.BOS) | (self.run_roles == Role.PAD)
        opens[first_runs] = True
        starts = np.flatnonzero(opens)
        return Segments(
            lengths=np.add.reduceat(self.run_lengths, starts, dtype=np.int64).astype(np.int32),
            documents=self.run_documents[starts],
            is_padding=self.run_roles[starts] == Role.PAD,
            per_row=np.add.reduceat(opens, first_runs, dtype=np.int64),
        )


@dataclass(frozen=True, kw_only=True)
class Segments:
    """The segments of a block's rows, one after the other; padding at the end of a row is one of them."""

    lengths: NumPyArray
    """int32 [num_segments]: tokens; those of a row sum to `sequence_length + 1`."""
    documents: NumPyArray
    """uint32 [num_segments]: the document's row in the partition, `NO_DOCUMENT` for padding."""
    is_padding: NumPyArray
    """bool [num_segments]."""
    per_row: NumPyArray
    """int64 [n]."""

    @cached_property
    def ends(self) -> NumPyArray:
        """int64 [num_segments]: the end of each segment, counted in tokens from the start of the block."""
        return np.cumsum(self.lengths, dtype=np.int64)

    def of_inputs(self, sequence_length: int) -> InputSegments:
        """The segments of the rows' inputs, the first `sequence_length` tokens: the last token may be one by itself."""
        rows = np.repeat(np.arange(len(self.per_row)), self.per_row)
        starts = self.ends - self.lengths - rows * (sequence_length + 1)
        is_input = starts < sequence_length
        per_row = np.bincount(rows[is_input], minlength=len(self.per_row))
        return InputSegments(
            starts=starts[is_input].astype(np.int32), documents=self.documents[is_input], per_row=per_row
        )


@dataclass(frozen=True, kw_only=True)
class InputSegments:
    """The segments of the inputs of a block's rows."""

    starts: NumPyArray
    """int32 [num_segments]: the place of a segment's first token in its row."""
    documents: NumPyArray
    """uint32 [num_segments]."""
    per_row: NumPyArray
    """int64 [n], each at least 1."""

    def cu_seqlens(self, sequence_length: int) -> tuple[NumPyArray, NumPyArray]:
        """Offsets int64 [n + 1] and values int32: each row's starts, and `sequence_length` after them."""
        offsets = np.concatenate([[0], np.cumsum(self.per_row + 1)])
        values = np.full(offsets[-1], sequence_length, np.int32)
        is_start = np.ones(len(values), bool)
        is_start[offsets[1:] - 1] = False
        values[is_start] = self.starts
        return offsets, values


def blocks(dataset: PackedDataset, partitions: list[str]) -> Iterator[Block]:
    """All rows of a layout in their order.

    Args:
        dataset: the layout.
        partitions: the partition of each of its files.

    Raises:
        ShardError: a row has an id that the tokenizer does not have.
    """
    rows_of_block = max(1, _BLOCK_IDS // (dataset.sequence_length + 1))
    for file, partition in zip(dataset.files, partitions, strict=True):
        for start in range(0, len(file), rows_of_block):
            block = _block(file, slice(start, min(start + rows_of_block, len(file))), partition)
            highest = int(block.input_ids.max())
            if highest >= dataset.tokenizer.num_ids:
                raise ShardError(f"{file.path}: id {highest}; the tokenizer has {dataset.tokenizer.num_ids} ids")
            yield block


def _block(file: PackedFile, rows: slice, partition: str) -> Block:
    offsets, lengths, roles, documents = file.all_runs()
    own = offsets[rows.start : rows.stop + 1]
    runs = slice(int(own[0]), int(own[-1]))
    arrays: dict[str, Any] = {
        "run_lengths": lengths[runs],
        "run_roles": roles[runs],
        "run_documents": documents[runs],
        "runs_per_row": np.diff(own),
    }
    return Block(partition=partition, input_ids=file.input_ids[rows], **arrays)
