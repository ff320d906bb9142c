"""Links, pipes and the like in the place of a file or a directory, and the proof that nothing happened elsewhere."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PRECIOUS = "a file of somebody else\n"


def link_to_file(path: Path, elsewhere: Path) -> None:
    path.symlink_to(elsewhere / "file")


def link_to_directory(path: Path, elsewhere: Path) -> None:
    path.symlink_to(elsewhere)


def link_to_nothing(path: Path, elsewhere: Path) -> None:
    path.symlink_to(elsewhere / "new")


def link_to_itself(path: Path, elsewhere: Path) -> None:
    path.symlink_to(path.name)


def pipe(path: Path, elsewhere: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path, elsewhere: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path has at most 107 bytes
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(path.name)
    os.chdir(here)


ODD: dict[str, Callable[[Path, Path], None]] = {
    "a link to a file": link_to_file,
    "a link to a directory": link_to_directory,
    "a link to nothing": link_to_nothing,
    "a link to itself": link_to_itself,
    "a pipe": pipe,
    "a socket": unix_socket,
}
"""Writers of odd entries, by kind: arguments are the place of the entry, and a directory elsewhere."""
MESSAGE = r"(a symbolic link|a pipe|a socket), not a (regular file|directory); outputs hold regular files and director"


@contextmanager
def untouched(elsewhere: Path) -> Iterator[None]:
    """A directory with files whose names our commands would delete or replace; fails if one of them changes."""
    shutil.rmtree(elsewhere, ignore_errors=True)
    elsewhere.mkdir()
    names = ("file", ".file.0123456789ab.tmp", "summary.json", "step-00000001.json", "a.parquet")
    for name in names:
        (elsewhere / name).write_text(PRECIOUS)
    yield
    assert sorted(path.name for path in elsewhere.iterdir()) == sorted(names)
    assert {path.read_text() for path in elsewhere.iterdir()} == {PRECIOUS}


def replace(path: Path, kind: str, elsewhere: Path) -> None:
    """Put one of `ODD` in the place of whatever is at `path`."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    ODD[kind](path, elsewhere)
