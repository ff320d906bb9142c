"""The search: from the paths of a recipe to files, each once, with a record of everything that is not read.

A path is a file, a directory or a glob. A directory, also one that a glob matches, is searched with all directories
below it. What a search finds is

- taken: files whose suffix names a format, or all if the recipe sets `input.format`; `.txt` only if a path has it;
- left aside, counted by kind: names that begin with `.` or `_`, unknown suffixes, side files of other tools;
- quarantined: what looks like data and cannot be read, such as a link without target or a directory without permission.

A file that a path names itself is taken, or is an error. The rule is the same for local paths and for URLs. No
directory is searched twice, whatever links lead to it, and no file is opened but the `state.json` of a data set that
was saved several times. Cost: one listing of each directory, and for each file a check of its permission.
"""

from __future__ import annotations

from colophon.pipeline.errors import UsageError, one_line
from colophon.pipeline.inputs.search.formats import AVAILABLE, UNASKED_TEXT, meaning_of
from colophon.pipeline.inputs.search.found import Found, InputFile, Search, describe_left_aside, shown
from colophon.pipeline.inputs.search.listings import Entry, Listing, Spot
from colophon.pipeline.inputs.search.local_listing import LocalListing
from colophon.pipeline.inputs.search.pattern import Glob, is_glob, split_glob
from colophon.pipeline.inputs.search.remote_listing import RemoteListing
from colophon.pipeline.inputs.search.walk import Walk
from colophon.pipeline.recipe.schema import InputFormat, InputSection
from colophon.shards.common.paths import local_path, why_missing
from colophon.shards.common.url_secrets import without_query

_EVERYTHING = Glob(())


def find_files(*sources: InputSection) -> Search:
    """Search the paths of all sources of a recipe.

    Raises:
        UsageError: a path that is not found, leads to no data, or names a file that cannot be read; a store that cannot
            be listed; a file that two sources have.
    """
    found = Found()
    for source in sources:
        for path in source.paths:
            try:
                of_path = _search(path, declared=source.format)
            except UsageError as error:
                raise UsageError(f"{source.key}.paths: {error}") from error
            found.add(of_path, key=source.key)
    return found.result()


def _search(path: str, *, declared: InputFormat | None) -> Found:
    listing = listing_of(path)
    spot = listing.root(listing.path)
    entry = listing.entry(spot)
    found = Found()
    if entry is not None and entry.kind != "directory":
        file = _named_file(listing, spot, entry, declared=declared)
        return Found(files={file.place: file})
    if entry is not None:
        found = Walk(listing, _EVERYTHING, declared=declared).below(spot)
    elif is_glob(listing.path):
        directory, glob = split_glob(listing.path)
        found = Walk(listing, glob, declared=declared).below(listing.root(directory))
    if not found.files and not found.problems:
        raise UsageError(_nothing_found(path, found))
    return found


def _named_file(listing: Listing, spot: Spot, entry: Entry, *, declared: InputFormat | None) -> InputFile:
    meaning = meaning_of(entry.name, declared, is_named=True)
    if entry.problem is None and meaning.left_aside is not None:
        raise UsageError(f"{spot.source}: unknown suffix; available: {AVAILABLE}. Or set input.format")
    problem = entry.problem or meaning.problem or listing.problem(spot)
    if problem is not None or meaning.format is None:
        raise UsageError(f"{spot.source}: {problem}")
    return InputFile(
        source=without_query(spot.source),
        place=spot.place,
        url=listing.url(spot),
        format=meaning.format,
        listed=entry.listed,
    )


def _nothing_found(path: str, found: Found) -> str:
    kinds = found.result().left_aside
    lines = describe_left_aside(kinds)
    left_aside = f". Left aside: {'; '.join(lines)}" if lines else ""
    texts = next((kind.examples[0] for kind in kinds if kind.kind == UNASKED_TEXT.left_aside), None)
    remedy = ""
    if texts is not None:
        directory, slash, name = texts.rpartition("/")
        pattern = f"{directory}{slash}*.txt{'' if name.lower().endswith('.txt') else '*'}"
        remedy = f'. A path that has .txt reads text files too, such as paths = ["{shown(pattern)}"]'
    link = "" if "://" in path else why_missing(path, otherwise="")
    return f"{path}: {link or 'no such file, or no data file in it'}{left_aside}{remedy}"


def listing_of(path: str) -> Listing:
    """The listing of the file system of a path: of the local disk, also for `file:` URLs, or of a store.

    Raises:
        UsageError: the protocol is unknown, or its library is not installed.
    """
    if "\0" in path:
        raise UsageError(f"{path!r}: a path has no null byte")
    try:
        place = local_path(path)
    except ValueError as error:  # a URL of a different machine, which the message names
        raise UsageError(one_line(error)) from error
    except RuntimeError as error:  # the home directory of an unknown user
        raise UsageError(f"{path}: {one_line(error)}") from error
    return RemoteListing(place) if "://" in place else LocalListing(place)
