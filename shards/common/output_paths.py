"""Paths below an output directory: real directories and regular files, and no link is followed.

An output may have been copied from elsewhere, or be writable for others. A link in it would let a run empty, delete or
write files outside of it, and a pipe would let a reader wait for ever. Every read and write of an output therefore goes
through `inside`. The output directory itself may be a link, because its user chooses it.

The check is made immediately before the use. It does not defend against a process that exchanges directories for links
while a command works; such a process can write the output anyway.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from colophon.shards.common.errors import ShardError

_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISREG, "a file"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


class OutputPathError(ShardError):
    """A link, a pipe or the like in an output; the message has its path and what to do."""


def inside(root: Path, path: str | Path, *, is_directory: bool = False) -> Path:
    """`root / path`, of which every part below `root` is a real directory or missing, and the last is a regular file.

    Args:
        root: a directory, or a link to one.
        path: relative to `root`; it need not exist.
        is_directory: the last part is a directory too, not a file.

    Raises:
        OutputPathError: a part is a link, a pipe or the like, or the path leaves `root`.
    """
    name, place = os.fspath(path), os.fspath(root)  # strings: a `Path` of each takes longer than the system's calls
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts:
        raise OutputPathError(f"{name!r} leaves the directory {root}")
    for number, part in enumerate(parts, start=1):
        place = f"{place}/{part}"
        try:
            mode = os.lstat(place).st_mode
        except (FileNotFoundError, NotADirectoryError, PermissionError):  # the caller's use of the path reports it
            break
        except ValueError:
            raise OutputPathError(f"{name!r} is not a path") from None
        _check_kind(place, mode, is_directory=is_directory or number < len(parts))
    return Path(os.fspath(root), *parts)


def entries(root: Path, directory: str | Path, *, hidden_only: bool = False) -> Iterator[Path]:
    """The files and directories in a directory below `root`, in no order; none if it does not exist.

    Args:
        root: see `inside`.
        directory: relative to `root`.
        hidden_only: leave out those whose name does not begin with a dot; they are checked all the same.

    Raises:
        OutputPathError: the directory or an entry is a link, a pipe or the like.
    """
    place = inside(root, directory, is_directory=True)
    try:
        found = os.scandir(place)
    except (FileNotFoundError, NotADirectoryError):
        return
    with found:
        for entry in found:
            if not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)):
                inside(place, entry.name)
            if entry.name[0] == "." or not hidden_only:
                yield place / entry.name


def file_names(root: Path, directory: str | Path) -> Iterator[str]:
    """The files in a directory below `root` and its subdirectories, as paths relative to the directory.

    Cost: one listing of each directory.

    Raises:
        OutputPathError: the directory or an entry is a link, a pipe or the like.
    """
    return (name for name, _ in _files(root, directory))


def file_sizes(root: Path, directory: str | Path) -> Iterator[tuple[str, int]]:
    """The files of `file_names`, each with its bytes.

    Cost: one listing of each directory and a few microseconds a file.

    Raises:
        OutputPathError: see `file_names`.
    """
    for name, entry in _files(root, directory):
        try:  # `suppress` would take longer than the call
            size = entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:  # it was deleted meanwhile
            continue
        yield name, size


def _files(root: Path, directory: str | Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    place, waiting = inside(root, directory, is_directory=True), [""]
    while waiting:
        prefix = waiting.pop()
        try:
            listed = os.scandir(place / prefix)
        except (FileNotFoundError, NotADirectoryError):
            continue
        with listed:
            for entry in listed:
                name = f"{prefix}{entry.name}"
                if entry.is_file(follow_symlinks=False):
                    yield name, entry
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{name}/")
                else:
                    inside(place, name)
                    yield name, entry


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a regular file. No link is followed, and a pipe is an error instead of a wait.

    Args:
        path: the result of `inside`.
        flags: of `os.open`; with `O_CREAT`, a missing file gets the permissions of any new file.

    Raises:
        OutputPathError: it is a link, a directory, a pipe or the like.
        OSError: it cannot be opened, or is missing.
    """
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError:
        inside(path.parent, path.name)  # a link or a socket is named as one
        raise
    try:
        _check_kind(path, os.fstat(handle).st_mode, is_directory=False)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _check_kind(place: str | Path, mode: int, *, is_directory: bool) -> None:
    if stat.S_ISDIR(mode) if is_directory else stat.S_ISREG(mode):
        return
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "a device")
    expected = "directory" if is_directory else "regular file"
    raise OutputPathError(
        f"{place}: {kind}, not a {expected}; outputs hold regular files and directories only. Remove it"
    )
