"""The directory of an export: it holds the files of one export alone, so that a tool reads each document once.

Every exported file has, in its Parquet metadata, the identity of the run from which it was made. A list in a file of
its own would stop polars, which opens a directory only if all files have one suffix.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from colophon.pipeline.errors import UsageError
from colophon.pipeline.inputs.search.formats import format_of
from colophon.shards.common.digests import fingerprint
from colophon.shards.common.durable import TEMPORARY_SUFFIX
from colophon.shards.common.errors import listed
from colophon.shards.common.output_paths import inside

_KEY = "colophon_export"
_SHOWN_FILES = 3
_TEMPORARY = re.compile(rf"\..*\.parquet\.[0-9a-f]+{re.escape(TEMPORARY_SUFFIX)}")


def metadata_of(output: str) -> dict[str, str]:
    """The metadata of the files that are exported from the run in the directory `output`, an absolute path or a URL."""
    return {_KEY: fingerprint({"output": output})}


def check_directory(
    directory: Path, *, names: Collection[str], metadata: dict[str, str], overwrite: bool
) -> list[Path]:
    """Check that an export may write to a directory, and list the files to remove first.

    These are the files of earlier exports of the same run that it does not write again, and temporary files; with
    `overwrite`, the files of other exports too.

    Args:
        directory: it need not exist.
        names: the files that the export writes.
        metadata: the result of `metadata_of`.
        overwrite: whether the files of other exports may be removed.

    Raises:
        UsageError: the directory is a file, or has data files that this export may not remove.
        OutputPathError: a file that the export writes is a link, a pipe or the like.
    """
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"--to {directory}: is a file. Give a directory")
    for name in names:
        inside(directory, name)
    found = sorted(path for path in directory.rglob("*") if path.is_file()) if directory.is_dir() else []
    data = [path for path in found if not _is_hidden(path, directory) and format_of(path.name)]
    marks = {path: _mark(path) for path in data}
    foreign = [path for path in data if marks[path] is None]
    others = [path for path in data if marks[path] not in (None, metadata[_KEY])]
    if foreign:
        raise UsageError(
            f"--to {directory}: has data files that are not of an export: {_listed(foreign, directory)}. "
            "Move them, or give a different directory"
        )
    if others and not overwrite:
        raise UsageError(
            f"--to {directory}: has files of a different export: {_listed(others, directory)}. "
            "--overwrite removes them; a different directory keeps both"
        )
    left = [path for path in found if path.parent == directory and _TEMPORARY.fullmatch(path.name)]
    return [*left, *(path for path in data if path.parent != directory or path.name not in names)]


def remove(paths: Collection[Path]) -> None:
    """Delete files."""
    for path in paths:
        path.unlink(missing_ok=True)


def _is_hidden(path: Path, directory: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(directory).parts)


def _mark(path: Path) -> str | None:
    try:
        metadata = pq.read_metadata(path).metadata or {}
    except (pa.ArrowException, OSError):
        return None
    mark: bytes | None = metadata.get(_KEY.encode())
    return None if mark is None else mark.decode(errors="replace")


def _listed(paths: Collection[Path], directory: Path) -> str:
    return listed([str(path.relative_to(directory)) for path in paths], most=_SHOWN_FILES)
