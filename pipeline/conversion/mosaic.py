"""MDS, the shards of `mosaicml-streaming`: a sample for each row.

    input_ids      uint16 or uint32 [sequence_length + 1]: inputs are `[:-1]`, labels `[1:]`
    loss_weights   [sequence_length], of the labels: uint8 if all are 0 or 1, else float32
    cu_seqlens     int32 [num_segments + 1]: boundaries of the inputs' segments
    documents      uint32 [num_segments]: the row of each segment's document in its partition; 2^32 - 1 for padding
    partition      str

A shard has the number of samples n, n + 1 offsets (uint32, from its start), the JSON of its columns, and the samples:
the sizes of columns of variable size, then all columns, by name. `index.json` lists the shards.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from colophon.pipeline.conversion.rows import Block
from colophon.pipeline.conversion.target import Format, Target
from colophon.shards.common.arrays import NumPyArray

_SHARD_BYTES = 1 << 26
"""As `MDSWriter` has by default: a reader fetches whole shards."""
_SIZE_BYTES = (1, 2, 4)


class _MosaicWriter:
    def __init__(self, target: Target) -> None:
        self._target = target
        self._length = target.sequence_length
        self._shard_bytes = min(_SHARD_BYTES, target.file_bytes)
        self._role_weights = target.role_weights.astype(np.uint8 if target.has_binary_weights else np.float32)
        columns = {
            "cu_seqlens": ("ndarray:int32", None),
            "documents": ("ndarray:uint32", None),
            "input_ids": (
                f"ndarray:{target.id_dtype.name}:{target.width}",
                target.width * target.id_dtype.itemsize,
            ),
            "loss_weights": (
                f"ndarray:{self._role_weights.dtype.name}:{self._length}",
                self._length * self._role_weights.itemsize,
            ),
            "partition": ("str", None),
        }
        self._config: dict[str, Any] = {
            "column_encodings": [encoding for encoding, _ in columns.values()],
            "column_names": list(columns),
            "column_sizes": [size for _, size in columns.values()],
            "compression": None,
            "format": "mds",
            "hashes": ["sha256"],
            "size_limit": self._shard_bytes,
            "version": 2,
        }
        self._samples: list[bytes] = []
        self._bytes = 0
        self._shards: list[dict[str, Any]] = []

    def add(self, block: Block) -> None:
        for sample in self._encoded(block):
            if self._samples and self._bytes + len(sample) > self._shard_bytes:
                self._write_shard()
            self._samples.append(sample)
            self._bytes += len(sample) + 4

    def close(self) -> None:
        if self._samples or not self._shards:
            self._write_shard()
        with self._target.files.create("index.json") as index:
            index.write(json.dumps({"shards": self._shards, "version": 2}, sort_keys=True).encode())

    def _encoded(self, block: Block) -> Iterator[bytes]:
        segments = block.segments.of_inputs(self._length)
        offsets, boundaries = segments.cu_seqlens(self._length)
        starts = np.concatenate([[0], np.cumsum(segments.per_row)])
        weights = block.token_weights(self._role_weights)[:, 1:]
        partition = block.partition.encode()
        for row in range(len(block)):
            of_row = boundaries[offsets[row] : offsets[row + 1]], segments.documents[starts[row] : starts[row + 1]]
            cu_seqlens, documents = map(_with_shape, of_row)
            sizes = np.array([len(cu_seqlens), len(documents), len(partition)], "<u4").tobytes()
            yield b"".join(
                (sizes, cu_seqlens, documents, block.input_ids[row].tobytes(), weights[row].tobytes(), partition)
            )

    def _write_shard(self) -> None:
        name = f"shard.{len(self._shards):05d}.mds"
        config = json.dumps(self._config, sort_keys=True).encode()
        head = 4 * (len(self._samples) + 2) + len(config)
        offsets = head + np.cumsum([0, *map(len, self._samples)])
        with self._target.files.create(name) as shard:
            shard.write(np.array([len(self._samples)], "<u4"))
            shard.write(offsets.astype("<u4"))
            shard.write(config)
            shard.write(b"".join(self._samples))
            raw = {"basename": name, "bytes": shard.bytes, "hashes": {"sha256": shard.sha256}}
        self._shards.append({**self._config, "raw_data": raw, "samples": len(self._samples), "zip_data": None})
        self._samples, self._bytes = [], 0


def _with_shape(values: NumPyArray) -> bytes:
    """A vector as a column of variable size: dimensions and type of the size in one byte, the size, the values."""
    code = next(code for code, size in enumerate(_SIZE_BYTES) if len(values) < 1 << 8 * size)
    return bytes([1 << 2 | code]) + len(values).to_bytes(_SIZE_BYTES[code], "little") + values.tobytes()


MDS = Format(
    name="mds",
    reader="mosaicml-streaming",
    holds_weights=True,
    lacks=(),
    writer=_MosaicWriter,
)
