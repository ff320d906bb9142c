"""Listings of directories: a local disk's and, through fsspec, any other store's, as the same entries.

The place of a file is where it really is: its path without links on a disk, its normalized URL elsewhere. It does not
depend on the spelling of the path that leads to it.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Literal, NamedTuple


class Spot(NamedTuple):
    """A directory or file while it is searched."""

    source: str
    """The path for records and messages. Of a web address with its query, which no record keeps."""
    path: str
    """The path for the file system."""
    place: str

    def child(self, name: str, *, place: str | None = None) -> Spot:
        """An entry of this directory; `place` if it is a link."""
        return Spot(
            _join(self.source, name), _join(self.path, name), _join(self.place, name) if place is None else place
        )


class Entry(NamedTuple):
    """An entry of a directory."""

    name: str
    kind: Literal["file", "directory", "unusable"]
    link_to: str | None = None
    """The place of a link's target."""
    problem: str | None = None
    """The reason why an unusable entry cannot be read."""
    listed: tuple[int, str] | None = None
    """Size and identity, if the listing has them: one request for each of 10,000 files would take long."""


class Listing(ABC):
    """The directories of one file system."""

    path: str
    """The recipe's path as this file system spells it, without protocol."""

    @abstractmethod
    def root(self, path: str) -> Spot:
        """The spot of a path of this file system."""

    @abstractmethod
    def entry(self, spot: Spot) -> Entry | None:
        """The file or directory at a spot; None if there is none."""

    @abstractmethod
    def entries(self, directory: Spot, *, recursive: bool) -> list[Entry]:
        """The entries of a directory, in any order; `recursive`: those of all directories below will be needed.

        Raises:
            OSError: a local directory cannot be read.
            UsageError: a store cannot be listed, retries included.
        """

    def problem(self, spot: Spot) -> str | None:
        """The reason why a file cannot be opened, if that is known without a request."""
        return None

    @abstractmethod
    def url(self, spot: Spot) -> str:
        """The absolute path or URL of a file, for workers with a different working directory."""


def escaped(name: str) -> str:
    r"""A name with bytes that are not UTF-8 as text: `a\xff.parquet`."""
    return name if is_text(name) else os.fsencode(name).decode("utf-8", "backslashreplace")


def is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _join(directory: str, name: str) -> str:
    return f"{directory}{name}" if directory.endswith("/") or not directory else f"{directory}/{name}"
