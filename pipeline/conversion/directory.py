"""The directory of a conversion: it appears when it is complete, and holds the files of one conversion alone."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from colophon.pipeline.conversion.files import WrittenFile
from colophon.pipeline.errors import UsageError
from colophon.shards.common.durable import TEMPORARY_SUFFIX, created_directory, temporary_path
from colophon.shards.common.errors import listed
from colophon.shards.common.output_paths import inside
from colophon.shards.common.paths import real_path
from colophon.shards.common.state_files import parse_model, read_regular

DESCRIPTION_NAME = "conversion.json"
_SHOWN_FILES = 3


class Description(BaseModel):
    """The content of `conversion.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str = "conversion"
    format_version: int = 1
    format: str
    reader: str
    lacks: list[str]
    """Human-readable: what the format, or its usual reader, cannot hold."""
    layout: dict[str, object]
    """The layout as in the recipe, with all defaults and its `name`."""
    fingerprint: str
    """sha256 of the settings of the layout and the names and sizes of its files."""
    tokenizer: dict[str, object]
    sequence_length: int
    id_dtype: str
    """Type of the layout's ids: `uint16` or `uint32`. Megatron's files have int32 in place of uint32."""
    role_weights: dict[str, float]
    """Those that were written; with `--binarize` 0 or 1."""
    is_binarized: bool
    rows: int
    tokens: int
    files: list[WrittenFile]


@contextmanager
def new_directory(directory: Path, *, overwrite: bool) -> Iterator[Path]:
    """A temporary directory for the block to fill; it becomes `directory` when the block ends.

    If the block raises, or the process is killed, `directory` is as before. What killed processes left is removed.

    Args:
        directory: it must not exist, or be empty.
        overwrite: it may hold a different conversion, which is removed once the new one is complete.

    Raises:
        UsageError: it has other content.
        OSError: it cannot be written.
    """
    place = real_path(directory)  # the directory may be a link
    check_directory(place, overwrite=overwrite)
    _remove_leftovers(place)
    replaced: Path | None = None
    try:
        with created_directory(place) as temporary:
            handle = _locked(temporary)
            try:
                yield temporary
            finally:
                if handle is not None:
                    os.close(handle)
            if place.exists() and overwrite:
                replaced = temporary_path(place)
                place.rename(replaced)
    except BaseException:
        if replaced is not None and not place.exists():
            replaced.rename(place)
        raise
    if replaced is not None:
        shutil.rmtree(replaced)


def check_directory(directory: Path, *, overwrite: bool) -> None:
    """Check that a conversion may become `directory`.

    Raises:
        UsageError: it is a file, or holds files that a conversion may not replace.
    """
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"--output {directory}: is a file. Give a directory")
    found = sorted(path for path in directory.rglob("*") if not path.is_dir()) if directory.is_dir() else []
    if not found:
        return
    content = read_regular(inside(directory, DESCRIPTION_NAME), remedy="Give a different directory")
    if content is None:
        raise UsageError(f"--output {directory}: has files that are not of a conversion. Give a different directory")
    description = parse_model(
        Description, content, where=str(directory / DESCRIPTION_NAME), remedy="Give a different directory"
    )
    own = {DESCRIPTION_NAME, *(file.path for file in description.files)}
    foreign = [name for name in (str(path.relative_to(directory)) for path in found) if name not in own]
    if not overwrite:
        name = description.layout.get("name")
        raise UsageError(
            f"--output {directory}: has a conversion of layout {name!r} to {description.format} already. --overwrite "
            "replaces it; a different directory keeps both"
        )
    if foreign:
        raise UsageError(
            f"--output {directory}: has files besides those of its conversion: {listed(foreign, most=_SHOWN_FILES)}. "
            "Move them, or give a different directory"
        )


def _remove_leftovers(directory: Path) -> None:
    """Remove temporary directories of `directory` whose processes have ended: their locks are free."""
    name = re.compile(rf"\.{re.escape(directory.name)}\.[0-9a-f]{{12}}{re.escape(TEMPORARY_SUFFIX)}")
    parent = directory.parent
    for path in parent.iterdir() if parent.is_dir() else ():
        if name.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            handle = _locked(path)
            if handle is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(handle)


def _locked(directory: Path) -> int | None:
    """A descriptor that locks a directory until it is closed; None if a process has the lock, or there are no locks."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle
