"""A model's tables as files in this machine's cache, which every process maps."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from colophon.annotators.fasttext.kernel.compiled.structures import Shape, Tables
from colophon.annotators.fasttext.kernel.matrices import Matrix
from colophon.annotators.fasttext.kernel.tables import Allocate, LinearModel, build_model
from colophon.annotators.fasttext.model_cache import cached_directory, remembered_sha256
from colophon.annotators.fasttext.model_file import read_layout
from colophon.annotators.fasttext.model_layout import MatrixPlace
from colophon.shards.common.arrays import NumPyArray

_FORMAT = 4
"""The version of the cached files; with a new number they are rebuilt."""
_NUMBERS_FILE = "numbers.json"


def cached_model(path: str) -> LinearModel:
    """The model in `path` with tables mapped from the cache, where they are built if they are missing.

    Raises:
        AnnotatorError: the model cannot be read or holds NaN, or the cache cannot be written.
    """
    directory = cached_directory(
        f"fasttext/{remembered_sha256(path)}-{_FORMAT}", lambda directory: _write_tables(path, directory)
    )
    return _mapped_model(directory, path)


def _write_tables(path: str, directory: Path) -> None:
    model = build_model(read_layout(path), allocate=_allocate_files(directory))
    numbers = {
        "shape": {name: int(number) for name, number in model.shape._asdict().items()},
        "inputs": asdict(model.inputs.place),
        "outputs": asdict(model.outputs.place),
        "label_counts": model.label_counts,
    }
    (directory / _NUMBERS_FILE).write_text(json.dumps(numbers))


def _allocate_files(directory: Path) -> Allocate:
    def allocate(name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> NumPyArray:
        path = directory / f"{name}.npy"
        if not all(shape):
            return np.zeros(shape, dtype)
        array: NumPyArray = open_memmap(path, mode="w+", dtype=dtype, shape=shape)  # type: ignore[no-untyped-call]
        if hasattr(os, "posix_fallocate"):  # not on macOS
            with path.open("r+b") as file:
                # Raises on a full disk; without it a signal would end the process when it writes a page.
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return array

    return allocate


def _mapped_model(directory: Path, path: str) -> LinearModel:
    numbers = json.loads((directory / _NUMBERS_FILE).read_text())

    def array(name: str, empty: NumPyArray) -> NumPyArray:
        path = directory / f"{name}.npy"
        if path.is_file():
            return np.asarray(np.load(path, mmap_mode="r"))
        empty.flags.writeable = False
        return empty

    tables = Tables(
        slots=array("slots", np.empty((0, 2), np.uint64)),
        rows=array("rows", np.empty(0, np.float32)),
        counts=array("counts", np.empty(0, np.int32)),
        kept=array("kept", np.empty(0, np.int32)),
        list_firsts=array("list_firsts", np.empty(0, np.int64)),
        lists=array("lists", np.empty(0, np.int32)),
    )
    return LinearModel(
        tables=tables,
        shape=Shape(**(numbers["shape"] | {"inverse": np.uint64(numbers["shape"]["inverse"])})),
        inputs=Matrix(path=path, place=MatrixPlace.from_json(numbers["inputs"])),
        outputs=Matrix(path=path, place=MatrixPlace.from_json(numbers["outputs"])),
        label_counts=tuple(numbers["label_counts"]),
    )
