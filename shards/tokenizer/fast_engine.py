"""gigatoken: texts to ids ten times faster than tiktoken, from Arrow buffers to arrays, in bounded memory.

It implements byte-level BPE for a handful of patterns and remembers the ids of every word that it has met. Version
0.10 keeps them all, about 8 bytes for each byte of text that never repeats, so the engine is built anew when its memory
has grown by `MEMORY_BYTES` (never in 225 MB of English web text, after 5 MB of random words; 0.1 to 0.3 s).
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np

from colophon.shards.tokenizer.engine_specs import NoEngineError, Recipe
from colophon.shards.tokenizer.text_rows import Bytes, Ids, Positions

MEMORY_BYTES = 32 << 20
_SMALL_CALL = 64 << 10
_GROWTH = 12
"""Bytes that the engine's memory grows by for a byte of text, at most (measured on random words of 4 letters: 5 to 12).
Counted for small calls: to ask the allocator costs 0.1 to 3 ms, with the number of free blocks in it."""


class Gigatoken:
    """One engine on the calling thread."""

    def __init__(self, recipe: Recipe) -> None:
        """Build it.

        Raises:
            NoEngineError: it is not installed or refuses the vocabulary.
        """
        try:
            self._module = importlib.import_module("gigatoken.gigatoken_rs")
            self._awkward = importlib.import_module("awkward")
            self.name = f"gigatoken {version('gigatoken')}"
        except ImportError as error:
            raise NoEngineError(f"gigatoken is not installed ({_line(error)})") from error
        self._recipe = recipe
        self._build()

    def encode(self, data: Bytes, bounds: Positions) -> tuple[Positions, Ids]:
        """Ids of the texts `data[bounds[i] : bounds[i + 1]]`, which follow each other.

        Args:
            data: uint8, UTF-8.
            bounds: int64 [number of texts + 1], at least one text.

        Returns:
            int64 [number of texts], how many ids each has, and uint32 [their sum].

        Raises:
            NoEngineError: it failed.
        """
        if self._grown > MEMORY_BYTES:
            self._build()
        num_bytes = int(bounds[-1] - bounds[0])
        before = used_memory() if num_bytes >= _SMALL_CALL else None
        counts, ids = _guarded(lambda: self._call(data, bounds))
        growth = num_bytes * _GROWTH if before is None else used_memory() - before - ids.nbytes
        self._grown += max(growth, 0)
        return counts, ids

    def _call(self, data: Bytes, bounds: Positions) -> tuple[Positions, Ids]:
        contents = self._awkward.contents
        texts = contents.ListOffsetArray(self._awkward.index.Index64(bounds), contents.NumpyArray(data))
        layout = self._tokenizer.encode_batch(self._awkward.Array(texts), parallel=False).layout
        offsets: Positions = np.asarray(layout.offsets.data)
        ids: Ids = np.asarray(layout.content.data)
        if offsets.size != bounds.size or offsets[-1] != ids.size or ids.dtype != np.uint32:
            raise NoEngineError("it gave another number of rows than texts")
        # The engine's array may have room for twice as many ids, which would count as growth; a copy has not.
        return np.diff(offsets), ids.copy()

    def _build(self) -> None:
        self._tokenizer: Any = None  # the old one goes first: there are never two in memory
        self._tokenizer = _guarded(lambda: self._recipe.build(self._module))
        self._call(np.frombuffer(b"a", np.uint8), np.array([0, 1]))  # its first call makes what is no growth
        self._grown = 0


@cache
def _used_memory() -> Callable[[], int]:
    """Bytes in use by C's allocator, which the engine takes its memory from; where it does not tell (not glibc), the
    process's resident bytes, which other threads disturb more."""
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError, TypeError):
        import psutil

        process = psutil.Process()
        return lambda: int(process.memory_info().rss)
    mallinfo.restype = _MallInfo

    def used() -> int:
        info = mallinfo()
        return int(info.uordblks + info.hblkhd)

    return used


class _MallInfo(ctypes.Structure):
    """`struct mallinfo2` of glibc 2.33 and later."""

    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in _names.split()]


def used_memory() -> int:
    """Bytes of memory in use, for differences."""
    return _used_memory()()


def _guarded(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (NoEngineError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in Rust is no Exception
        raise NoEngineError(f"gigatoken fails: {_line(error)}") from error


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:120]}{'…' if len(text) > 120 else ''}"
