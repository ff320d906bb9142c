"""The search for input files: from the paths of a recipe to files with format, size and identity."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa

from colophon.pipeline.errors import UsageError, one_line
from colophon.pipeline.recipe.schema import InputFormat, InputSection
from colophon.pipeline.retry import is_transient, retried

SUFFIXES: dict[str, InputFormat] = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".arrow": "arrow",
    ".warc": "warc",
}
COMPRESSIONS = (".gz", ".zst")


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """One file of the input."""

    source: str
    """The path as spelled in the recipe, or found below it: the file's identity in names and records."""
    url: str
    """The absolute path or URL, for workers with a different working directory."""
    format: InputFormat
    listed: tuple[int, str] | None = None
    """Size and identity from the listing that found the file; None: the file has to be asked for them. One request
    for each of 10,000 files would take long."""


def expand(config: InputSection) -> Iterator[InputFile]:
    """The files at the recipe's paths, in order, each once.

    Raises:
        UsageError: a path without data files, with an unknown suffix, or on a store that cannot be listed.
    """
    seen: set[str] = set()
    for path in config.paths:
        for file in _files_at(path, config.format):
            if file.url not in seen:
                seen.add(file.url)
                yield file


def _files_at(path: str, declared: InputFormat | None) -> list[InputFile]:
    matches = list(_remote_files(path) if "://" in path else _local_files(path))
    is_search = not (len(matches) == 1 and matches[0][0] == path)
    files = []
    for source, url, listed in matches:
        # A search skips hidden files and unknown suffixes; a file given by its path must have a known format.
        is_hidden = source.rsplit("/", 1)[-1].startswith((".", "_"))
        file_format = declared or format_of(source)
        if is_search and (is_hidden or file_format is None):
            continue
        if file_format is None:
            raise UsageError(
                f"input.paths: {source}: unknown suffix; available: {', '.join(SUFFIXES)} "
                f"(also with {', '.join(COMPRESSIONS)}). Or set input.format"
            )
        files.append(InputFile(source=source, url=url, format=file_format, listed=listed))
    if not files:
        raise UsageError(f"input.paths: {path}: no such file, or no data file in it")
    return files


def _local_files(path: str) -> Iterator[tuple[str, str, None]]:
    root = Path(path).expanduser()
    if root.is_file():
        yield path, str(root.absolute()), None
        return
    pattern = f"{glob.escape(str(root))}/**/*" if root.is_dir() else str(root)
    for match in sorted(glob.glob(pattern, recursive=True)):
        if Path(match).is_file():
            yield match, str(Path(match).absolute()), None


def _remote_files(path: str) -> Iterator[tuple[str, str, tuple[int, str] | None]]:
    filesystem, inner = _filesystem(path)
    try:
        matches = retried(lambda: _listing(filesystem, inner))
    except Exception as error:
        raise UsageError(f"input.paths: {path}: cannot be listed: {one_line(error)}") from error
    for match, info in sorted(matches.items()):
        url = path if match == inner else filesystem.unstrip_protocol(match)
        yield url, url, None if info.get("size") is None else size_and_identity(info)


def _listing(filesystem: Any, inner: str) -> dict[str, Mapping[str, Any]]:
    """The files at a path, a directory or a glob, with the store's information on each."""
    if any(c in inner for c in "*?["):
        entries = filesystem.glob(inner, detail=True)
    else:
        # Not by `exists` and `isdir`: they return False in some file systems when the store fails.
        try:
            info = filesystem.info(inner)
        except FileNotFoundError as error:
            if is_transient(error) or str(error) not in (inner, f"/{inner}"):
                raise
            return {}
        entries = filesystem.find(inner, detail=True) if info["type"] == "directory" else {inner: info}
    return {name: info for name, info in entries.items() if info["type"] != "directory"}


def _filesystem(path: str) -> tuple[Any, str]:
    try:
        filesystem, inner = fsspec.url_to_fs(path)
    except (ValueError, ImportError) as error:
        raise UsageError(f"input.paths: {path}: {error}") from error
    return filesystem, inner


def format_of(source: str) -> InputFormat | None:
    """The format of the file's suffix, after removing that of a compression; None if it is unknown."""
    name = source.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return next((known for suffix, known in SUFFIXES.items() if name.endswith(suffix)), None)


_VERSIONS = ("ETag", "etag", "blob_id", "mtime", "Last-Modified", "LastModified")
"""The keys under which file systems report a file's version, the most reliable first; `blob_id` is the hub's."""


def file_info(url: str) -> Mapping[str, Any]:
    """The store's information on a file: size and version. Of a local file, size and time of change alone."""
    if "://" not in url:
        status = Path(url).stat()
        return {"size": status.st_size, "mtime": status.st_mtime_ns}
    filesystem, path = fsspec.url_to_fs(url)
    info: Mapping[str, Any] = filesystem.info(path)
    return info


def size_and_identity(info: Mapping[str, Any]) -> tuple[int, str]:
    """A file's size in bytes, and a digest of its size and version."""
    version = next((info[name] for name in _VERSIONS if info.get(name)), None)
    return int(info["size"] or 0), digest(f"{info['size']} {version}".encode())


def digest(data: bytes | pa.Buffer) -> str:
    """sha256 of bytes or a buffer, in hexadecimal."""
    return sha256(data).hexdigest()
