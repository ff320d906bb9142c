"""The reader of packed sequences: memory-mapped rows and the arrays derived from their runs.

Opening a file reads its footer and its runs, some hundredths of it, and checks that they fit each other, so that a
damaged or hostile file allocates no memory later. Reading a row takes a copy of its ids and a `np.repeat` of its runs:
microseconds, no Python object for a token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from colophon.shards.arrow_files import list_values, read_table
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.errors import ShardError
from colophon.shards.manifest import Manifest, read_manifest
from colophon.shards.schema import PackedInfo, Role, TokenizerInfo, full_role_weights, packed_info
from colophon.shards.stores.cache_settings import CacheSettings
from colophon.shards.stores.places import RunPlace


@dataclass(frozen=True, kw_only=True)
class PackedRows:
    """`n` rows of `sequence_length + 1` tokens; labels are `input_ids[:, 1:]`."""

    input_ids: NumPyArray
    """uint16 or uint32 [n, sequence_length + 1]."""
    roles: NumPyArray
    """uint8 [n, sequence_length + 1], a `Role` a token."""
    segments: NumPyArray
    """int32 [n, sequence_length + 1]: the segment's number in its row, from 0; padding at the end is one more segment.
    With a document mask, tokens attend within their segment only."""
    documents: NumPyArray
    """uint32 [n, sequence_length + 1]: row of the token's document in its partition, `NO_DOCUMENT` for padding."""

    @classmethod
    def empty(cls, n: int, *, width: int, dtype: np.dtype[Any]) -> PackedRows:
        """Uninitialized arrays for `n` rows of `width` ids of type `dtype`."""
        shape = (n, width)
        roles, documents = np.empty(shape, np.uint8), np.empty(shape, np.uint32)
        return cls(
            input_ids=np.empty(shape, dtype), roles=roles, segments=np.empty(shape, np.int32), documents=documents
        )

    def loss_weights(self, role_weights: NumPyArray, *, out: NumPyArray | None = None) -> NumPyArray:
        """float32 [n, sequence_length]: the weight of each label, from `role_weights` float32 [7]; written to `out`.

        Role weights [0, 0, 1, 0, 0, 0, 1] and roles [1, 6, 6, 2, 0] (bos text text eos pad) give [1, 1, 1, 0].
        """
        # `PackedDataset` has checked the roles; only "clip" writes to `out` without a buffer.
        weights: NumPyArray = role_weights.astype(np.float32, copy=False).take(self.roles[:, 1:], out=out, mode="clip")
        return weights

    def positions(self) -> NumPyArray:
        """int32 [n, sequence_length + 1]: position of each token in its segment, from 0."""
        index = np.broadcast_to(np.arange(self.segments.shape[1], dtype=np.int32), self.segments.shape)
        starts = np.where(np.diff(self.segments, axis=1, prepend=-1) != 0, index, 0)
        positions: NumPyArray = index - np.maximum.accumulate(starts, axis=1)
        return positions

    def cu_seqlens(self) -> NumPyArray:
        """int32 [num_segments + 1]: boundaries of the *inputs'* segments, rows joined, for varlen attention."""
        inputs = self.segments[:, :-1]
        starts = np.diff(inputs, axis=1, prepend=-1) != 0
        return np.concatenate([np.flatnonzero(starts.reshape(-1)), [inputs.size]]).astype(np.int32)


