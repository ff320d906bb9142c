"""A model's tables as files in this machine's cache, which every process maps.

`numbers.json` completes the directory of a model: it has the numbers of the model and the size, dtype, shape and sha256
of each table, and its own sha256. Tables are mapped only if all of that fits; otherwise they are built again. See
`model_cache` for what is trusted.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from errno import EMFILE, ENFILE, ENOMEM
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.kernel.compiled.structures import Shape, Tables
from colophon.annotators.fasttext.kernel.matrices import Matrix
from colophon.annotators.fasttext.kernel.tables import Allocate, LinearModel, build_model
from colophon.annotators.fasttext.model_cache import (
    ModelCacheError,
    cached_directory,
    has_sha256,
    regular_file,
    remembered_sha256,
)
from colophon.annotators.fasttext.model_file import read_layout
from colophon.annotators.fasttext.model_layout import MatrixPlace
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.digests import file_sha256, fingerprint

_FORMAT = 5
"""The version of the cached files; with a new number they are rebuilt."""
_NUMBERS_FILE = "numbers.json"
_MOST_NUMBERS_BYTES = 1 << 30
_EMPTY_TABLES: dict[str, NumPyArray] = {
    "slots": np.empty((0, 2), np.uint64),
    "rows": np.empty(0, np.float32),
    "counts": np.empty(0, np.int32),
    "kept": np.empty(0, np.int32),
    "list_firsts": np.empty(0, np.int64),
    "lists": np.empty(0, np.int32),
}
"""The tables of a model without any; empty ones have no file."""
_UNSIGNED = ("inverse", "slot_factor")
_DAMAGE = (ValueError, TypeError, AttributeError, LookupError, OverflowError, RecursionError, EOFError)
"""Errors of reading a file that is not as it was written."""
_OWN_LIMITS = (EMFILE, ENFILE, ENOMEM)
"""Errors of this process, not of a file."""


def cached_model(path: str) -> LinearModel:
    """The model in `path` with tables mapped from the cache, where they are built if they are missing or damaged.

    Raises:
        ModelCacheError: the cache cannot be written, or is not private.
        AnnotatorError: the model cannot be read, changes meanwhile or holds NaN.
    """
    digest = remembered_sha256(path)
    return cached_directory(
        "fasttext",
        f"{digest}-{_FORMAT}",
        build=lambda directory: _write_tables(path, directory, digest),
        read=lambda directory: _mapped_model(path, directory, digest),
    )


def _write_tables(path: str, directory: Path, digest: str) -> None:
    model = build_model(read_layout(path), allocate=_allocate_files(directory))
    numbers = {
        "model_sha256": digest,
        "shape": {name: int(number) for name, number in model.shape._asdict().items()},
        "inputs": asdict(model.inputs.place),
        "outputs": asdict(model.outputs.place),
        "label_counts": model.label_counts,
        "tables": {name: _described(directory, name, table) for name, table in model.tables._asdict().items()},
    }
    if remembered_sha256(path) != digest:  # tables of the new file must not get the old one's name
        raise AnnotatorError(f"{path}: the file has changed while its tables were built")
    marker = directory / _NUMBERS_FILE
    marker.touch(mode=0o600)
    marker.write_text(json.dumps(numbers | {"sha256": fingerprint(numbers)}))


def _described(directory: Path, name: str, table: NumPyArray) -> dict[str, Any] | None:
    if not table.size:
        return None
    path = _table_file(directory, name)
    return {
        "dtype": table.dtype.str,
        "shape": list(table.shape),
        "bytes": path.stat().st_size,
        "sha256": file_sha256(path),
    }


def _table_file(directory: Path, name: str) -> Path:
    return directory / f"{name}.npy"


def _allocate_files(directory: Path) -> Allocate:
    def allocate(name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> NumPyArray:
        path = _table_file(directory, name)
        if not all(shape):
            return np.zeros(shape, dtype)
        array: NumPyArray = open_memmap(path, mode="w+", dtype=dtype, shape=shape)  # type: ignore[no-untyped-call]
        path.chmod(0o600)
        if hasattr(os, "posix_fallocate"):  # not on macOS
            with path.open("r+b") as file:
                # Raises on a full disk; without it a signal would end the process when it writes a page.
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return array

    return allocate


def _mapped_model(path: str, directory: Path, digest: str) -> LinearModel | None:
    """The model in `path` with the tables of a directory; None if one of its files is missing or damaged.

    Raises:
        ModelCacheError: the cache is not private.
        OSError: this process may not map or open more files.
    """
    try:
        return _read_model(path, directory, digest)
    except ModelCacheError:
        raise
    except OSError as error:
        if error.errno in _OWN_LIMITS:
            raise
    except _DAMAGE:
        pass
    return None


def _read_model(path: str, directory: Path, digest: str) -> LinearModel:
    """The model in `path` with the tables of a directory; raises an OSError or one of `_DAMAGE` if they do not fit."""
    if directory.is_symlink() or regular_file(directory / _NUMBERS_FILE).st_size > _MOST_NUMBERS_BYTES:
        raise ValueError
    numbers = json.loads((directory / _NUMBERS_FILE).read_text("utf-8"))
    expected = numbers.pop("sha256")
    if fingerprint(numbers) != expected or numbers["model_sha256"] != digest:
        raise ValueError
    shape = numbers["shape"]
    return LinearModel(
        tables=Tables(**{name: _mapped(directory, name, numbers["tables"][name]) for name in _EMPTY_TABLES}),
        shape=Shape(**(shape | {name: np.uint64(shape[name]) for name in _UNSIGNED})),
        inputs=Matrix(path=path, place=MatrixPlace.from_json(numbers["inputs"])),
        outputs=Matrix(path=path, place=MatrixPlace.from_json(numbers["outputs"])),
        label_counts=tuple(numbers["label_counts"]),
    )


def _mapped(directory: Path, name: str, described: dict[str, Any] | None) -> NumPyArray:
    if described is None:
        array = _EMPTY_TABLES[name].copy()
        array.flags.writeable = False
        return array
    path = _table_file(directory, name)
    if regular_file(path).st_size != described["bytes"] or not has_sha256(path, described["sha256"]):
        raise ValueError
    array = np.asarray(np.load(path, mmap_mode="r"))
    if [array.dtype.str, list(array.shape)] != [described["dtype"], described["shape"]]:
        raise ValueError
    return array
