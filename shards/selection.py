"""Selection: the documents that a layout has, by their annotations.

A condition is about one annotation column; a document is selected if all conditions hold. A null value equals nothing:
it fails `one_of`, `min` and `max`, and passes `none_of`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, StrictStr, model_validator

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.times import parsed_iso_8601

_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
# Longer strings would be compared with what is left of long columns, see `shards.metadata.most_column_bytes`.
_Text = Annotated[StrictStr, Field(max_length=500)]


def _date_as_text(value: Any) -> Any:
    """TOML has dates; they are kept as text in ISO 8601."""
    return value.isoformat() if isinstance(value, date) else value


def _one_is_a_list(values: Any) -> Any:
    return values if isinstance(values, list | tuple) else [values]


Value = Annotated[StrictBool | StrictInt | _Number | _Text, BeforeValidator(_date_as_text)]
Bound = Annotated[StrictInt | _Number | _Text, BeforeValidator(_date_as_text)]
Values = Annotated[tuple[Value, ...], BeforeValidator(_one_is_a_list), Field(min_length=1, max_length=10_000)]


class Condition(BaseModel):
    """A condition on an annotation column. A value, or a list of values, is the short form of `one_of`.

    Example:

        [layouts.kept]
        position = "plain"
        where = { topic = ["Health", "Games"], quality_score = { min = 2.5 }, robots_allowed = { none_of = false } }
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    one_of: Values | None = None
    """The column has one of these values."""
    none_of: Values | None = None
    """The column has none of these values; null passes."""
    min: Bound | None = None
    """The column's number, date or time is at least this."""
    max: Bound | None = None
    """The column's number, date or time is at most this."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, condition: Any) -> Any:
        return condition if isinstance(condition, dict | Condition) else {"one_of": condition}

    @model_validator(mode="after")
    def _is_one(self) -> Condition:
        if not self.model_dump(exclude_none=True):
            raise ValueError("a condition has at least one of one_of, none_of, min, max")
        return self

    def misfit(self, kind: pa.DataType) -> str | None:
        """Why a column of this type cannot have the condition; None if it can."""
        try:
            self.holds(pa.nulls(1, kind))
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            values = [*(self.one_of or ()), *(self.none_of or ()), *(v for v in (self.min, self.max) if v is not None)]
            return f"the column is {kind}; it cannot be compared with {', '.join(map(repr, values[:4]))}"
        return None

    def holds(self, column: pa.Array | pa.ChunkedArray) -> NumPyArray:
        """bool [rows]: whether the condition holds for each value.

        Raises:
            ValueError: the column's type does not fit, see `misfit`; so do errors of Arrow.
        """
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        column = column.cast(kind)
        kept = pa.scalar(True)
        if self.one_of is not None:
            kept = pc.and_(kept, pc.is_in(column, value_set=_values(self.one_of, kind)))
        if self.none_of is not None:
            kept = pc.and_(kept, pc.invert(pc.is_in(column, value_set=_values(self.none_of, kind))))
        if self.min is not None:
            kept = pc.and_(kept, pc.fill_null(pc.greater_equal(column, _bound(self.min, kind)), False))
        if self.max is not None:
            kept = pc.and_(kept, pc.fill_null(pc.less_equal(column, _bound(self.max, kind)), False))
        return np.asarray(kept.to_numpy() if isinstance(kept, pa.ChunkedArray) else kept.to_numpy(zero_copy_only=False))


def selected(where: Mapping[str, Condition], columns: Mapping[str, pa.Array], *, num_rows: int) -> NumPyArray | None:
    """bool [num_rows]: whether each document fulfils all conditions; None without conditions."""
    if not where:
        return None
    kept = np.ones(num_rows, bool)
    for name, condition in where.items():
        kept &= condition.holds(columns[name])
    return kept


def _values(values: tuple[Any, ...], kind: pa.DataType) -> pa.Array:
    return pa.concat_arrays([pa.array([_converted(value, kind)], kind) for value in values])


def _bound(value: Any, kind: pa.DataType) -> pa.Scalar:
    """The bound in the column's type, so that 0.1 equals a float32 that prints as 0.1; a fraction stays one."""
    if pa.types.is_boolean(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        raise ValueError(kind)
    if pa.types.is_integer(kind) and isinstance(value, int | float):
        return pa.scalar(value)
    return pa.scalar(_converted(value, kind), kind)


def _converted(value: Any, kind: pa.DataType) -> Any:
    if isinstance(value, bool) != pa.types.is_boolean(kind):
        raise ValueError(value)
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        moment = parsed_iso_8601(value) if isinstance(value, str) else None
        if moment is None:
            raise ValueError(value)
        return moment.date() if pa.types.is_date(kind) else moment
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    is_fraction = pa.types.is_integer(kind) and isinstance(value, float) and not value.is_integer()
    if isinstance(value, str) != is_text or is_fraction:
        raise ValueError(value)
    return value
