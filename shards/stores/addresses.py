"""Addresses: the local paths and URLs that recipes, options and manifests may name, by one rule.

fsspec knows some sixty protocols. Some run code or commands (`reference`, `git`, `dask`, `pyscript`), some read their
target through a different protocol (`simplecache`, `zip`, and every address with `::`). Only protocols that do nothing
but store files are on the list. An address that may hold a secret is refused, because manifests and records keep it. No
message repeats an address that is refused.
"""

from __future__ import annotations

import re
from pathlib import Path

from colophon.shards.common.paths import local_path
from colophon.shards.common.url_secrets import secret_in

PROTOCOLS = (
    *("abfs", "abfss", "az", "file", "gcs", "gs", "hdfs", "hf", "http", "https", "local", "memory", "oci", "oss"),
    *("s3", "s3a", "tos", "webhdfs"),
)
"""The protocols of addresses: local files, object stores, the hub, the web, Hadoop, and a store in memory for tests."""
_MISSPELT = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):[/\\]")
_CLUSTER = re.compile(r"(?:ray://)?[^/\\@]*")
_PROTOCOL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{1,15}")


def protocol_of(address: str) -> str | None:
    """The protocol before `://`; None for a local path."""
    protocol, separator, _ = address.partition("://")
    return protocol if separator else None


def secret_problem(text: str) -> str | None:
    """Why a text of a recipe is refused that has a URL which may hold a secret; None if it has none."""
    problem = secret_in(text)
    if problem is None:
        return None
    return f"must not hold a secret: {problem}. Records keep addresses: set credentials as docs/recipes.md shows"


def check_address(address: str) -> str:
    """Return an address that a run may read or write.

    Raises:
        ValueError: a secret in it, a protocol that is not in `PROTOCOLS`, or a chain of addresses.
    """
    if problem := secret_problem(address):
        raise ValueError(problem)
    protocol = protocol_of(address)
    if "::" in address and (protocol is not None or not _exists(address)):
        raise ValueError("must not contain '::', which chains protocols. A local file of this name can be renamed")
    if protocol is None:
        misspelt = _MISSPELT.match(address)
        if misspelt and misspelt[1] not in ("file", "local"):
            raise ValueError(f"a URL begins with PROTOCOL://; available: {', '.join(PROTOCOLS)}")
    elif protocol not in PROTOCOLS:
        named = repr(protocol) if _PROTOCOL.fullmatch(protocol) else "of this address"
        raise ValueError(f"the protocol {named} is not supported; available: {', '.join(PROTOCOLS)}")
    return address


def check_local(address: str) -> str:
    """Return the address of a file or directory of this machine: a path, or a `file:` URL.

    Raises:
        ValueError: see `check_address`; or it is the URL of a store.
    """
    protocol = protocol_of(check_address(address))
    if protocol not in (None, "file", "local"):
        raise ValueError(f"must be a local path, not {protocol}://")
    return address


def check_cluster(address: str) -> str:
    """Return the address of a Ray cluster. Ray imports, and so runs, the module that any protocol but its own names.

    Whether it has a host and a port is checked when a cluster is needed.

    Raises:
        ValueError: it has a different protocol, or a path.
    """
    if not _CLUSTER.fullmatch(address):
        raise ValueError("must be HOST:PORT, ray://HOST:PORT or auto")
    return address


def _exists(address: str) -> bool:
    """Whether a path exists. A local file may have `::` in its name; fsspec is never asked for it."""
    try:
        return Path(local_path(address)).exists()
    except (OSError, ValueError, RuntimeError):
        return False
