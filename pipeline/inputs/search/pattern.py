"""Globs, matched name by name, so that one walk serves every file system.

A position is the number of components of the glob that have been matched. A walk carries a set of positions from a
directory to its entries: with `data/**/*.parquet` searched in `data`, all of `**/*.parquet` is ahead at position 0.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

Positions = frozenset[int]
_NOWHERE: Positions = frozenset()
_MAGIC = re.compile(r"[*?[]")


def is_glob(path: str) -> bool:
    """Whether a path has the characters of a glob."""
    return _MAGIC.search(path) is not None


def split_glob(path: str) -> tuple[str, Glob]:
    """The directory before the first component with glob characters, and the rest: `a/b*/c` gives `a` and `b*/c`."""
    parts = path.split("/")
    first = next(i for i, part in enumerate(parts) if is_glob(part))
    directory = "/".join(parts[:first]) or ("/" if path.startswith("/") else "")
    return directory, Glob(tuple(filter(None, parts[first:])))


@dataclass(frozen=True)
class Glob:
    """The components of a glob below a directory; none: everything below it."""

    parts: tuple[str, ...]

    @cached_property
    def start(self) -> Positions:
        """The positions at the directory that the glob is below."""
        return self._with_empty_stars({0})

    def is_complete(self, positions: Positions) -> bool:
        """Whether a path with these positions matches. A directory that matches is searched as a whole."""
        return len(self.parts) in positions

    def is_recursive(self, positions: Positions) -> bool:
        """Whether everything below a directory with these positions has to be listed."""
        return self.is_complete(positions) or any(self.parts[i] == "**" for i in positions)

    def ahead(self, positions: Positions) -> list[str]:
        """The components that the entries of a directory with these positions may match; not those that match all."""
        return [self.parts[i] for i in positions if i < len(self.parts) and self.parts[i] != "**"]

    def step(self, positions: Positions, name: str, *, hidden: bool = False) -> Positions:
        """The positions after an entry of a directory.

        Args:
            positions: those of the directory.
            name: the entry's name.
            hidden: only a component that begins with `.` or `_` itself matches the name.
        """
        if positions == self._complete:  # most entries are in directories that are searched as a whole
            return _NOWHERE if hidden else positions
        found = set()
        for i in positions:
            if i == len(self.parts) or self.parts[i] == "**":
                if not hidden:
                    found.add(i)
            elif self._regexes[i].match(name) and not (hidden and self.parts[i][0] not in "._"):
                found.add(i + 1)
        return self._with_empty_stars(found)

    def names(self, positions: Positions, name: str) -> bool:
        """Whether the glob has this name itself, without glob characters."""
        return any(not is_glob(part) and part == name for part in self.ahead(positions))

    @cached_property
    def _complete(self) -> Positions:
        return frozenset({len(self.parts)})

    @cached_property
    def _regexes(self) -> list[re.Pattern[str]]:
        return [re.compile(fnmatch.translate(part)) for part in self.parts]

    def _with_empty_stars(self, positions: Iterable[int]) -> Positions:
        """Also the positions after each `**`, which may match no directory."""
        found, waiting = set(positions), list(positions)
        while waiting:
            i = waiting.pop()
            if i < len(self.parts) and self.parts[i] == "**" and i + 1 not in found:
                found.add(i + 1)
                waiting.append(i + 1)
        return frozenset(found)
