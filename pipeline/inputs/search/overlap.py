"""The check that what a command writes does not become input: of the same run, or of the next one.

Both the directories that a search covers and the directory to write to are compared at their places, so that links and
spellings do not matter.
"""

from __future__ import annotations

from collections.abc import Collection

from colophon.pipeline.errors import UsageError
from colophon.pipeline.inputs.search.find import listing_of
from colophon.pipeline.inputs.search.found import Scope, Search, shown


def check_apart(search: Search, directory: str, *, key: str, writes: Collection[str] | None = None) -> None:
    """Check that a search does not find what is written to a directory, and that no input file is where it writes.

    Args:
        search: the search of the input.
        directory: a local path or a URL; it need not exist.
        key: the setting or option that names the directory, for the error.
        writes: the names that are written directly in the directory; None: any.

    Raises:
        UsageError: one line that names both.
    """
    try:
        listing = listing_of(directory)
    except UsageError as error:
        raise UsageError(f"{key}: {error}") from error
    place = listing.root(listing.path).place
    for scope in search.scopes:
        if _covers(scope, place, writes):
            searched = shown(scope.directory.source or ".")
            raise UsageError(
                f"{key}: {shown(directory)} is inside of {searched}, which {scope.key}.paths searches: its files would "
                "become input. Choose a directory outside of it"
            )
    for file in search.files:
        if _is_written(file.place, place, writes):
            raise UsageError(
                f"{key}: {shown(directory)} contains the input file {shown(file.source)}. Choose a different directory"
            )


def _covers(scope: Scope, place: str, writes: Collection[str] | None) -> bool:
    """Whether a search from this directory reaches the files that are written at a place."""
    names = _names_below(scope.directory.place, place)
    if names is None:
        return False
    glob, positions = scope.glob, scope.positions
    for name in names:
        positions = glob.step(positions, name)
    if glob.is_recursive(positions):
        return True
    if writes is None:
        return bool(positions)
    return any(glob.step(positions, name) for name in writes)


def _is_written(file: str, place: str, writes: Collection[str] | None) -> bool:
    names = _names_below(place, file)
    return names is not None and (writes is None or len(names) < 2 or names[0] in writes)


def _names_below(directory: str, place: str) -> list[str] | None:
    """The names from a directory to a place: none for itself; None if the place is not in the directory."""
    directory = directory.rstrip("/")
    if place.rstrip("/") == directory:
        return []
    return place[len(directory) + 1 :].split("/") if place.startswith(f"{directory}/") else None
