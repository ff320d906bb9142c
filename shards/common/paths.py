"""Local paths and `file:` URLs: one spelling of each place, and absolute paths for processes elsewhere."""

from __future__ import annotations

import os
import re
from pathlib import Path

_FILE_URL = re.compile(r"(?:file|local):(?://([^/]*)(?=/|$))?")
_THIS_MACHINE = ("", "localhost", "~")
SUBMITTED = "COLOPHON_SUBMITTED"
"""Set in all processes of a submitted job: each has the uploaded files in its working directory, in whatever place its
node keeps them."""


def local_path(place: str) -> str:
    """The path of a `file:` URL of this machine, with `~` as the home directory; other URLs are returned as they are.

    `file:///data/x`, `file:/data/x` and `file://localhost/data/x` give `/data/x`. As in fsspec, `%20` is no space.

    Raises:
        ValueError: the URL names another machine, or `~` is in a path and this user has no home directory.
    """
    found = _FILE_URL.match(place)
    if found is not None:
        if found[1] not in (None, *_THIS_MACHINE):
            raise ValueError(f"{place}: {found[1]} is a machine; write file:///PATH, or the path alone")
        place = ("~" if found[1] == "~" else "") + place[found.end() :]
    try:
        return place if "://" in place else str(Path(place).expanduser())
    except RuntimeError:
        raise ValueError(f"{place}: no home directory is known for the ~ in it; set HOME, or write the path") from None


def absolute_path(place: str) -> str:
    """The same place for a process with a different working directory or home; URLs stay as they are.

    So do relative paths in a submitted job, see `SUBMITTED`.
    """
    place = local_path(place)
    return place if "://" in place or os.environ.get(SUBMITTED) else str(Path(place).absolute())


def real_path(path: str | Path) -> Path:
    """The absolute path without links. A link that leads to itself stays, where `Path.resolve` raises RuntimeError."""
    return Path(os.path.realpath(path))


def why_missing(path: str | Path, *, otherwise: str = "no such file") -> str:
    """Why nothing is at a path: the link in it that leads nowhere, with its target, else `otherwise`."""
    place = Path(path)
    for part in (*reversed(place.parents), place):
        if not os.path.islink(part):  # noqa: PTH114 (pathlib raises for a very long name)
            continue
        try:
            part.stat()
        except FileNotFoundError:
            problem = "a link whose target is missing"
        except OSError as error:
            problem = f"a link that cannot be followed, {error.strerror}"
        else:
            continue
        return f"{'' if part == place else f'{part} is '}{problem}: {part.readlink()}"
    return otherwise
