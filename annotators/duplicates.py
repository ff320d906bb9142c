"""The `duplicates` annotator: the cluster of equal or similar texts that a document is in, and whether it is kept.

It joins a table that `colophon duplicates` writes before the run, since a document alone cannot show it.
Cost: 1 µs a document.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from colophon.annotators.base import DOCUMENT_FILE, DOCUMENT_PLACE, Annotator, AnnotatorError
from colophon.annotators.columns import string_column
from colophon.annotators.duplicate_keys import DuplicateKeysConfig
from colophon.annotators.fasttext.model_cache import remembered_sha256
from colophon.annotators.lists.cluster_table import ClusterTable, num_unknown, table_settings
from colophon.shards.common.differences import differences

_CODE_VERSION = 1


class DuplicatesConfig(DuplicateKeysConfig):
    """Finds documents with equal or similar texts. Run `colophon duplicates RECIPE` before the recipe itself.

    Example:

        [annotators.duplicates]
        path = "out/web-duplicates.parquet"
        method = "minhash"
        keep = "longest"
    """

    type_name: ClassVar[str] = "duplicates"
    path_fields = ("path",)
    reads = ("text",)
    writes = ("NAME_cluster", "NAME_size", "NAME_kept")

    path: str
    """A local file: the table that `colophon duplicates` writes, and the run reads."""

    @property
    def of_keys(self) -> DuplicateKeysConfig:
        """The settings of the annotator that computes the keys."""
        return DuplicateKeysConfig.model_validate(self.of_table)

    @property
    def of_table(self) -> dict[str, Any]:
        """The settings that the table depends on, as JSON."""
        return self.model_dump(mode="json", exclude={"path"})

    def build(self, name: str) -> DuplicatesAnnotator:
        """The annotator under `name`.

        Raises:
            AnnotatorError: the table is missing, or was made with other settings.
        """
        remedy = "`colophon duplicates RECIPE` writes it"
        if not Path(self.path).is_file():
            reason = "not a regular file" if Path(self.path).exists() else "no such file"
            raise AnnotatorError(f"annotators.{name}.path: {self.path}: {reason}. {remedy}")
        try:
            found = differences(table_settings(self.path), self.of_table)
        except AnnotatorError as error:
            raise AnnotatorError(f"annotators.{name}.path: {error}. {remedy}") from None
        if found:
            lines = "; ".join(found[:4])
            raise AnnotatorError(
                f"annotators.{name}.path: {self.path} was made with other settings: {lines}. {remedy} again"
            )
        return DuplicatesAnnotator(name, path=self.path)


class DuplicatesAnnotator(Annotator):
    """Looks a document up by its place in the table of clusters.

    Output columns under the name NAME:
      - `NAME_cluster` (int64): the number of its cluster; null for a document without duplicates;
      - `NAME_size` (int32): the documents of the cluster, 1 without duplicates;
      - `NAME_kept` (bool): whether it is the one of its cluster that is kept; true without duplicates.
    All are null for a document of a file that was not there, or had other content, when the table was made.
    """

    columns = (DOCUMENT_FILE, DOCUMENT_PLACE)

    def __init__(self, name: str, *, path: str) -> None:
        self.name = name
        self._path = path
        columns = [("cluster", pa.int64()), ("size", pa.int32()), ("kept", pa.bool_())]
        self.schema = pa.schema([(f"{name}_{column}", kind) for column, kind in columns])

    @cached_property
    def settings(self) -> dict[str, Any]:  # type: ignore[override]
        """See `Annotator.settings`. The first use reads the table for its sha256, 0.5 to 2 s a GB."""
        return {
            "type": DuplicatesConfig.type_name,
            "code_version": _CODE_VERSION,
            "name": self.name,
            "table_sha256": remembered_sha256(self._path),
        }

    def __getstate__(self) -> dict[str, Any]:
        _ = self.settings
        return {key: value for key, value in self.__dict__.items() if key != "_table"}

    @property
    def model_files(self) -> Mapping[str, str]:
        """The table's path and sha256."""
        return {self._path: self.settings["table_sha256"]}

    def notes_on(self, files: Sequence[str]) -> tuple[str, ...]:
        """A line if the table was made without some of the files, or with a different content of them."""
        unknown = num_unknown(self._path, files)
        if not unknown:
            return ()
        return (
            f"annotators.{self.name}: {self._path} is out of date: it has nothing on {unknown:,} of {len(files):,} "
            "files, which are new, have changed or could not be read. Their documents have nulls in its columns. "
            "`colophon duplicates RECIPE` updates it, `colophon run RECIPE --rebuild` the columns",
        )

    def load(self) -> None:
        """Map the table, after writing it to the cache if this machine does not have it.

        Raises:
            AnnotatorError: it cannot be read, or has changed since its sha256 was computed.
        """
        _ = self._table

    check_files = load

    @cached_property
    def _table(self) -> ClusterTable:
        if remembered_sha256(self._path) != self.settings["table_sha256"]:
            raise AnnotatorError(f"annotators.{self.name}.path: {self._path} has changed since the run began")
        try:
            return ClusterTable(self._path)
        except AnnotatorError as error:
            raise type(error)(f"annotators.{self.name}.path: {error}") from None

    def annotate(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """See `Annotator.annotate`; the columns are those of the class."""
        files, places = string_column(batch, DOCUMENT_FILE), batch.column(DOCUMENT_PLACE).cast(pa.int64())
        known, clusters, sizes, kept = self._table.find(files.cast(pa.string()), places)
        columns = [
            pa.array(clusters, mask=~known | (clusters < 0)),
            pa.array(sizes, mask=~known),
            pa.array(kept, mask=~known),
        ]
        return pa.record_batch(columns, schema=self.schema)