class IdRows(Protocol):
    """The ids of a file as an array of rows, in memory or elsewhere."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint16 or uint32."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, and ids of a row."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any:
        """The ids of a row, or of a slice of rows."""


class PackedFile:
    """One packed file, memory-mapped.

    Raises:
        ShardError: the file cannot be read, is not a packed shard, or its columns do not fit each other.
    """

    def __init__(self, path: RunPlace, *, table: Any = None, input_ids: IdRows | None = None) -> None:
        """Open a file.

        Args:
            path: a local file; with `table`, the name of the file in errors.
            table: the file's content, if it has been opened otherwise.
            input_ids: the ids in place of the table's.
        """
        table = read_table(Path(path)) if table is None and isinstance(path, Path) else table
        self.path = path
        self.info: PackedInfo = packed_info(table.schema, path=path)
        self._table = table  # keeps the mapping alive
        _refuse_nulls(table, path=path)
        width = self.info.sequence_length + 1
        self.input_ids = _rows_of_ids(table.column("input_ids"), width=width) if input_ids is None else input_ids
        self._offsets, self._lengths = list_values(table.column("run_lengths"))
        role_offsets, self._roles = list_values(table.column("run_roles"))
        document_offsets, self._documents = list_values(table.column("run_documents"))
        if not (np.array_equal(self._offsets, role_offsets) and np.array_equal(self._offsets, document_offsets)):
            raise ShardError(f"{path}: run_lengths, run_roles and run_documents differ in their number of runs")

    def __len__(self) -> int:
        return len(self.input_ids)

    def runs(self, row: int) -> tuple[NumPyArray, NumPyArray, NumPyArray]:
        """Lengths uint32, roles uint8 and documents uint32 of one row's runs, each [num_runs]."""
        part = slice(self._offsets[row], self._offsets[row + 1])
        return self._lengths[part], self._roles[part], self._documents[part]

    def all_runs(self) -> tuple[NumPyArray, NumPyArray, NumPyArray, NumPyArray]:
        """Offsets int64 [num_rows + 1], lengths, roles and documents [num_runs] of the whole file."""
        return self._offsets, self._lengths, self._roles, self._documents

    def check_runs(self) -> None:
        """Check that rows can be built from the runs; `shards.laws` checks their content.

        Raises:
            ShardError: the lengths of a row's runs do not sum to the row's, or a role does not exist.
        """
        ends = np.concatenate([[0], np.cumsum(self._lengths, dtype=np.int64)])
        wrong = np.diff(ends[self._offsets]) != self.input_ids.shape[1]
        if wrong.any():
            raise ShardError(f"{self.path}: row {int(np.argmax(wrong))}: the runs' lengths do not sum to the row's")
        if len(self._roles) and self._roles.max() > max(Role):
            raise ShardError(f"{self.path}: unknown role {int(self._roles.max())}")


class PackedDataset:
    """All packed files of one layout as one sequence of rows."""

    def __init__(self, files: Sequence[Path | PackedFile]) -> None:
        """Open local files, or take files that are open.

        Raises:
            ShardError: there is none, one cannot be read, or they were packed with different settings.
        """
        if not files:
            raise ShardError("no packed files to read")
        self.files = [file if isinstance(file, PackedFile) else PackedFile(file) for file in files]
        self.info = self.files[0].info
        first = _settings(self.files[0])
        for file in self.files:
            if _settings(file) != first:
                raise ShardError(f"{file.path} and {self.files[0].path} were packed with different settings")
            file.check_runs()
        weights = self.role_weights
        if not (np.isfinite(weights) & (weights >= 0)).all():
            raise ShardError(f"{self.files[0].path}: a loss weight in the schema metadata is negative or not finite")
        self._first_rows = np.cumsum([0] + [len(file) for file in self.files])

    @classmethod
    def open(
        cls,
        output: RunPlace,
        layout: str,
        *,
        manifest: Manifest | None = None,
        cache: CacheSettings | None = None,
        report: Callable[[str], None] = lambda line: None,
    ) -> PackedDataset:
        """The files of `layout` in the manifest of the run in `output`.

        Args:
            output: a local directory, or one in an object store, whose rows are read by ranges.
            layout: the layout's name.
            manifest: the run's; None: it is read.
            cache: of rows of an object store, see `stores.row_cache`; None: the default.
            report: receives a line if the cache stops growing.

        Raises:
            ShardError: the manifest or the layout is missing (the message lists the layouts), a file differs from its
                record, or a file is reached through a link.
            StoreReadError: the store fails.
            CacheError: the cache cannot be used.
        """
        manifest = read_manifest(output) if manifest is None else manifest
        if isinstance(output, Path):
            return cls(manifest.packed_files(output, layout))
        from colophon.shards.stores.packed import open_stored  # fsspec is needed for stores alone

        return open_stored(output, manifest.packed_records(output, layout), cache=cache, report=report)

    def __len__(self) -> int:
        return int(self._first_rows[-1])

    @property
    def sequence_length(self) -> int:
        """Inputs of a row."""
        return self.info.sequence_length

    @property
    def id_dtype(self) -> np.dtype[Any]:
        """uint16 or uint32."""
        return self.files[0].input_ids.dtype

    @property
    def tokenizer(self) -> TokenizerInfo:
        """The tokenizer of the ids."""
        return self.info.tokenizer

    @property
    def role_weights(self) -> NumPyArray:
        """float32 [7]: loss weight of a label by its role."""
        return full_role_weights(self.info.role_weights)

    @property
    def fingerprint(self) -> str:
        """sha256 of settings, file names and numbers of rows; it must be unchanged when training resumes."""
        parts = [self.info.fingerprint, *(f"{file.path.name} {len(file)}" for file in self.files)]
        return sha256("\n".join(parts).encode()).hexdigest()

    is_stored = False
    """Whether the rows are in an object store."""

    def read_ahead(self, rows: NumPyArray) -> None:
        """Start reading rows that will be asked for; does nothing for local files, which the system reads ahead."""

    def traffic(self) -> str | None:
        """A human-readable line of what was read from an object store so far; None for local files."""
        return None

    def _copy_ids(self, rows: NumPyArray, located: Sequence[tuple[PackedFile, int]], *, into: NumPyArray) -> None:
        """Copy the ids of rows int64 [n], `located` in files, into uint16 or uint32 [n, sequence_length + 1]."""
        for i, (file, row) in enumerate(located):
            into[i] = file.input_ids[row]

    def locate(self, row: int) -> tuple[PackedFile, int]:
        """The file that holds `row` and the row's number in it."""
        index = int(np.searchsorted(self._first_rows, row, side="right")) - 1
        return self.files[index], row - int(self._first_rows[index])

    def file_numbers(self, rows: NumPyArray) -> NumPyArray:
        """int64 [n]: the place in `files` of the file that holds each of the rows int64 [n]."""
        numbers: NumPyArray = np.searchsorted(self._first_rows, rows, side="right") - 1
        return numbers

    def rows(self, rows: Sequence[int] | NumPyArray, *, into: PackedRows | None = None) -> PackedRows:
        """Copies of `rows`, in their order.

        Args:
            rows: row numbers, counted from 0 over all files.
            into: arrays to fill and return, of as many rows. None allocates new arrays.

        Raises:
            ShardError: a row has an id that the tokenizer does not have.
            IndexError: a row number is out of range.
        """
        width = self.sequence_length + 1
        filled = PackedRows.empty(len(rows), width=width, dtype=self.id_dtype) if into is None else into
        if not len(rows):
            return filled
        numbers = np.asarray(rows, np.int64)
        files = np.searchsorted(self._first_rows, numbers, side="right") - 1
        places = zip(files.tolist(), (numbers - self._first_rows[files]).tolist(), strict=True)
        located = [(self.files[file], row) for file, row in places]
        self._copy_ids(numbers, located, into=filled.input_ids)
        runs = [file.runs(row) for file, row in located]
        # One repeat over the runs of all rows; one for each row would take longer than the copies.
        lengths, roles, documents = (np.concatenate(column) for column in zip(*runs, strict=True))
        segments = segment_numbers(roles, runs_per_row=np.array([len(of_row) for of_row, _, _ in runs]))
        for array, of_runs in ((filled.roles, roles), (filled.segments, segments), (filled.documents, documents)):
            array[...] = np.repeat(of_runs, lengths).reshape(array.shape)
        if filled.input_ids.max() >= self.tokenizer.num_ids:
            # On a GPU, an id outside the embedding ends the process without a useful message.
            highest = filled.input_ids.max()
            raise ShardError(
                f"{self.files[0].path.parent}: id {highest}; the tokenizer has {self.tokenizer.num_ids} ids"
            )
        return filled


