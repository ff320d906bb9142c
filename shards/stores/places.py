"""Places of runs: a local directory, or one in an object store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from colophon.shards.common.paths import local_path


@dataclass(frozen=True)
class StorePath:
    """A directory or an object in a store; the part of `pathlib.Path` that code for both needs."""

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, path: str) -> StorePath:
        return StorePath(f"{self.url}/{path}")

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.url.rsplit("/", 1)[-1]

    @property
    def parent(self) -> StorePath:
        """The directory that the object is in."""
        return StorePath(self.url.rsplit("/", 1)[0])

    def resolve(self) -> StorePath:
        """The same place: a store has no links."""
        return self


RunPlace: TypeAlias = Path | StorePath
"""The output of a run, or a file in it."""


def run_place(address: str | RunPlace) -> RunPlace:
    """The place that an address names: a URL of a store, or a local path.

    Raises:
        ValueError: the address is not allowed, see `shards.stores.addresses`.
    """
    if not isinstance(address, str):
        return address
    from colophon.shards.stores.addresses import check_address

    place = local_path(check_address(address))
    return StorePath(place.rstrip("/")) if "://" in place else Path(place)
