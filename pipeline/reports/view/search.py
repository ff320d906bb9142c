"""Searches: the documents that meet filters and contain a text, in their order, as messages.

Filters are first. Their matches are kept for the last few searches, 8 bytes a document, so that the next page and the
next text read no annotations again. A text is then searched in the matches alone, as they are decoded, until enough
documents are found. A search ends between two blocks of documents when a newer one of the same page begins.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Generator, Iterator
from threading import Event, Lock
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from colophon.pipeline.reports.page.scans import collected
from colophon.pipeline.reports.view.documents import Documents
from colophon.pipeline.reports.view.filters import MOST_FILTERS, Filter, condition, containing
from colophon.pipeline.reports.view.listing import Listing
from colophon.shards.common.arrays import NumPyArray

Matches = NumPyArray | range
"""Ascending numbers of documents."""
Message = dict[str, Any]

_KEPT_SEARCHES = 4
_SECONDS_BETWEEN_PROGRESS = 0.2


class Search(BaseModel):
    """A search, or its next page."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    filters: tuple[Filter, ...] = Field((), max_length=MOST_FILTERS)
    text: str = Field("", max_length=1_000)
    """A part of the document's text, in any case of letters."""
    after: int = Field(-1, ge=-1)
    """The number of the last document of the page before."""
    limit: int = Field(25, ge=1, le=200)
    """The search ends when it has found so many documents."""


class SupersededError(Exception):
    """A newer search of the same page has begun."""


class Running:
    """The search that runs for each page; a new one interrupts the one before it."""

    def __init__(self) -> None:
        self._events: dict[str, Event] = {}
        self._lock = Lock()

    def begin(self, page: str) -> Event:
        """The event that interrupts a new search. The page's search that runs is interrupted."""
        event = Event()
        with self._lock:
            before, self._events[page] = self._events.get(page), event
        if before is not None:
            before.set()
        return event

    def interrupt(self) -> None:
        """Interrupt all searches."""
        with self._lock:
            for event in self._events.values():
                event.set()

    def end(self, page: str, event: Event) -> None:
        """Forget a search that has ended."""
        with self._lock:
            if self._events.get(page) is event:
                del self._events[page]


class Searches:
    """Searches over the documents of a run. Threads may share it."""

    def __init__(self, documents: Documents, listing: Listing) -> None:
        """Search these documents, and show them as `listing` does."""
        self._documents, self._listing = documents, listing
        self._kept: OrderedDict[tuple[Filter, ...], Matches] = OrderedDict()
        self._lock = Lock()

    def messages(self, search: Search, *, interrupted: Event) -> Iterator[Message]:
        """Yield the progress, the documents as they are found, and last the state of the search.

        `{"progress": 500, "of": 1000}` counts documents; `{"documents": [...]}` has some that are found;
        `{"matching": 1000, "searched": 600, "is_complete": False}` is the end: of 1,000 documents that meet the
        filters, 600 were searched in this page and those before.

        Raises:
            UsageError: a filter does not fit its column.
            ShardError: a file cannot be read or differs from its record, or there are no texts to search.
            SupersededError: `interrupted` was set.
        """
        matches = yield from self._matches(search.filters, interrupted)
        first = bisect_right(matches, search.after)
        if search.text:
            last = yield from self._containing(search, matches, first, interrupted)
        else:
            last = min(first + search.limit, len(matches))
            yield {"documents": self._listing.shown(np.asarray(matches[first:last], np.int64))}
        yield {"matching": len(matches), "searched": last, "is_complete": last == len(matches)}

    def _matches(self, filters: tuple[Filter, ...], interrupted: Event) -> Generator[Message, None, Matches]:
        """Yield progress; return the documents that meet all filters."""
        if not filters:
            return range(len(self._documents))
        with self._lock:
            kept = self._kept.pop(filters, None)
        if kept is None:
            kept = yield from self._filtered(filters, interrupted)
        with self._lock:
            self._kept[filters] = kept
            while len(self._kept) > _KEPT_SEARCHES:
                self._kept.popitem(last=False)
        return kept

    def _filtered(self, filters: tuple[Filter, ...], interrupted: Event) -> Generator[Message, None, Matches]:
        """Yield progress; return the documents that meet the filters, from the annotation files."""
        chosen = condition(filters, self._documents.types).alias("is_chosen")
        parts, ticks, num_read = [np.empty(0, np.int64)], _Ticks(), 0
        for block, numbers in self._documents.blocks([each.column for each in filters]):
            is_chosen = collected(block.frame.select(chosen), self._documents.run)["is_chosen"]
            own = numbers[is_chosen.to_numpy()]
            parts.append(own[own >= 0])
            num_read += len(numbers)
            _stop_if(interrupted)
            if ticks.is_due():
                yield {"progress": num_read, "of": len(self._documents)}
        return np.concatenate(parts)

    def _containing(
        self, search: Search, matches: Matches, first: int, interrupted: Event
    ) -> Generator[Message, None, int]:
        """Yield progress and the documents with the text, from place `first`; return the place where it ended."""
        ticks, num_found, place = _Ticks(), 0, first
        for numbers, texts in self._listing.texts(np.asarray(matches[first:], np.int64)):
            _stop_if(interrupted)
            frame = pl.DataFrame({"text": pl.Series(texts)})
            hits = numbers[frame.select(containing(pl.col("text"), search.text)).to_series().to_numpy()]
            shown = hits[: search.limit - num_found]
            if len(shown):
                num_found += len(shown)
                yield {"documents": self._listing.shown(shown, text=search.text)}
            if num_found == search.limit:
                return bisect_right(matches, int(shown[-1]))
            place += len(numbers)
            if ticks.is_due():
                yield {"progress": place, "of": len(matches)}
        return place


def _stop_if(interrupted: Event) -> None:
    if interrupted.is_set():
        raise SupersededError


class _Ticks:
    """Whether it is time for the next message of progress."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def is_due(self) -> bool:
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_PROGRESS:
            return False
        self._last = now
        return True