def segment_numbers(run_roles: NumPyArray, *, runs_per_row: NumPyArray) -> NumPyArray:
    """int32 [num_runs]: the segment of each run in its row. A bos opens a segment, and so does padding.

    The rows "bos text eos bos text pad" and "bos text" give [0, 0, 0, 1, 1, 2] and [0, 0].

    Args:
        run_roles: [num_runs], rows one after the other.
        runs_per_row: [num_rows], each at least 1, summing to num_runs.
    """
    opened = np.cumsum((run_roles == Role.BOS) | (run_roles == Role.PAD), dtype=np.int32)
    first_runs = np.cumsum(runs_per_row) - runs_per_row
    numbers: NumPyArray = opened - np.repeat(opened[first_runs], runs_per_row)
    return numbers


def _settings(file: PackedFile) -> tuple[np.dtype[Any], PackedInfo]:
    """The dtype and the schema metadata that all files of a layout share."""
    return file.input_ids.dtype, file.info.model_copy(update={"sources": [], "num_tokens": {}})


def _refuse_nulls(table: Any, *, path: RunPlace) -> None:
    for name in ("input_ids", "run_lengths", "run_roles", "run_documents"):
        if any(chunk.null_count or chunk.values.null_count for chunk in table.column(name).chunks):
            raise ShardError(f"{path}: column {name} has nulls")


def _rows_of_ids(column: Any, *, width: int) -> NumPyArray:
    """A fixed-size list column as [num_rows, width]; a view, unless the file has several record batches."""
    chunks = [chunk.flatten().to_numpy(zero_copy_only=True).reshape(-1, width) for chunk in column.chunks]
    if not chunks:
        return np.empty((0, width), column.type.value_type.to_pandas_dtype())
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
