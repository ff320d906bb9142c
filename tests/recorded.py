"""Commit records of files that tests write."""

from __future__ import annotations

from pathlib import Path

from colophon.shards.records import Record


def record_of(output: Path, path: Path, *, rows: int) -> Record:
    """Return the record of a file at `<run>/<output>/<partition>.<suffix>`, with digests of zeros."""
    return Record(
        output=str(path.parent.relative_to(output)),
        partition=path.stem,
        path=str(path.relative_to(output)),
        rows=rows,
        bytes=path.stat().st_size,
        sha256="0" * 64,
        fingerprint="0" * 64,
    )
