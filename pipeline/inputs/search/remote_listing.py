"""The directories of a store behind fsspec."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

from fsspec import AbstractFileSystem
from fsspec.asyn import AsyncFileSystem

from colophon.pipeline.errors import UsageError, one_line
from colophon.pipeline.inputs.files import size_and_identity
from colophon.pipeline.inputs.search.listings import Entry, Listing, Spot
from colophon.pipeline.inputs.search.pattern import is_glob
from colophon.shards.common.url_secrets import without_query
from colophon.shards.stores.filesystems import filesystem_of
from colophon.shards.stores.retry import is_transient, retried

Result = TypeVar("Result")
_MISSING = (404, 410)
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class RemoteListing(Listing):
    """A store behind fsspec. A store with cheap recursive listings is asked once; any other once a directory."""

    def __init__(self, path: str) -> None:
        try:
            self._filesystem, self.path = filesystem_of(path)
        except (ValueError, ImportError) as error:
            raise UsageError(f"{path}: {error}") from error
        self._spelled = path
        self._known: dict[str, dict[tuple[str, str], Entry]] = {}
        """The entries of the directories below a recursive listing."""

    def root(self, path: str) -> Spot:
        """The spot of a path of this file system."""
        path = path.rstrip("/")
        url = self._filesystem.unstrip_protocol(path)
        return Spot(self._spelled if path == self.path else url, path, _normalized(url))

    def entry(self, spot: Spot) -> Entry | None:
        """The object or directory at a spot; None if there is none."""
        # Not by `exists` and `isdir`: they return False in some file systems when the store fails.
        info = self._ask(lambda: self._filesystem.info(spot.path), spot, missing=None)
        return None if info is None else _remote_entry(posixpath.basename(without_query(spot.path)), info)

    def entries(self, directory: Spot, *, recursive: bool) -> list[Entry]:
        """The entries of a directory."""
        if directory.path in self._known:
            return list(self._known[directory.path].values())
        if recursive and self._lists_recursively:
            nothing: dict[str, Any] = {}
            found = self._ask(lambda: self._filesystem.find(directory.path, detail=True), directory, missing=nothing)
            self._known.update(_tree(directory.path, found.values()))
            return list(self._known[directory.path].values())
        infos: list[Any] = self._ask(lambda: self._filesystem.ls(directory.path, detail=True), directory, missing=[])
        return list(_tree(directory.path, infos)[directory.path].values())

    def url(self, spot: Spot) -> str:
        """The URL."""
        return spot.source

    @property
    def _lists_recursively(self) -> bool:
        """Whether `find` is the store's own. fsspec's own walks, and skips directories that it fails to list."""
        kind = type(self._filesystem)
        own = [getattr(kind, name) for name in ("find", "_find") if hasattr(kind, name)]
        generic = (AbstractFileSystem.find, AsyncFileSystem._find)
        mirrored = isinstance(self._filesystem, AsyncFileSystem)  # its `find` calls `_find`
        return own[-1] not in generic if mirrored else own[0] not in generic

    def _ask(self, call: Callable[[], Result], spot: Spot, *, missing: Result) -> Result:
        """The result of a call, or `missing` if nothing is at the spot.

        Raises:
            UsageError: the store fails, retries included.
        """
        try:
            return retried(call)
        except Exception as error:
            # fsspec takes every answer of a web server for a missing file.
            status = getattr(error.__cause__, "status", None)
            if isinstance(error, FileNotFoundError) and status not in (None, *_MISSING):
                raise UsageError(f"{self._spelled}: cannot be read: the server answers {status}") from error
            # The error for something else, such as the bucket, is about all of the path. Nobody means a glob literally.
            is_about_path = str(error) in (spot.path, f"/{spot.path}") or is_glob(spot.path)
            if isinstance(error, FileNotFoundError) and is_about_path and not is_transient(error):
                return missing
            # fsspec's error for a request without an answer is the address alone.
            cause = error.__cause__ if is_about_path and isinstance(error.__cause__, Exception) else error
            raise UsageError(f"{self._spelled}: cannot be listed: {one_line(cause)}") from error


def _remote_entry(name: str, info: Mapping[str, Any]) -> Entry:
    if info["type"] == "directory":
        return Entry(name, "directory")
    return Entry(name, "file", listed=None if info.get("size") is None else size_and_identity(info))


def _tree(root: str, infos: Iterable[Mapping[str, Any]]) -> dict[str, dict[tuple[str, str], Entry]]:
    """The entries of `root` and of the directories below it; directories that are in names only are entries too."""
    tree: dict[str, dict[tuple[str, str], Entry]] = {root: {}}
    for info in infos:
        if not info["name"].startswith(f"{root}/"):  # a web server's link to a different place
            continue
        *parents, name = info["name"][len(root) + 1 :].rstrip("/").split("/")
        directory = root
        for parent in parents:
            tree[directory].setdefault((parent, "directory"), Entry(parent, "directory"))
            directory = f"{directory}/{parent}"
            tree.setdefault(directory, {})
        is_marker = info["name"].endswith("/") and info["type"] != "directory"  # an empty object instead of a directory
        if name and not is_marker:
            entry = _remote_entry(name, info)
            tree[directory][name, entry.kind] = entry
    return tree


def _normalized(url: str) -> str:
    """One spelling of a URL: of a web address its host in lower case, without default port, `./` and fragment."""
    scheme = url.partition("://")[0]
    if scheme == "hf":  # `main` is the default revision
        return re.sub(r"^(hf://(?:\w+/)?[^/@]+/[^/@]+)@main(?=/|$)", r"\1", url)
    if scheme not in _DEFAULT_PORTS:
        return url
    parts = urlsplit(url)
    host = parts.netloc.lower().removesuffix(_DEFAULT_PORTS[scheme])
    path = posixpath.normpath(parts.path or "/")
    return f"{scheme}://{host}{path}{f'?{parts.query}' if parts.query else ''}"
