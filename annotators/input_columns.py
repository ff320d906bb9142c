"""The `columns` annotator: columns of the input as annotation columns, with a type, new names of values, or bins.

Cost: about 0.1 µs a value, and 1 µs for each distinct date of a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from colophon.annotators.base import Annotator, AnnotatorConfig, AnnotatorError, TypedColumn
from colophon.annotators.columns import typed_column
from colophon.annotators.fasttext.score_rules import Bins, Floats
from colophon.shards.common.times import parsed_iso_8601

_CODE_VERSION = 1

ColumnType = Literal["string", "integer", "number", "boolean", "date", "timestamp"]

_DEFAULT_TYPES: dict[str, ColumnType] = {
    "date": "timestamp",
    "token_count": "integer",
    "int_score": "integer",
    "score": "number",
    "language_score": "number",
}
"""The types of FineWeb's columns that are no strings."""
_WRITTEN: dict[ColumnType, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", "UTC"),
}
_READ = _WRITTEN | {"date": pa.string(), "timestamp": pa.string()}
_LIST = pa.list_(pa.string())
_WORDS = {
    pa.string(): "text",
    pa.int64(): "integer",
    pa.float64(): "number",
    pa.bool_(): "boolean",
    _LIST: "list",
}


class ColumnSettings(BaseModel):
    """One annotation column, of a column of the input.

    Example:

        [annotators.source]
        type = "columns"

        [annotators.source.columns]
        published = { column = "meta.published", type = "date" }
        tags = { column = "meta.tags", separator = ", " }
        region = { column = "country", rename = { DE = "Europe", FR = "Europe" } }
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str | None = Field(default=None, min_length=1)
    """A column of the input, never of an annotator: FineWeb's name, the input's own, or a nested one as `meta.url`;
    `source_name` is the name of the document's source. Default: the annotation's name."""
    type: ColumnType | None = None
    """Values that the type does not hold are null. Default: `timestamp` for `date`, `integer` for `token_count` and
    `int_score`, `number` for `score`, `language_score` and with `bins`, else `string`."""
    separator: str | None = None
    """The column has lists: this is between their values."""
    rename: dict[str, str] | None = Field(default=None, min_length=1)
    """Value to name, of strings, integers, booleans and the values of lists; others stay as they are."""
    bins: Bins | None = None
    """Numbered or named classes of a number."""

    def resolved(self, name: str) -> ColumnSettings:
        """The settings of the annotation column `name`, with the defaults filled in."""
        column = self.column or name
        default = _DEFAULT_TYPES.get(column) or _DEFAULT_TYPES.get(name, "string")
        if self.bins is not None and default != "integer":
            default = "number"
        if self.separator is not None:
            default = "string"
        return self.model_copy(update={"column": column, "type": self.type or default})

    @property
    def read_as(self) -> pa.DataType:
        """The type in which the input's column is read."""
        return _LIST if self.separator is not None else _READ[self.type or "string"]

    @property
    def written_as(self) -> pa.DataType:
        """The type of the annotation column."""
        if self.bins is not None:
            return self.bins.type
        return pa.string() if self.rename is not None else _WRITTEN[self.type or "string"]

    def problem(self) -> str | None:
        """Why resolved settings do not fit together; None if they do."""
        if self.bins is not None and self.rename is not None:
            return "bins have labels of their own: give bins or rename, not both"
        if self.bins is not None and self.type not in ("integer", "number"):
            return f"bins need type integer or number, not {self.type}"
        if self.separator is not None and self.type != "string":
            return f"separator needs type string, not {self.type}"
        if self.rename is not None and self.type not in ("string", "integer", "boolean"):
            return f"rename needs type string, integer or boolean, not {self.type}"
        return None


class ColumnsConfig(AnnotatorConfig):
    """Makes annotation columns of columns of the input, so that a template can show them.

    Example:

        [annotators.meta]
        type = "columns"
        columns = ["language", "date"]
    """

    type_name: ClassVar[str] = "columns"
    reads = ("any columns of the input",)
    writes = ("those named in `columns`",)

    columns: dict[str, ColumnSettings] = Field(min_length=1)
    """Settings by annotation column. A list of names, and a name in place of settings, are short forms:
    `["language", "date"]`, `{ language = "meta.lang" }`."""

    @field_validator("columns", mode="before")
    @classmethod
    def _short_forms(cls, columns: Any) -> Any:
        if isinstance(columns, list) and all(isinstance(name, str) for name in columns):
            columns = {name: {} for name in columns}
        if isinstance(columns, dict):
            return {name: {"column": each} if isinstance(each, str) else each for name, each in columns.items()}
        return columns

    @model_validator(mode="after")
    def _fit_together(self) -> ColumnsConfig:
        for name, settings in self.columns.items():
            if not name.isidentifier():
                short = "".join(c if c.isalnum() else "_" for c in name.rpartition(".")[2]) or "name"
                raise ValueError(f'columns: {name!r} cannot be in a template; write columns = {{ {short} = "{name}" }}')
            problem = settings.resolved(name).problem()
            if problem:
                raise ValueError(f"columns.{name}: {problem}")
        return self

    def build(self, name: str) -> ColumnsAnnotator:
        """The annotator under `name`, which is part of errors alone."""
        return ColumnsAnnotator(name, columns={column: each.resolved(column) for column, each in self.columns.items()})


