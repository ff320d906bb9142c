"""fsspec's file systems for the addresses of `shards.stores.addresses`. Nothing else asks fsspec for one.

The protocol and the path are taken apart here: fsspec would read `::` in a key of a store as a chain of protocols.
"""

from __future__ import annotations

from typing import Any

import fsspec
from fsspec import AbstractFileSystem
from fsspec.core import OpenFile

from colophon.shards.common.errors import ColophonError, MissingLibraryError, missing_library, one_line
from colophon.shards.stores.addresses import PROTOCOLS, protocol_of

_SILENT_SECONDS = 20.0
_EXTRAS = {"gcs": ("gcsfs", "gcs"), "gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3"), "s3a": ("s3fs", "s3")}
"""The package of a protocol, and our extra that installs it."""


def filesystem_of(url: str, **options: Any) -> tuple[AbstractFileSystem, str]:
    """The file system of a URL, and the URL's path in it.

    Args:
        url: a URL of `PROTOCOLS`, below an address that was checked.
        options: those of the file system.

    Raises:
        ColophonError: the protocol is not in `PROTOCOLS`.
        MissingLibraryError: the protocol's library is not installed.
    """
    protocol = protocol_of(url)
    if protocol not in PROTOCOLS:
        raise ColophonError(f"an address with a protocol that is not supported; available: {', '.join(PROTOCOLS)}")
    kind = _class_of(protocol)
    options = {**_patience(protocol), **kind._get_kwargs_from_urls(url), **options}
    filesystem: AbstractFileSystem = fsspec.filesystem(protocol, **options)
    return filesystem, str(kind._strip_protocol(url))


def _patience(protocol: str) -> dict[str, Any]:
    """Options that end a web request without a byte for 20 s; aiohttp ends each after 5 minutes, however it goes."""
    if protocol not in ("http", "https"):
        return {}
    from aiohttp import ClientTimeout

    return {"client_kwargs": {"timeout": ClientTimeout(sock_connect=_SILENT_SECONDS, sock_read=_SILENT_SECONDS)}}


def _class_of(protocol: str) -> Any:
    try:
        return fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        if protocol not in _EXTRAS:
            raise MissingLibraryError(f"{protocol}://: {one_line(error)}") from error
        package, extra = _EXTRAS[protocol]
        raise MissingLibraryError(missing_library(f"{protocol}://", package, extra=extra)) from error


def open_url(url: str, *, compression: str | None = None, **options: Any) -> OpenFile:
    """The file at a URL for reading from front to back, decompressed; `options` are those of the file system."""
    filesystem, path = filesystem_of(url, **options)
    return OpenFile(filesystem, path, "rb", compression)
