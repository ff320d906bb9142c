"""The `blocklist` annotator: whether a document's URL or id is on one of your lists, and on which.

Cost: 1 to 2 µs a document and 10 µs for each host or URL that is looked up, in lists of any length.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from colophon.annotators.base import Annotator, AnnotatorConfig, AnnotatorError
from colophon.annotators.columns import string_column
from colophon.annotators.fasttext.model_cache import remembered_sha256
from colophon.annotators.lists.block_keys import BlockKeys, Kind, comparable_urls
from colophon.annotators.lists.list_files import check_tables
from colophon.annotators.url import host_of, map_distinct, split_urls
from colophon.shards.common.paths import absolute_path

_CODE_VERSION = 1


class BlockList(BaseModel):
    """One list: the entries of a file, or of the recipe.

    Example:

        [annotators.blocklist.lists.opt-outs]
        kind = "domains"
        path = "lists/opt-outs.txt"
        date = 2025-01-31
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    """`hosts` are equal to the URL's host. `domains` are the host or above it: `example.org` blocks `a.example.org`.
    `url_prefixes` begin the URL; scheme, user and port do not count. `ids` are equal to the document's id."""
    path: str | None = None
    """A local text file with an entry a line (`#` begins a comment line), or a Parquet or JSON-lines file."""
    column: str | None = None
    """The column of a Parquet or JSON-lines file with the entries."""
    entries: tuple[str, ...] | None = Field(default=None, min_length=1, max_length=100_000)
    """Instead of `path`: the entries."""
    date: datetime.date | None = None
    """The date of the list; documents that it blocks have it."""

    @model_validator(mode="after")
    def _one_origin(self) -> BlockList:
        if (self.path is None) == (self.entries is None):
            raise ValueError("give exactly one of path, entries")
        if self.column is not None and self.path is None:
            raise ValueError("column is for a file, with path")
        return self


class BlocklistConfig(AnnotatorConfig):
    """Looks documents up in lists of hosts, domains, URLs and ids.

    Example:

        [annotators.blocklist]

        [annotators.blocklist.lists.opt-outs]
        kind = "domains"
        path = "lists/opt-outs.txt"
        date = 2025-01-31

        [annotators.blocklist.lists.requests]
        kind = "url_prefixes"
        entries = ["https://example.org/private/"]
    """

    type_name: ClassVar[str] = "blocklist"
    reads = ("url", "id (with a list of ids)")
    writes = ("NAME_blocked", "NAME_list", "NAME_entry", "NAME_date")

    lists: dict[str, BlockList] = Field(min_length=1, max_length=1000)
    """The lists by name. A document that several block has the name of the first."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The files of the lists."""
        return tuple(each.path for each in self.lists.values() if each.path is not None)

    def with_absolute_paths(self) -> BlocklistConfig:
        """The same settings for a process with a different working directory."""
        lists = {
            name: each if each.path is None else each.model_copy(update={"path": absolute_path(each.path)})
            for name, each in self.lists.items()
        }
        return self.model_copy(update={"lists": lists})

    def build(self, name: str) -> BlocklistAnnotator:
        """The annotator under `name`.

        Raises:
            AnnotatorError: a file is missing, or is a table without the column.
        """
        for key, each in self.lists.items():
            if each.path is not None:
                try:
                    remembered_sha256(each.path)
                    check_tables([Path(each.path)], [] if each.column is None else [each.column], key="column")
                except AnnotatorError as error:
                    raise type(error)(f"annotators.{name}.lists.{key}: {error}") from None
        return BlocklistAnnotator(name, lists=self.lists)


