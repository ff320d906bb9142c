"""The `columns` annotator: types, names and bins of the input's columns, and null for what a type cannot hold."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from colophon.annotators.base import Annotator, AnnotatorError
from colophon.annotators.input_columns import ColumnsConfig

UTC = dt.timezone.utc


def build(columns: Any) -> Annotator:
    return ColumnsConfig.model_validate({"columns": columns}).build("meta")


def annotated(settings: dict[str, Any], values: list[Any]) -> list[Any]:
    """The annotation of a column `x` with these values, read in the type that the annotator asks for."""
    annotator = build({"x": settings})
    ((name, column),) = annotator.typed.items()
    return annotator.annotate(pa.record_batch({name: pa.array(values, column.type)})).column("x").to_pylist()


@pytest.mark.parametrize(
    ("columns", "types"),
    [
        (["language", "dump", "my_score"], [pa.string()] * 3),
        (["date"], [pa.timestamp("us", "UTC")]),
        (["score", "language_score"], [pa.float64()] * 2),
        (["token_count", "int_score"], [pa.int64()] * 2),
        ({"date": {"type": "string"}, "day": {"column": "date", "type": "date"}}, [pa.string(), pa.date32()]),
        ({"lang": "meta.lang", "ok": {"type": "boolean"}}, [pa.string(), pa.bool_()]),
        (
            {"n": {"bins": {"edges": [1]}}, "m": {"bins": {"edges": [1], "labels": ["a", "b"]}}},
            [pa.int16(), pa.string()],
        ),
        ({"n": {"type": "integer", "rename": {"1": "one"}}, "l": {"separator": "/"}}, [pa.string()] * 2),
    ],
)
def test_types(columns: Any, types: list[pa.DataType]) -> None:
    assert build(columns).schema.types == types


def test_columns_of_one_type_are_read_once() -> None:
    annotator = build(
        {"date": {}, "day": {"column": "date", "type": "date"}, "year": {"column": "date", "type": "integer"}}
    )
    assert annotator.columns == ("date as text", "date as integer")
    assert {name: (column.name, column.type) for name, column in annotator.typed.items()} == {
        "date as text": ("date", pa.string()),
        "date as integer": ("date", pa.int64()),
    }


@pytest.mark.parametrize(
    ("settings", "values", "expected"),
    [
        ({}, ["en", "", None, " "], ["en", None, None, " "]),
        ({"rename": {"en": "English"}}, ["en", "de", ""], ["English", "de", None]),
        ({"separator": " | "}, [["a", "b"], [], [None, ""], None, ["a"]], ["a | b", None, None, None, "a"]),
        ({"separator": ",", "rename": {"a": "A"}}, [["a", None, "b"]], ["A,b"]),
        ({"type": "integer"}, [2**63 - 1, None], [2**63 - 1, None]),
        ({"type": "integer", "rename": {"0": "no"}}, [0, 1], ["no", "1"]),
        ({"type": "number"}, [0.1, float("nan"), float("inf"), None], [0.1, None, None, None]),
        ({"type": "boolean"}, [True, False, None], [True, False, None]),
        ({"type": "boolean", "rename": {"true": "yes"}}, [True, False, None], ["yes", "false", None]),
        ({"bins": {"edges": [0, 2.5]}}, [-1, 0, 2.5, None, float("nan")], [0, 1, 2, None, None]),
        ({"type": "integer", "bins": {"edges": [10], "labels": ["few", "many"]}}, [9, 10, None], ["few", "many", None]),
        ({"type": "date"}, ["2024-02-29", "2023-02-29", "2024-03-01T23:30:00-01:00", ""],
         [dt.date(2024, 2, 29), None, dt.date(2024, 3, 2), None]),
        ({"type": "timestamp"}, ["2013-05-18T05:48:54Z", "2013-05-18 05:48", "2013-05-18T05:48:54.1234567+05:30"],
         [dt.datetime(2013, 5, 18, 5, 48, 54, tzinfo=UTC), dt.datetime(2013, 5, 18, 5, 48, tzinfo=UTC),
          dt.datetime(2013, 5, 18, 0, 18, 54, 123456, UTC)]),
        ({"type": "timestamp"}, ["2013", "18 May 2013", "12000-01-01", "0001-01-01T00:00+05:00", "2024-01-01T24:00"],
         [None] * 5),
    ],
)  # fmt: skip
def test_values(settings: dict[str, Any], values: list[Any], expected: list[Any]) -> None:
    assert annotated(settings, values) == expected


def test_quantiles_are_fitted_for_each_column_and_part_of_the_settings() -> None:
    annotator = build({"x": {"bins": {"quantiles": 2, "sample": 7}}, "y": {"bins": {"quantiles": 4, "sample": 9}}})
    assert annotator.num_calibration_documents == 9
    batch = pa.record_batch({"x as number": [1.0, 2.0, 3.0, None], "y as number": [0.0, 10.0, 20.0, 30.0]})
    with pytest.raises(AnnotatorError, match=r"^annotators\.meta\.columns\.x\.bins: the edges of the quantiles"):
        annotator.annotate(batch)
    calibration = annotator.calibrate([batch])
    assert calibration == {"edges": {"x": [2.0], "y": [7.5, 15.0, 22.5]}}
    known = annotator.with_calibration(calibration)
    assert known.num_calibration_documents is None
    assert known.annotate(batch).to_pydict() == {"x": [0, 1, 1, None], "y": [0, 1, 2, 3]}
    assert known.fingerprint != annotator.fingerprint
    with pytest.raises(AnnotatorError, match=r"^annotators\.meta\.columns\.x\.bins: no document"):
        annotator.calibrate([batch.slice(3)])


def test_defaults_that_are_written_out_change_no_fingerprint() -> None:
    assert build(["date"]).fingerprint == build({"date": {"column": "date", "type": "timestamp"}}).fingerprint
    assert build(["date"]).fingerprint != build({"date": {"type": "date"}}).fingerprint


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ([], "at least 1 item"),
        (["meta.lang"], 'write columns = { lang = "meta.lang" }'),
        ({"x": {"bins": {"edges": [1]}, "rename": {"a": "b"}}}, "give bins or rename, not both"),
        ({"x": {"type": "date", "bins": {"edges": [1]}}}, "columns.x: bins need type integer or number, not date"),
        ({"x": {"type": "number", "separator": ","}}, "columns.x: separator needs type string, not number"),
        ({"date": {"rename": {"a": "b"}}}, "rename needs type string, integer or boolean, not timestamp"),
        ({"x": {"type": "text"}}, "'string', 'integer', 'number', 'boolean', 'date' or 'timestamp'"),
        ({"x": {"seperator": ","}}, "seperator"),
    ],
)
def test_settings_that_do_not_fit_are_refused(columns: Any, reason: str) -> None:
    with pytest.raises(ValidationError) as refused:
        build(columns)
    assert reason in str(refused.value)


def test_a_column_of_a_different_type_is_an_error() -> None:
    with pytest.raises(AnnotatorError, match="column 'x as integer' has type double; int64 is needed"):
        build({"x": {"type": "integer"}}).annotate(pa.record_batch({"x as integer": [1.5]}))
