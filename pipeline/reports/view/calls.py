"""The calls that the page makes: each a name, the JSON object that it takes, and one answer or several.

columns    {}                          what can be filtered, the layouts, why there are no texts
values     {column}                    the distribution of a column
search     Search and {page}           several answers, see `Searches.messages`
document   {number}                    a document's annotations
text       {number, first}             a part of its text
sequence   {number, layout, place}     a packed sequence with a part of it
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Condition, Lock
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from colophon.pipeline.errors import UsageError, printable
from colophon.pipeline.reports.page.columns import NUM_BINS, Distribution, distribution
from colophon.pipeline.reports.view.documents import Documents
from colophon.pipeline.reports.view.listing import Listing, shown
from colophon.pipeline.reports.view.search import Message, Running, Search, Searches, SupersededError
from colophon.pipeline.reports.view.sequences import sequence_of
from colophon.pipeline.reports.view.texts import Texts
from colophon.shards.common.errors import ColophonError, did_you_mean, panics_as_errors
from colophon.shards.run_output import RunOutput
from colophon.shards.schema import ROLE_NAMES
from colophon.shards.tokenizer.tokenizer import Tokenizer

_MOST_VALUES = 500
"""Values of a column that the page offers."""
_SECONDS_TO_CLOSE = 30.0


class _Call(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Nothing(_Call):
    pass


class _Column(_Call):
    column: str


class _Document(_Call):
    number: int


class _Text(_Document):
    first: int = Field(0, ge=0)


class _Sequence(_Document):
    layout: str
    place: int = 0


class _PageSearch(Search):
    page: str = Field(max_length=100)
    """A name of the page that searches; its search before is interrupted."""


class Calls:
    """The calls on one run. Threads may share it."""

    def __init__(self, run: RunOutput, *, load_tokenizer: Callable[[], Tokenizer]) -> None:
        """Open a run.

        Args:
            run: the output.
            load_tokenizer: loads the run's tokenizer. If it raises, the page states why it shows no texts.

        Raises:
            ShardError: the run has no documents, or a file cannot be read or differs from its record.
        """
        self._documents = Documents(run)
        self._tokenizer: Tokenizer | None = None
        self._reason = ""
        texts = None
        try:
            self._tokenizer = load_tokenizer()
            texts = Texts(run, self._tokenizer)
        except ColophonError as error:
            self._reason = str(error)
        self.num_documents = len(self._documents)
        self._listing = Listing(self._documents, texts, reason=self._reason)
        self._searches = Searches(self._documents, self._listing)
        self._has_texts = texts is not None
        self._running = Running()
        self._values: dict[str, dict[str, Any]] = {}
        self._lock = Lock()
        self._idle = Condition()
        self._num_running, self._is_closed = 0, False
        self._calls: Mapping[str, tuple[type[BaseModel], Callable[[Any], Message | Iterator[Message]]]] = {
            "columns": (_Nothing, self._columns),
            "values": (_Column, self._values_of),
            "search": (_PageSearch, self._search),
            "document": (_Document, lambda call: self._listing.document(call.number)),
            "text": (_Text, lambda call: self._listing.text(call.number, first=call.first)),
            "sequence": (_Sequence, self._sequence),
        }

    def answers(self, name: str, content: bytes) -> Iterator[Message]:
        """The answers to a call; the last is an `{"error": ...}` where it failed.

        Raises:
            KeyError: there is no such call.
        """
        kind, call = self._calls[name]
        return self._answers(name, content, kind=kind, call=call)

    def _answers(
        self, name: str, content: bytes, *, kind: type[BaseModel], call: Callable[[Any], Message | Iterator[Message]]
    ) -> Iterator[Message]:
        try:
            with panics_as_errors(), self._counted():
                found = call(kind.model_validate_json(content))
                yield from [found] if isinstance(found, dict) else found
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            yield _error(f"{name}: {where}: {first['msg']}")
        except SupersededError:
            yield {"is_superseded": True}
        except (ColophonError, IndexError) as error:
            yield _error(str(error))

    def close(self) -> None:
        """Refuse new calls, interrupt searches, and wait for the calls that run.

        Python must not end while a thread is in a library's code: that aborts the process.
        """
        self._running.interrupt()
        with self._idle:
            self._is_closed = True
            self._idle.wait_for(lambda: not self._num_running, timeout=_SECONDS_TO_CLOSE)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._idle:
            if self._is_closed:
                raise UsageError("the command has ended")
            self._num_running += 1
        try:
            yield
        finally:
            with self._idle:
                self._num_running -= 1
                self._idle.notify_all()

    def _columns(self, _: _Nothing) -> Message:
        documents = self._documents
        varied = documents.are_varied()
        names = sorted(documents.types, key=lambda name: name in varied)  # what has few values is easier to choose from
        return {
            "run": shown(str(documents.run.directory)),
            "documents": self.num_documents,
            "layouts": list(documents.run.manifest.layouts),
            "roles": ROLE_NAMES,
            "has_texts": self._has_texts,
            "reason": shown(self._reason),
            "columns": [{"name": name, "shown": shown(name), "type": _type(documents.types[name])} for name in names],
        }

    def _values_of(self, call: _Column) -> Message:
        name, columns = call.column, self._documents.columns
        if name not in columns:
            raise UsageError(f"unknown column {name!r}; available: {', '.join(columns)}{did_you_mean(name, columns)}")
        with self._lock:  # a distribution reads the whole column: one at a time, and once
            if name not in self._values:
                self._values[name] = _described(distribution(self._documents.run, name, annotator=columns[name]))
            return self._values[name]

    def _search(self, call: _PageSearch) -> Iterator[Message]:
        interrupted = self._running.begin(call.page)
        try:
            yield from self._searches.messages(call, interrupted=interrupted)
        finally:
            self._running.end(call.page, interrupted)

    def _sequence(self, call: _Sequence) -> Message:
        if self._tokenizer is None:
            raise UsageError(f"no sequences are shown: {self._reason}")
        found = sequence_of(
            self._documents, call.number, layout=call.layout, place=call.place, tokenizer=self._tokenizer
        )
        return {**found, "layout": shown(found["layout"])}


def _error(message: str) -> Message:
    return {"error": printable(message)}


def _type(dtype: pl.DataType) -> str:
    """`string`, `number`, `date`, `boolean`, or `other` for a column without filters."""
    if dtype == pl.String:
        return "string"
    if dtype == pl.Boolean:
        return "boolean"
    if dtype in (pl.Date, pl.Datetime):
        return "date"
    return "number" if dtype.is_numeric() else "other"


def _described(found: Distribution | None) -> dict[str, Any]:
    """The values of a column, the most frequent first, or the documents of each interval between `low` and `high`."""
    if found is None:
        return {"kind": "other"}
    described: dict[str, Any] = {
        "kind": found.kind,
        "documents": found.documents,
        "known": found.known,
        "is_complete": found.is_complete,
    }
    if found.bins is not None:
        counts = [n for _, n in found.counts]
        assert len(counts) == NUM_BINS
        return {**described, "low": found.bins.low, "high": found.bins.high, "bins": counts}
    # The value itself is what a filter sends; the page shows its printable form.
    values = found.counts[:_MOST_VALUES] if found.kind in ("classes", "names") else []
    return {**described, "distinct": found.distinct, "values": [[value, shown(value), n] for value, n in values]}
