"""A file's size, and its identity as far as the file system knows it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from colophon.shards.stores.filesystems import filesystem_of

_VERSIONS = ("ETag", "etag", "blob_id", "mtime", "Last-Modified", "LastModified")
"""The keys under which file systems report a file's version, the most reliable first; `blob_id` is the hub's."""


def file_info(url: str) -> Mapping[str, Any]:
    """The store's information on a file: size and version. Of a local file, size and time of change alone."""
    if "://" not in url:
        status = os.stat(url)  # noqa: PTH116  a Path takes longer than the call
        return {"size": status.st_size, "mtime": status.st_mtime_ns}
    filesystem, path = filesystem_of(url)
    info: Mapping[str, Any] = filesystem.info(path)
    return info


def size_and_identity(info: Mapping[str, Any]) -> tuple[int, str]:
    """A file's size in bytes, and a digest of its size and version."""
    version = next((info[name] for name in _VERSIONS if info.get(name)), None)
    return int(info["size"] or 0), digest(f"{info['size']} {version}".encode())


def digest(data: bytes) -> str:
    """sha256 of bytes, in hexadecimal."""
    return sha256(data).hexdigest()