class BlocklistAnnotator(Annotator):
    """Looks up a document's URL and id.

    Output columns under the name NAME:
      - `NAME_blocked` (bool): whether a list has it.
      - `NAME_list` (string), `NAME_entry` (string), `NAME_date` (date32): the first of the recipe's lists that has it,
        the entry as it is compared, and the list's date; null if none has it.
    All are null where neither the URL has a host nor the document an id that some list could have.
    """

    def __init__(self, name: str, *, lists: Mapping[str, BlockList]) -> None:
        self.name = name
        self._lists = dict(lists)
        kinds = {each.kind for each in lists.values()}
        self.columns = (*(["url"] if kinds - {"ids"} else []), *(["id"] if "ids" in kinds else []))
        self.schema = pa.schema(
            [
                (f"{name}_blocked", pa.bool_()),
                (f"{name}_list", pa.string()),
                (f"{name}_entry", pa.string()),
                (f"{name}_date", pa.date32()),
            ]
        )

    @cached_property
    def settings(self) -> dict[str, Any]:  # type: ignore[override]
        """See `Annotator.settings`. The first use reads the files for their sha256, 0.5 to 2 s a GB."""
        return {
            "type": BlocklistConfig.type_name,
            "code_version": _CODE_VERSION,
            "name": self.name,
            "idna": version("idna"),
            "lists": [
                {"name": name, **each.model_dump(mode="json", exclude={"path"}), "sha256": _sha256(each)}
                for name, each in self._lists.items()
            ],
        }

    def __getstate__(self) -> dict[str, Any]:
        _ = self.settings
        return {key: value for key, value in self.__dict__.items() if key != "_keys"}

    @property
    def model_files(self) -> Mapping[str, str]:
        """The files of the lists and their sha256."""
        return {each.path: str(_sha256(each)) for each in self._lists.values() if each.path is not None}

    def load(self) -> None:
        """Map the sorted entries, after writing those of files to the cache if this machine does not have them.

        Raises:
            AnnotatorError: a file cannot be read, has an entry of a different kind, or has changed since its sha256
                was computed.
        """
        _ = self._keys

    check_files = load

    @cached_property
    def _keys(self) -> BlockKeys:
        if [_sha256(each) for each in self._lists.values()] != [each["sha256"] for each in self.settings["lists"]]:
            raise AnnotatorError(f"annotators.{self.name}: a list has changed since the run began")
        try:
            return BlockKeys([(each.kind, each.path, each.column, each.entries) for each in self._lists.values()])
        except AnnotatorError as error:
            raise type(error)(f"annotators.{self.name}.lists: {error}") from None

    def annotate(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """See `Annotator.annotate`; the columns are those of the class."""
        rows = list(self._found(batch))
        lists, names = list(self._lists.values()), list(self._lists)
        hits = [row if isinstance(row, tuple) else None for row in rows]
        columns = [
            pa.array([None if row is None else row is not False for row in rows], pa.bool_()),
            pa.array([None if hit is None else names[hit[0]] for hit in hits], pa.string()),
            pa.array([None if hit is None else hit[1] for hit in hits], pa.string()),
            pa.array([None if hit is None else lists[hit[0]].date for hit in hits], pa.date32()),
        ]
        return pa.record_batch(columns, schema=self.schema)

    def _found(self, batch: pa.RecordBatch) -> Iterator[tuple[int, str] | Literal[False] | None]:
        """For each document the number of its first list and the entry, False if none has it, None if unknown."""
        keys, found = self._keys, []
        if "url" in self.columns:
            urls = string_column(batch, "url").cast(pa.string())
            _, domains, suffixes = split_urls(urls)
            hosts = map_distinct(domains, host_of)
            found.append(_each(hosts, keys.of_host))
            if keys.has_prefixes:
                found.append(_each(comparable_urls(hosts, suffixes), keys.of_url))
        if "id" in self.columns:
            found.append(_each(string_column(batch, "id"), keys.of_id))
        for results in zip(*found, strict=True):
            hits = [result for result in results if isinstance(result, tuple)]
            yield min(hits) if hits else (False if False in results else None)


def _each(
    values: pa.Array, find: Callable[[str], tuple[int, str] | None]
) -> list[tuple[int, str] | Literal[False] | None]:
    """The result of `find` for each value, called once for each distinct one: False for None, None for null."""
    encoded = values.dictionary_encode()
    results = [find(value) or False for value in encoded.dictionary.to_pylist()]
    return [None if index is None else results[index] for index in encoded.indices.to_pylist()]


def _sha256(each: BlockList) -> str | None:
    return None if each.path is None else remembered_sha256(each.path)
