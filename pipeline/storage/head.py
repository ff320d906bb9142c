"""The head of an output on an object store: the runs whose records count, and the segments.

    records/head-<n>.json      {"runs": {token: lock}, "segments": [...]}     the largest n counts

A head is never replaced: the next one is created under the next number, and a store with conditional writes creates an
object for one process only. So of two processes that change the head at once, one has to read the other's first, and a
run whose lock was taken over cannot add a segment. Its late commit records are in a directory with its token, which no
head names any more once the next run has moved the records that it found there.

A disk has none, and neither does a store without conditional writes: all segments and all records count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from colophon.pipeline.errors import StoreError
from colophon.pipeline.storage.files import RemoteFiles
from colophon.pipeline.storage.pass_record import RECORDS
from colophon.pipeline.storage.run_files import RunFiles
from colophon.pipeline.storage.shard import LOCK_NAME, excludes
from colophon.shards.records import REMEDY

_HEAD = re.compile(r"head-(\d{9,})\.json", re.ASCII)
_KEPT = 8
"""The number of newest heads that are never deleted."""


class Head(BaseModel):
    """The state of an output on an object store."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runs: dict[str, str] = {}
    """By the token of each run whose records count, the path of its lock, in the order in which locks were taken.

    The last run of a lock has it. A run that a different lock has ended has an empty path.
    """
    segments: list[str] = []
    """The segments that count, the oldest first."""

    def holder(self, lock: str) -> str | None:
        """The token of the last run that took the lock at this path."""
        return next((token for token, path in reversed(self.runs.items()) if path == lock), None)

    def taken(self, lock: str, token: str) -> Head:
        """This head with a new holder of a lock. Records of earlier ones still count."""
        return self.model_copy(update={"runs": {**self.runs, token: lock}})

    def ending(self, lock: str) -> Head:
        """This head without holders of the locks that the one at this path excludes."""
        runs = {token: "" if excludes(lock, path) else path for token, path in self.runs.items()}
        return self.model_copy(update={"runs": runs})

    def closing(self, lock: str, token: str) -> Head:
        """This head for a run that has moved all records of the runs before it: theirs count no more.

        A shard moves the records of its share alone, so it closes the earlier runs of its own lock.
        """
        is_closed = (lambda path: True) if lock == LOCK_NAME else (lambda path: path == lock)
        runs = {each: path for each, path in self.runs.items() if each == token or not is_closed(path)}
        return self.model_copy(update={"runs": runs})

    def replacing(self, new: Iterable[str], *, old: Iterable[str] = ()) -> Head:
        """This head with new segments in place of some old ones, or after all."""
        kept = [name for name in self.segments if name not in {*old, *new}]
        return self.model_copy(update={"segments": [*kept, *new]})


@dataclass(frozen=True)
class Heads:
    """The heads of an output, as a run with the lock at `lock` changes them."""

    files: RemoteFiles
    lock: str
    run: str
    """The token of the run."""

    def holder(self) -> str | None:
        """The token of the last run that took the lock; None if there is no head, or it names none."""
        head = self._newest()[1]
        return None if head is None else head.holder(self.lock)

    def take(self, *, after: str | None) -> bool:
        """Make this run the holder of its lock, if the holder is `after`; whether it is the holder now."""
        while True:
            number, head = self._newest()
            holder = None if head is None else head.holder(self.lock)
            if holder == self.run:
                return True
            if holder != after:
                return False
            if self._create(number + 1, (head or Head()).taken(self.lock, self.run)):
                return True

    def change(self, change: Callable[[Head], Head]) -> Head:
        """Make `change` true of the head that counts, and return it; a change that is made already changes nothing.

        Raises:
            StoreError: another run has taken over the lock.
        """
        while True:
            number, head = self._newest()
            if head is None or head.holder(self.lock) != self.run:
                root = self.files.root
                raise StoreError(f"{root}: another run has taken over the lock; this run publishes nothing more")
            changed = change(head)
            if changed == head or self._create(number + 1, changed):
                return changed

    def _newest(self) -> tuple[int, Head | None]:
        """The number of the head that counts, and it; (0, None) if there is none. Cost: a listing and a read."""
        while True:
            number = self._newest_number()
            head = read_head(self.files, number)
            if number == 0 or head is not None:
                return number, head

    def _newest_number(self) -> int:
        return newest_number(self.files.names(RECORDS))

    def _create(self, number: int, head: Head) -> bool:
        """Create a head; False if it is not known to count, and the newest must be read.

        Then a different process has created this number or later ones. If this process slept for long, later ones may
        exist although this number, deleted since, was free.
        """
        is_created = self.files.create_once(_path(number), head.model_dump_json())
        if is_created and number % _KEPT == 0:
            old = range(max(number - 2 * _KEPT, 0) + 1, number - _KEPT + 1)
            self.files.remove_all(RECORDS, [_path(each).removeprefix(f"{RECORDS}/") for each in old])
        return is_created and self._newest_number() == number


def _path(number: int) -> str:
    return f"{RECORDS}/head-{number:09}.json"


def newest_number(names: Iterable[str]) -> int:
    """The number of the head that counts among the names in `records/`; 0 if there is none."""
    return max((int(match[1]) for match in map(_HEAD.fullmatch, names) if match is not None), default=0)


def is_head(name: str) -> bool:
    """Whether a file in `records/` is a head."""
    return _HEAD.fullmatch(name) is not None


def read_head(files: RunFiles, number: int) -> Head | None:
    """The head with this number; None if it has been deleted because newer ones exist, or the number is 0.

    Raises:
        DamagedFileError: it is damaged.
    """
    return files.read_model(Head, _path(number), remedy=REMEDY) if number else None
