"""The walk from one path of a recipe through all that it leads to. The rule is in `find.py`."""

from __future__ import annotations

from collections import deque

from colophon.pipeline.errors import UsageError, one_line
from colophon.pipeline.inputs.compression import open_as
from colophon.pipeline.inputs.search.formats import may_be_directory, meaning_of
from colophon.pipeline.inputs.search.found import Found, InputFile, Scope
from colophon.pipeline.inputs.search.listings import Entry, Listing, Spot, escaped, is_text
from colophon.pipeline.inputs.search.pattern import Glob, Positions
from colophon.pipeline.inputs.search.saved_datasets import EARLIER_SAVE, earlier_saves
from colophon.pipeline.recipe.schema import InputFormat
from colophon.shards.common.url_secrets import without_query
from colophon.shards.stores.retry import retried

_MAX_STATE_BYTES = 64 << 20
_NOT_TEXT = "its name is not UTF-8; rename it"


class Walk:
    """The search below one directory.

    Links are followed after everything else, so that a file has its own name if the search finds it under that name.
    """

    def __init__(self, listing: Listing, glob: Glob, *, declared: InputFormat | None) -> None:
        self._listing = listing
        self._glob = glob
        self._declared = declared
        self._found = Found()
        self._links: deque[tuple[Spot, Positions]] = deque()
        self._linked: list[InputFile] = []
        self._visited: set[tuple[str, Positions]] = set()

    def below(self, root: Spot) -> Found:
        """All that the glob matches below a directory, files and problems sorted by source.

        Raises:
            UsageError: the directory cannot be read.
        """
        self._links.append((root, self._glob.start))
        while self._links:
            spot, positions = self._links.popleft()
            self._found.scopes.append(Scope(spot, self._glob, positions))
            self._search(spot, positions, is_root=spot is root)
        for file in sorted(self._linked, key=_source):
            self._found.files.setdefault(file.place, file)
        self._found.files = {file.place: file for file in sorted(self._found.files.values(), key=_source)}
        self._found.problems = dict(sorted(self._found.problems.items(), key=lambda item: item[1]))
        return self._found

    def _search(self, spot: Spot, positions: Positions, *, is_root: bool) -> None:
        waiting = [(spot, positions)]
        while waiting:
            directory, positions = waiting.pop()
            if (directory.place, positions) in self._visited:
                continue
            self._visited.add((directory.place, positions))
            entries = self._entries(directory, positions, is_root=is_root and directory is spot)
            outdated = self._earlier_saves(directory, entries)
            for entry in entries:
                if entry.kind != "directory":
                    self._add_file(directory, positions, entry, is_outdated=entry.name in outdated)
                    continue
                child = directory.child(entry.name, place=entry.link_to)
                after = self._after_directory(child, positions, entry)
                if after and entry.link_to is None:
                    waiting.append((child, after))
                elif after:
                    self._links.append((child, after))

    def _entries(self, directory: Spot, positions: Positions, *, is_root: bool) -> list[Entry]:
        try:
            found = self._listing.entries(directory, recursive=self._glob.is_recursive(positions))
        except OSError as error:
            reason = error.strerror or one_line(error)
            if is_root:
                raise UsageError(f"{directory.source}: {reason}") from error
            self._quarantine(directory, reason)
            return []
        return sorted(found)

    def _earlier_saves(self, directory: Spot, entries: list[Entry]) -> frozenset[str]:
        """The files of a directory that `datasets` would not read."""
        state = directory.child("state.json", place=None)

        def read() -> bytes:
            with open_as(self._listing.url(state), None) as file:
                content: bytes = file.read(_MAX_STATE_BYTES)
            return content

        try:
            return earlier_saves((entry.name for entry in entries), read_state=lambda: retried(read))
        except (OSError, ValueError) as error:
            reason = f"cannot be read, and the directory has Arrow files of several saves: {one_line(error)}"
            raise UsageError(f"{escaped(state.source)}: {reason}") from error

    def _after_directory(self, child: Spot, positions: Positions, entry: Entry) -> Positions:
        """The positions in a directory; none if it is not searched."""
        hidden = _is_hidden(entry.name)
        after = self._glob.step(positions, entry.name, hidden=hidden)
        if not after and hidden and self._glob.step(positions, entry.name):
            self._leave_aside(child, "hidden directory")
        if after and not is_text(entry.name):
            self._quarantine(child, _NOT_TEXT)
            return frozenset()
        return after

    def _add_file(self, directory: Spot, positions: Positions, entry: Entry, *, is_outdated: bool) -> None:
        """Take, leave aside or quarantine an entry that is not a directory, unless the glob does not match it."""
        hidden = _is_hidden(entry.name)
        after = self._glob.step(positions, entry.name, hidden=hidden)
        child = directory.child(entry.name, place=entry.link_to if entry.kind == "file" else None)
        if hidden and not after:
            if self._glob.is_complete(self._glob.step(positions, entry.name)):
                self._leave_aside(child, "hidden file")
            return
        is_named = self._glob.names(positions, entry.name)
        globs = self._glob.ahead(positions)
        meaning = meaning_of(entry.name, self._declared, is_named=is_named, globs=globs)
        is_broken_link = entry.kind == "unusable" and entry.link_to is not None
        is_complete = self._glob.is_complete(after)
        names_directory = not is_complete and not after <= positions  # a component before the last, other than `**`
        if after and is_broken_link and may_be_directory(entry.name, meaning, is_expected=names_directory):
            self._quarantine(child, str(entry.problem))
        elif not is_complete:
            if is_broken_link and names_directory:
                self._leave_aside(child, "link whose target is missing")
            return
        elif meaning.left_aside is not None:
            self._leave_aside(child, meaning.left_aside)
        elif is_outdated and not is_named:
            self._leave_aside(child, EARLIER_SAVE)
        else:
            self._add_data(child, entry, problem=meaning.problem, format=meaning.format)
        if is_broken_link and entry.link_to is not None:  # a run may be about to create its target
            self._found.scopes.append(Scope(child._replace(place=entry.link_to), self._glob, after))

    def _add_data(self, spot: Spot, entry: Entry, *, problem: str | None, format: InputFormat | None) -> None:
        problem = problem or entry.problem or (None if is_text(entry.name) else _NOT_TEXT)
        problem = problem or self._listing.problem(spot)
        if problem is not None or format is None:
            self._quarantine(spot, str(problem))
            return
        file = InputFile(
            source=without_query(spot.source),
            place=spot.place,
            url=self._listing.url(spot),
            format=format,
            listed=entry.listed,
        )
        if entry.link_to is None:
            self._found.files.setdefault(spot.place, file)
        else:
            self._linked.append(file)

    def _leave_aside(self, spot: Spot, kind: str) -> None:
        self._found.left_aside.setdefault(spot.place, (kind, escaped(without_query(spot.source))))

    def _quarantine(self, spot: Spot, reason: str) -> None:
        self._found.problems.setdefault(spot.place, (escaped(without_query(spot.source)), reason))


def _source(file: InputFile) -> str:
    return file.source


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "_"))
