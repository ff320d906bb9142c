"""The directories of a local disk, with links, special files and permissions."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from colophon.pipeline.errors import one_line
from colophon.pipeline.inputs.search.listings import Entry, Listing, Spot, escaped
from colophon.shards.common.paths import why_missing

_SPECIAL_FILES = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class LocalListing(Listing):
    """A local disk."""

    def __init__(self, path: str) -> None:
        self.path = path

    def root(self, path: str) -> Spot:
        """The spot of a local path."""
        absolute = str(Path.cwd() / path)
        return Spot(path, absolute, os.path.realpath(absolute))

    def entry(self, spot: Spot) -> Entry | None:
        """The file or directory at a spot, through links; None if there is none."""
        path = Path(spot.path)
        try:
            return _linked(path.name, path) if path.is_symlink() else _plain(path.name, path.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            return Entry(path.name, "unusable", problem=why_missing(path, otherwise=_reason(error)))

    def entries(self, directory: Spot, *, recursive: bool) -> list[Entry]:
        """The entries of a directory; none if it does not exist."""
        try:
            found = os.scandir(directory.path)
        except (FileNotFoundError, NotADirectoryError):
            return []
        with found:
            return [_scanned(entry) for entry in found]

    def problem(self, spot: Spot) -> str | None:
        """`Permission denied` if this process must not read the file."""
        return None if os.access(spot.path, os.R_OK) else os.strerror(errno.EACCES)

    def url(self, spot: Spot) -> str:
        """The absolute path."""
        return spot.path


def _scanned(entry: os.DirEntry[str]) -> Entry:
    if entry.is_symlink():
        return _linked(entry.name, Path(entry.path))
    if entry.is_file(follow_symlinks=False):
        return Entry(entry.name, "file")
    if entry.is_dir(follow_symlinks=False):
        return Entry(entry.name, "directory")
    try:
        return _plain(entry.name, entry.stat(follow_symlinks=False).st_mode)
    except OSError as error:
        return Entry(entry.name, "unusable", problem=_reason(error))


def _linked(name: str, path: Path) -> Entry:
    target = os.path.realpath(path)
    try:
        return _plain(name, path.stat().st_mode)._replace(link_to=target)
    except FileNotFoundError:
        problem = f"a link whose target is missing: {escaped(str(path.readlink()))}"
    except OSError as error:
        problem = f"a link that cannot be followed: {_reason(error)}"
    return Entry(name, "unusable", link_to=target, problem=problem)


def _plain(name: str, mode: int) -> Entry:
    if stat.S_ISREG(mode):
        return Entry(name, "file")
    if stat.S_ISDIR(mode):
        return Entry(name, "directory")
    return Entry(name, "unusable", problem=f"{_SPECIAL_FILES.get(stat.S_IFMT(mode), 'a special file')}, not a file")


def _reason(error: OSError) -> str:
    return error.strerror or one_line(error)
