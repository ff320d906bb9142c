"""The table of duplicates that `colophon duplicates` writes: a row for each document of a cluster, in input order.

The annotator `duplicates` looks documents up in it by the file and the place in the file, never by the id, which
several documents can have.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.model_cache import remembered_sha256
from colophon.annotators.lists.mapped_arrays import cached_arrays, write_arrays
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.errors import short_reason

_FORMAT = 1
_SETTINGS, _FILES = b"colophon.duplicates", b"colophon.duplicates.files"
_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("place", pa.int64()),
        ("id", pa.string()),
        ("cluster", pa.int64()),
        ("size", pa.int32()),
        ("kept", pa.bool_()),
    ]
)


def table_schema(settings: Mapping[str, Any], files: Iterable[str]) -> pa.Schema:
    """The schema of a table; its metadata has the settings that it was made with, and the files that were read."""
    content = {"format": _FORMAT, "settings": dict(settings)}
    seen = base64.b64encode(np.sort(_digests(list(files))).tobytes())
    return _SCHEMA.with_metadata({_SETTINGS: json.dumps(content, sort_keys=True).encode(), _FILES: seen})


def table_settings(path: str) -> dict[str, Any]:
    """The settings that a table was made with.

    Raises:
        AnnotatorError: it cannot be read, or is none.
    """
    metadata = _opened(path).schema_arrow.metadata or {}
    try:
        content = json.loads(metadata[_SETTINGS])
        if content["format"] != _FORMAT:
            raise AnnotatorError(f"{path}: written by a different version of colophon")
        return dict(content["settings"])
    except (LookupError, ValueError, TypeError) as error:
        if isinstance(error, AnnotatorError):
            raise
        raise AnnotatorError(f"{path}: not a table of `colophon duplicates`") from None


def num_unknown(path: str, files: Sequence[str]) -> int:
    """The number of `files`, values of `base.DOCUMENT_FILE`, that were not read when a table was made.

    Raises:
        AnnotatorError: the table cannot be read.
    """
    return int(np.isin(_digests(files), _files_of(_opened(path)), invert=True).sum())


class ClusterTable:
    """Finds documents in a table. Memory: 21 bytes for each of its rows, mapped by all processes of a machine."""

    def __init__(self, path: str) -> None:
        """Map the rows; the first process of a machine writes them to the cache.

        Raises:
            AnnotatorError: the table cannot be read.
        """
        name = f"{remembered_sha256(path)}-{_FORMAT}"
        arrays = cached_arrays("duplicates", name, lambda directory: write_arrays(directory, _arrays(path)))
        self._files, self._firsts, self._places = arrays["files"], arrays["firsts"], arrays["places"]
        self._clusters, self._sizes, self._kept = arrays["clusters"], arrays["sizes"], arrays["kept"]

    def find(self, files: pa.Array, places: pa.Array) -> tuple[NumPyArray, NumPyArray, NumPyArray, NumPyArray]:
        """Cluster, size and whether it is kept, of each document.

        Args:
            files: string, of the column `base.DOCUMENT_FILE`.
            places: int64, of `base.DOCUMENT_PLACE`.

        Returns:
            bool [documents], whether a file was read when the table was made; int64, the cluster, -1 for none; int32,
            its size; bool, whether the document is kept.
        """
        encoded = files.dictionary_encode()
        wanted = np.asarray(pc.fill_null(places, -1).to_numpy(zero_copy_only=False))
        numbers = np.asarray(encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False))
        known = np.zeros(len(files), bool)
        clusters, sizes = np.full(len(files), -1, np.int64), np.ones(len(files), np.int32)
        kept = np.ones(len(files), bool)
        for number, digest in enumerate(_digests(encoded.dictionary.to_pylist())):
            file = int(np.searchsorted(self._files, digest))
            if file == len(self._files) or self._files[file] != digest:
                continue
            rows = np.flatnonzero((numbers == number) & (wanted >= 0))
            known[rows] = True
            first, last = int(self._firsts[file]), int(self._firsts[file + 1])
            at = first + np.searchsorted(self._places[first:last], wanted[rows])
            is_there = at < last
            is_there[is_there] = self._places[at[is_there]] == wanted[rows[is_there]]
            rows, at = rows[is_there], at[is_there]
            clusters[rows], sizes[rows], kept[rows] = self._clusters[at], self._sizes[at], self._kept[at]
        return known, clusters, sizes, kept


def _arrays(path: str) -> dict[str, NumPyArray]:
    """The rows by file and place, and where each file's begin."""
    try:
        with _opened(path) as parquet:
            table = parquet.read(use_threads=False)
            files = _files_of(parquet)
        table.validate(full=True)
    except (pa.ArrowException, OSError, LookupError, ValueError) as error:
        if isinstance(error, AnnotatorError):
            raise
        raise AnnotatorError(f"{path}: cannot be read: {short_reason(error)}") from None
    encoded = table.column("file").combine_chunks().dictionary_encode()
    of_row = np.searchsorted(files, _digests(encoded.dictionary.to_pylist()))[encoded.indices.to_numpy()]
    places = table.column("place").to_numpy()
    order = np.lexsort((places, of_row))
    return {
        "files": files,
        "firsts": np.searchsorted(of_row[order], np.arange(len(files) + 1)),
        "places": places[order],
        "clusters": table.column("cluster").to_numpy()[order],
        "sizes": table.column("size").to_numpy()[order],
        "kept": table.column("kept").to_numpy()[order],
    }


def _opened(path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(Path(path))
    except (pa.ArrowException, OSError) as error:
        raise AnnotatorError(f"{path}: cannot be read: {short_reason(error)}") from None


def _files_of(parquet: pq.ParquetFile) -> NumPyArray:
    """uint64 [files]: the digests of the files that were read when a table was made, ascending."""
    return np.frombuffer(base64.b64decode(parquet.schema_arrow.metadata[_FILES]), "<u8").astype(np.uint64)


def _digests(files: Sequence[str]) -> NumPyArray:
    """uint64 [files]: a number for each file."""
    joined = b"".join(blake2b(file.encode(), digest_size=8).digest() for file in files)
    return np.frombuffer(joined, "<u8").astype(np.uint64)
