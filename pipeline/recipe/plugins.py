"""The Python files of a recipe's `[plugins]`: where they may be, and whether the user allows that they run.

Every other part of a recipe is data. So these files run only if the user says so: with `--plugins`, with
`plugins=True`, or with COLOPHON_PLUGINS, which lists directories whose files may run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from colophon.annotators.plugin_files import MAX_PLUGIN_BYTES, PluginFile
from colophon.pipeline.errors import UsageError
from colophon.shards.common.text_encoding import encoding_problem

ALLOWED_DIRECTORIES = "COLOPHON_PLUGINS"
_allowed: ContextVar[bool] = ContextVar("plugins", default=False)


@contextmanager
def plugins_allowed() -> Iterator[None]:
    """Allow the plugins of the recipes that are loaded in the block."""
    token = _allowed.set(True)
    try:
        yield
    finally:
        _allowed.reset(token)


def read_plugins(names: Sequence[str], *, directory: Path | None, where: str, allowed: bool) -> tuple[PluginFile, ...]:
    """Read the files; nothing of them runs.

    Args:
        names: the value of `plugins.files`, relative to `directory`.
        directory: the recipe's; None: the recipe is no file, and has no plugins.
        where: the recipe, for errors.
        allowed: whether the caller allows them.

    Raises:
        UsageError: a file is missing or outside the directory, is listed twice, is no Python file, or may not run.
    """
    if not names:
        return ()
    if directory is None:
        raise UsageError(f"{where}: plugins.files: are beside a recipe file; this recipe is not a file")
    files = tuple(_read(name, directory, where=f"{where}: plugins.files: {name}") for name in names)
    paths = [os.path.realpath(file.path) for file in files]
    for name, path in zip(names, paths, strict=True):
        if paths.count(path) > 1:
            raise UsageError(f"{where}: plugins.files: {name}: is listed twice")
    if not (allowed or _allowed.get() or all(_in_allowed_directory(path) for path in paths)):
        raise UsageError(
            f"{where}: plugins.files: {', '.join(names)}: the recipe would run this Python code with your rights. "
            "Read it, then add --plugins (plugins=True in Python), or set "
            f"{ALLOWED_DIRECTORIES}={os.path.realpath(directory)}"
        )
    return files


def _read(name: str, directory: Path, *, where: str) -> PluginFile:
    path, home = directory / name, os.path.realpath(directory)
    if not name.endswith(".py") or "\0" in name:
        raise UsageError(f"{where}: must be a Python file, NAME.py")
    if Path(name).is_absolute() or not Path(os.path.realpath(path)).is_relative_to(home):
        raise UsageError(f"{where}: must be inside the recipe's directory, {home}")
    try:
        if not path.is_file():
            raise UsageError(f"{where}: {'is not a regular file' if path.exists() else 'no such file'} in {home}")
        with path.open("rb") as file:
            source = file.read(MAX_PLUGIN_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{where}: {error.strerror}") from None
    if len(source) > MAX_PLUGIN_BYTES:
        raise UsageError(f"{where}: has more than {MAX_PLUGIN_BYTES} bytes")
    if problem := encoding_problem(source):
        raise UsageError(f"{where}: {problem}")
    return PluginFile(name, str(path.absolute()), source)


def _in_allowed_directory(path: str) -> bool:
    """Whether COLOPHON_PLUGINS has a directory above the path."""
    listed = os.environ.get(ALLOWED_DIRECTORIES, "").split(os.pathsep)
    return any(Path(path).is_relative_to(os.path.realpath(place)) for place in listed if Path(place).is_absolute())
