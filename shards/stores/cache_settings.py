"""The settings of the cache of rows of object stores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEFAULT_CACHE_BYTES = 10_000_000_000


@dataclass(frozen=True, kw_only=True)
class CacheSettings:
    """The cache of rows on this machine, see `stores.row_cache`."""

    max_bytes: int = DEFAULT_CACHE_BYTES
    """Most bytes in the directory, of all data sets and processes together; 0: no cache."""
    directory: Path | None = None
    """None: `shards/` in the directory of Colophon's caches, see `shards.common.cache_directory`."""
