"""File names: the format and the compression that a suffix names, and the names of files that are no data.

Readers take the compression and the delimiter of a file from here too, so that a suffix means the same everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from colophon.pipeline.recipe.schema import InputFormat
from colophon.shards.common.url_secrets import without_query

FORMATS: dict[str, InputFormat] = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
    ".warc": "warc",
    ".wet": "warc",
    ".txt": "text",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd", ".xz": "xz", ".bz2": "bz2"}
"""fsspec's name of each compression."""
_NOT_COMPRESSED = {"parquet", "arrow"}
"""Formats with a compression of their own, read at random places."""

_UNREADABLE_COMPRESSIONS = frozenset(
    {".7z", ".br", ".lz4", ".lzma", ".lzo", ".rar", ".snappy", ".sz", ".tar", ".tbz2", ".tgz", ".txz", ".z", ".zip"}
)
_UNREADABLE_FORMATS = frozenset(
    {
        *(".avro", ".duckdb", ".h5", ".hdf5", ".lance", ".mds", ".msgpack", ".orc", ".pickle", ".pkl", ".sqlite"),
        *(".sqlite3", ".tfrecord", ".tfrecords", ".wat", ".xls", ".xlsx"),
    }
)
_SIDE_FILES = frozenset({"dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json"})
"""Files that `datasets` writes beside the data. Spark's begin with `_` or `.`, or end with `.crc`."""
_CACHE_FILE = re.compile(r"cache-[0-9a-f]{16}(_[0-9]{5}_of_[0-9]{5})?\.arrow")
"""Results of `map`, `filter` and `shuffle`, which `datasets` keeps beside the data that they were made from."""
_SHORT_SUFFIX = re.compile(r"[a-z0-9._+~-]{2,16}")

AVAILABLE = f"{', '.join(FORMATS)}; {', '.join(COMPRESSIONS)} may follow, except after those of Parquet and Arrow"


class Meaning(NamedTuple):
    """The meaning of a file's name. One of `format`, `problem` and `left_aside` is set."""

    format: InputFormat | None = None
    problem: str | None = None
    """The reason why data of this kind cannot be read."""
    left_aside: str | None = None
    """The kind of files that are no data."""


UNASKED_TEXT = Meaning(left_aside="text file (format = 'text' reads it)")
"""The meaning of a text file that a search meets: most are notes and licences beside data."""
NO_SUFFIX = Meaning(left_aside="no suffix")
"""The meaning of a name without a dot."""


def meaning_of(
    name: str, declared: InputFormat | None = None, *, is_named: bool = False, globs: Sequence[str] = ()
) -> Meaning:
    """The meaning of a file's name.

    Args:
        name: without directory.
        declared: the recipe's `input.format`.
        is_named: the recipe names the file itself.
        globs: the components of a glob that the name may have matched; a text file is read if one of them has `.txt`.
    """
    if name in _SIDE_FILES and not is_named:
        return Meaning(left_aside="side file")
    if _CACHE_FILE.fullmatch(name) and not is_named:
        return Meaning(left_aside="cache file of datasets")
    meaning = _meaning_of_suffixes(*_suffixes(name), declared)
    is_asked = is_named or declared == "text" or any(".txt" in glob.lower() for glob in globs)
    return meaning if meaning.format != "text" or is_asked else UNASKED_TEXT


def may_be_directory(name: str, meaning: Meaning, *, is_expected: bool) -> bool:
    """Whether a link that leads nowhere may have led to a directory with data: `2024`, `CC-MAIN-2024.10`.

    Args:
        name: the link's name.
        meaning: that of the name.
        is_expected: a glob names files below the link: Spark writes directories such as `pages.parquet`.
    """
    has_version = _suffixes(name)[0][1:].isdigit()
    return meaning == NO_SUFFIX or has_version or (is_expected and meaning.format is not None)


def format_of(name: str) -> InputFormat | None:
    """The format of the file's suffix, after removing that of a compression; None if it is unknown."""
    return _meaning_of_suffixes(*_suffixes(name), None).format


def compression_of(name: str) -> str | None:
    """fsspec's name of the compression that a file's suffix names; None: the file is not compressed."""
    return COMPRESSIONS.get(_suffixes(name)[1])


def delimiter_of(name: str) -> str:
    """The delimiter of a CSV file: a tab if its suffix is `.tsv`, else a comma."""
    return "\t" if _suffixes(name)[0] == ".tsv" else ","


def stem_of(name: str) -> str:
    """The name without the suffixes of compression and format: `part-0.jsonl.gz` gives `part-0`.

    `.txt` stays: outputs were named after such files, with a declared format, before it was a format's suffix.
    """
    inner, compression = _suffixes(name)
    stem = name[: len(name) - len(compression)] if compression else name
    return stem[: len(stem) - len(inner)] if FORMATS.get(inner, "text") != "text" else stem


def _suffixes(name: str) -> tuple[str, str]:
    """The suffixes of format and compression in lower case, with their dots: `a.JSONL.gz` gives `.jsonl`, `.gz`.

    The name may be a web address; its query is no part of a suffix.
    """
    stem, dot, last = without_query(name).lower().rpartition(".")
    if f".{last}" not in COMPRESSIONS or not dot:
        return f".{last}" if dot else "", ""
    _, dot, inner = stem.rpartition(".")
    return f".{inner}" if dot else "", f".{last}"


@lru_cache(1024)
def _meaning_of_suffixes(suffix: str, compression: str, declared: InputFormat | None) -> Meaning:
    if suffix == ".crc":
        return Meaning(left_aside="side file")
    if suffix in _UNREADABLE_COMPRESSIONS:
        return Meaning(problem=f"{suffix} files are not read. Unpack it")
    if declared is None and suffix in _UNREADABLE_FORMATS:
        return Meaning(problem=f"{suffix} files are not read. Convert it to Parquet or JSON lines")
    known = declared or FORMATS.get(suffix)
    if known is None:
        return Meaning(left_aside=_unknown(suffix + compression)) if suffix + compression else NO_SUFFIX
    if compression and known in _NOT_COMPRESSED:
        return Meaning(problem=f"{known} files are not read through {compression}. Unpack it")
    return Meaning(format=known)


def _unknown(suffixes: str) -> str:
    return f"unknown suffix {suffixes}" if _SHORT_SUFFIX.fullmatch(suffixes) else "unknown suffix"