class ColumnsAnnotator(Annotator):
    """Writes columns of the input.

    Null, an empty string and an empty list give null; so does a value that is not of the column's type, such as text
    that is no number, NaN, or a date that is not in ISO 8601. Times are in UTC; those without a zone count as UTC.
    """

    def __init__(
        self, name: str, *, columns: Mapping[str, ColumnSettings], edges: Mapping[str, tuple[float, ...]] | None = None
    ) -> None:
        """`columns` are resolved; `edges` are the calibrated edges of quantile bins, by annotation column."""
        self.name = name
        self._columns = dict(columns)
        self._edges = None if edges is None else dict(edges)
        self._names = {c: f"{settings.column} as {_WORDS[settings.read_as]}" for c, settings in columns.items()}
        self.columns = tuple(dict.fromkeys(self._names.values()))
        self.typed = {
            self._names[column]: TypedColumn(str(each.column), each.read_as, f"annotators.{name}.columns.{column}")
            for column, each in columns.items()
        }
        self.schema = pa.schema([(column, settings.written_as) for column, settings in columns.items()])
        self.settings: dict[str, Any] = {
            "type": ColumnsConfig.type_name,
            "code_version": _CODE_VERSION,
            "config": {"columns": {column: each.model_dump(mode="json") for column, each in columns.items()}},
            "edges": None if edges is None else {column: list(each) for column, each in edges.items()},
        }

    @property
    def num_calibration_documents(self) -> int | None:
        """The largest sample of the quantile bins; None for other bins, and after calibration."""
        samples = [bins.sample for bins in self._quantiles().values()]
        return max(samples) if samples and self._edges is None else None

    def calibrate(self, sample: Iterable[pa.RecordBatch]) -> dict[str, Any]:
        """`{"edges": {column: [...]}}`: the inner quantiles of the numbers of the documents in `sample`.

        Raises:
            AnnotatorError: no document of the sample has a number.
        """
        quantiles = self._quantiles()
        parts: dict[str, list[Floats]] = {column: [] for column in quantiles}
        for batch in sample:
            for column, values in parts.items():
                values.append(_as_scores(self._values(batch, column)))
        edges = {}
        for column, bins in quantiles.items():
            scores = np.concatenate([np.empty(0, np.float32), *parts[column]])
            try:
                edges[column] = list(bins.quantile_edges(scores[~np.isnan(scores)]))
            except AnnotatorError as error:
                raise AnnotatorError(f"annotators.{self.name}.columns.{column}.bins: {error}") from None
        return {"edges": edges}

    def with_calibration(self, calibration: Mapping[str, Any]) -> ColumnsAnnotator:
        """This annotator with the edges from `calibrate`, which are part of its settings."""
        edges = {column: tuple(map(float, calibration["edges"][column])) for column in self._quantiles()}
        return ColumnsAnnotator(self.name, columns=self._columns, edges=edges)

    def annotate(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """See `Annotator.annotate`; the columns are those of the config.

        Raises:
            AnnotatorError: a column is missing or has a different type, or quantile bins are not calibrated.
        """
        return pa.record_batch([self._annotation(batch, column) for column in self._columns], schema=self.schema)

    def _quantiles(self) -> dict[str, Bins]:
        bins = {column: settings.bins for column, settings in self._columns.items()}
        return {column: each for column, each in bins.items() if each is not None and each.quantiles is not None}

    def _annotation(self, batch: pa.RecordBatch, column: str) -> pa.Array:
        settings, values = self._columns[column], self._values(batch, column)
        if settings.bins is not None:
            edges = settings.bins.edges or (self._edges or {}).get(column)
            if edges is None:
                raise AnnotatorError(
                    f"annotators.{self.name}.columns.{column}.bins: the edges of the quantiles are unknown; calibrate"
                )
            return settings.bins.assign(_as_scores(values), edges)
        return values.cast(settings.written_as)

    def _values(self, batch: pa.RecordBatch, column: str) -> pa.Array:
        """The column's values before bins: in its type, or as names."""
        settings = self._columns[column]
        values = typed_column(batch, self._names[column], settings.read_as)
        if settings.separator is not None:
            return _joined(values, settings)
        if settings.type in ("date", "timestamp"):
            return _moments(values, _WRITTEN[settings.type])
        if settings.type == "number":
            return pc.if_else(pc.is_finite(values), values, pa.scalar(None, values.type))
        return values if settings.type in ("integer", "boolean") and not settings.rename else _named(values, settings)


def _named(values: pa.Array, settings: ColumnSettings) -> pa.Array:
    """Values as strings under their names; null where they are empty."""
    texts = values.cast(pa.string())
    texts = pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)
    if settings.rename is None:
        return texts
    found = pc.index_in(texts, pa.array(list(settings.rename), pa.string()), skip_nulls=True)
    return pc.coalesce(pa.array(list(settings.rename.values()), pa.string()).take(found), texts)


def _joined(lists: pa.Array, settings: ColumnSettings) -> pa.Array:
    """The values of each list under their names, with the separator between them; null if there are none."""
    items = _named(lists.flatten(), settings)
    is_known = items.is_valid().to_numpy(zero_copy_only=False)
    rows = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)[is_known]
    counts = np.bincount(rows, minlength=len(lists))
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, items.drop_null()), settings.separator or "")
    return pc.if_else(pa.array(counts > 0), joined, pa.scalar(None, pa.string()))


def _moments(texts: pa.Array, kind: pa.DataType) -> pa.Array:
    """Dates and times in ISO 8601 as timestamps in UTC, or as the dates of those."""
    distinct = texts.dictionary_encode()
    moments = pa.array([parsed_iso_8601(text) for text in distinct.dictionary.to_pylist()], pa.timestamp("us", "UTC"))
    return moments.cast(kind, safe=False).take(distinct.indices)


def _as_scores(values: pa.Array) -> Floats:
    """float32 [rows], NaN for null."""
    return np.asarray(values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float32)
