"""The search for input files."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import fsspec

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
    """As the recipe spells it: the file's identity in names and records."""
    url: str
    """Absolute, for workers whose working directory is another."""
    format: InputFormat
    listed: tuple[int, str] | None = None
    """Size and identity, where the listing that found the file told them: asking for each of 10,000 would take long."""


def expand(config: InputSection) -> Iterator[InputFile]:
    """The files that the recipe's paths name, each once."""
    seen: set[str] = set()
    for path in config.paths:
        for file in _expand_one(path, config.format):
            if file.url not in seen:
                seen.add(file.url)
                yield file


def _expand_one(path: str, declared: InputFormat | None) -> list[InputFile]:
    found = list(_remote(path) if "://" in path else _local(path))
    searched = not (len(found) == 1 and found[0][0] == path)
    files = []
    for source, url, listed in found:
        # A search takes what looks like data and leaves stray and hidden files alone; a named file must be known.
        hidden = source.rsplit("/", 1)[-1].startswith((".", "_"))
        file_format = declared or format_of(source)
        if searched and (hidden or file_format is None):
            continue
        if file_format is None:
            raise UsageError(
                f"input.paths: {source}: no format known by this suffix; known: {', '.join(SUFFIXES)} "
                f"(also {', '.join(COMPRESSIONS)}), or set input.format"
            )
        files.append(InputFile(source=source, url=url, format=file_format, listed=listed))
    if not files:
        raise UsageError(f"input.paths: {path}: no such file, or no data file there")
    return files


def _local(path: str) -> Iterator[tuple[str, str, None]]:
    root = Path(path).expanduser()
    if root.is_file():
        yield path, str(root.absolute()), None
        return
    pattern = f"{glob.escape(str(root))}/**/*" if root.is_dir() else str(root)
    for match in sorted(glob.glob(pattern, recursive=True)):
        if Path(match).is_file():
            yield match, str(Path(match).absolute()), None


def _remote(path: str) -> Iterator[tuple[str, str, tuple[int, str] | None]]:
    filesystem, inner = _filesystem(path)
    try:
        matches = retried(lambda: _listed(filesystem, inner))
    except Exception as error:
        raise UsageError(f"input.paths: {path}: cannot be listed: {one_line(error)}") from error
    for match, info in sorted(matches.items()):
        url = path if match == inner else filesystem.unstrip_protocol(match)
        yield url, url, None if info.get("size") is None else size_and_identity(info)


def _listed(filesystem: Any, inner: str) -> dict[str, Mapping[str, Any]]:
    """The files that a path names, with what the store tells of each."""
    if any(c in inner for c in "*?["):
        found = filesystem.glob(inner, detail=True)
    else:
        # Not by `exists` and `isdir`: of a store that fails, some file systems say that nothing is there.
        try:
            info = filesystem.info(inner)
        except FileNotFoundError as error:
            if is_transient(error) or str(error) not in (inner, f"/{inner}"):
                raise
            return {}
        found = filesystem.find(inner, detail=True) if info["type"] == "directory" else {inner: info}
    return {name: info for name, info in found.items() if info["type"] != "directory"}


def _filesystem(path: str) -> tuple[Any, str]:
    try:
        filesystem, inner = fsspec.url_to_fs(path)
    except (ValueError, ImportError) as error:
        raise UsageError(f"input.paths: {path}: {error}") from error
    return filesystem, inner


def format_of(source: str) -> InputFormat | None:
    """The format that the file's suffix says, a compression's suffix taken off."""
    name = source.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return next((known for suffix, known in SUFFIXES.items() if name.endswith(suffix)), None)


_VERSIONS = ("ETag", "etag", "blob_id", "mtime", "Last-Modified", "LastModified")
"""What file systems call that which changes with a file's content, the surest first; `blob_id` is the hub's."""


def file_info(url: str) -> Mapping[str, Any]:
    """What the store says of a file: size and version."""
    filesystem, path = fsspec.url_to_fs(url)
    info: Mapping[str, Any] = filesystem.info(path)
    return info


def size_and_identity(info: Mapping[str, Any]) -> tuple[int, str]:
    """A file\'s bytes, and a digest of what changes with its content."""
    changed = next((info[name] for name in _VERSIONS if info.get(name)), None)
    return int(info["size"] or 0), digest(f"{info['size']} {changed}".encode())


def digest(data: Any) -> str:
    """A short sha256 of a JSON value."""
    return sha256(data).hexdigest()
