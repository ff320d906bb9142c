"""Arrays in this machine's cache, which every process maps: built once, however large, and checked before each use.

`arrays.json` completes a directory: it has the sha256 of every file. See `annotators.fasttext.model_cache` for what is
trusted, and for the locks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from colophon.annotators.fasttext.model_cache import ModelCacheError, cached_directory, has_sha256, regular_file
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.digests import file_sha256

_INDEX = "arrays.json"
_MOST_INDEX_BYTES = 1 << 20
_DAMAGE = (OSError, ValueError, TypeError, AttributeError, LookupError, EOFError)
"""Errors of reading files that are not as they were written."""


def cached_arrays(part: str, name: str, build: Callable[[Path], None]) -> dict[str, NumPyArray]:
    """The arrays of a directory in the cache, mapped; it is built if it is missing or damaged.

    Args:
        part: a directory of the cache.
        name: the name of the directory in it: a digest of all that the arrays are made from.
        build: writes the arrays into an empty directory, by `write_arrays` or as files `NAME.bin` of bytes.

    Raises:
        ModelCacheError: the cache cannot be written, or is not private. Errors of `build` are passed on.
    """

    def build_all(directory: Path) -> None:
        build(directory)
        found = {path.name: file_sha256(path) for path in sorted(directory.iterdir())}
        for path in directory.iterdir():
            path.chmod(0o600)
        (directory / _INDEX).touch(mode=0o600)
        (directory / _INDEX).write_text(json.dumps(found))

    return cached_directory(part, name, build=build_all, read=_mapped)


def write_arrays(directory: Path, arrays: Mapping[str, NumPyArray]) -> None:
    """Write each array to `NAME.npy` in a directory."""
    for name, array in arrays.items():
        np.save(directory / f"{name}.npy", array)


def _mapped(directory: Path) -> dict[str, NumPyArray] | None:
    """The arrays by name; None if a file is missing or damaged."""
    try:
        if directory.is_symlink() or regular_file(directory / _INDEX).st_size > _MOST_INDEX_BYTES:
            return None
        files = json.loads((directory / _INDEX).read_text("utf-8"))
        for name, sha256 in files.items():
            regular_file(directory / name)
            if not has_sha256(directory / name, sha256):
                return None
        return {Path(name).stem: _array(directory / name) for name in files}
    except ModelCacheError:
        raise
    except _DAMAGE:
        return None


def _array(path: Path) -> NumPyArray:
    if path.stat().st_size == 0:
        return np.empty(0, np.uint8)
    if path.suffix == ".bin":
        return np.memmap(path, np.uint8, "r")
    return np.asarray(np.load(path, mmap_mode="r"))
