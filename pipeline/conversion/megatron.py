"""Megatron: three indexed datasets (`.bin` and `.idx`) with a sequence for each row, which `megatron.core` maps.

    ids               the ids of each row
    loss_weights      as many weights, token by token; the first of a row is 0, since it is no label
    segment_lengths   the lengths of the row's segments, whose running sum is its `cu_seqlens`

A `.idx` file has a magic number, the version 1, the code of the data type, the numbers of sequences and of documents
plus 1, and then: int32 the length of each sequence, int64 its first byte in `.bin`, int64 the first sequence of each
document and the end of the last. Every row is a document of its own, so that a shuffle of documents keeps rows whole.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from tempfile import TemporaryFile

import numpy as np

from colophon.pipeline.conversion.files import OutputFiles
from colophon.pipeline.conversion.rows import Block
from colophon.pipeline.conversion.target import Format, Target
from colophon.shards.common.arrays import NumPyArray

_MAGIC, _VERSION = b"MMIDIDX\x00\x00", 1
_CODES = {"uint8": 1, "int32": 4, "float32": 7, "uint16": 8}
"""The types of the format that a conversion writes; it has no uint32."""
_NUMBERS_AT_ONCE = 1 << 20


class _IndexedArrays:
    """One indexed dataset while it is written. The lengths are kept in a file without a name, not in memory."""

    def __init__(self, files: OutputFiles, name: str, dtype: type[np.generic]) -> None:
        self._files, self._name, self._dtype = files, name, np.dtype(dtype)
        self._bin = files.create(f"{name}.bin")
        self._lengths = TemporaryFile()  # noqa: SIM115 - open until `close`
        self._count = 0

    def add(self, values: NumPyArray, lengths: NumPyArray) -> None:
        """Append sequences: their values, joined, and the length of each."""
        self._bin.write(np.ascontiguousarray(values, self._dtype))
        self._lengths.write(lengths.astype("<i4").tobytes())
        self._count += len(lengths)

    def close(self) -> None:
        """Write the index."""
        self._bin.close()
        index = self._files.create(f"{self._name}.idx")
        code = _CODES[self._dtype.name]
        index.write(_MAGIC + struct.pack("<QBQQ", _VERSION, code, self._count, self._count + 1))
        for lengths in self._stored_lengths():
            index.write(lengths)
        place = 0
        for lengths in self._stored_lengths():
            ends = place + np.cumsum(lengths, dtype="<i8") * self._dtype.itemsize
            index.write(np.concatenate([[place], ends[:-1]]).astype("<i8"))
            place = int(ends[-1])
        for first in range(0, self._count + 1, _NUMBERS_AT_ONCE):
            index.write(np.arange(first, min(first + _NUMBERS_AT_ONCE, self._count + 1), dtype="<i8"))
        index.close()
        self._lengths.close()

    def _stored_lengths(self) -> Iterator[NumPyArray]:
        self._lengths.seek(0)
        while data := self._lengths.read(4 * _NUMBERS_AT_ONCE):
            yield np.frombuffer(data, "<i4")


class _MegatronWriter:
    def __init__(self, target: Target) -> None:
        weights = np.uint8 if target.has_binary_weights else np.float32
        self._role_weights = target.role_weights.astype(weights)
        # The type that Megatron expects of a vocabulary of this size.
        ids = np.uint16 if target.id_dtype == np.uint16 else np.int32
        self._ids = _IndexedArrays(target.files, "ids", ids)
        self._weights = _IndexedArrays(target.files, "loss_weights", weights)
        self._segments = _IndexedArrays(target.files, "segment_lengths", np.int32)

    def add(self, block: Block) -> None:
        widths = np.full(len(block), block.width)
        self._ids.add(block.input_ids, widths)
        self._weights.add(block.token_weights(self._role_weights), widths)
        self._segments.add(block.segments.lengths, block.segments.per_row)

    def close(self) -> None:
        for arrays in (self._ids, self._weights, self._segments):
            arrays.close()


MEGATRON = Format(
    name="megatron",
    reader="megatron-core",
    holds_weights=True,
    lacks=(
        "GPTDataset reads ids alone: its subclass in examples/trainers/read_megatron.py adds weights and segments",
        "GPTDataset needs sequence_length + 1 and add_extra_token_to_sequence=False to cut where rows end",
        "ids of documents",
    ),
    writer=_MegatronWriter,
)
