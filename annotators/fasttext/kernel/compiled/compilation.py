"""The decorators by which numba compiles the functions of this folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

from numba import njit

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compiled at the first call and kept on disk beside the source, else in numba's user-wide cache; frees the GIL.

    Numba detects a change of a function's own file, but not of a function that is called in another file. It names its
    files after the function, so the name gets a digest of the whole folder.
    """
    function.__qualname__ = f"{function.__qualname__}_{sources_digest()}"
    try:
        return cast(Callable[P, R], njit(cache=True, nogil=True, error_model="numpy")(function))
    except RuntimeError:  # neither place can be written: each process compiles for itself, some seconds
        return cast(Callable[P, R], njit(nogil=True, error_model="numpy")(function))


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Inlined into the compiled functions that call it: across a call numba counts references to every array."""
    return cast(Callable[P, R], njit(inline="always")(function))


@cache
def sources_digest() -> str:
    """Eight hexadecimal digits that change with any file of this folder."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]
