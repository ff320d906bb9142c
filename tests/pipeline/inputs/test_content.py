"""The hash of a column: the same for any cut into batches and any format, different for any other values."""

from __future__ import annotations

import datetime
import decimal
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colophon.pipeline.inputs.columns import ColumnNeed
from colophon.pipeline.inputs.content import ColumnContent
from colophon.pipeline.inputs.partitions import plan_inputs
from colophon.pipeline.inputs.readers import PartitionReader
from colophon.pipeline.recipe.schema import InputSection
from tests.pipeline.project import document

VALUES: dict[str, tuple[pa.DataType, list[Any]]] = {
    "string": (pa.string(), ["", "a", "ab", "b", "ü🙂"]),
    "string_view": (pa.string_view(), ["", "a", "a string of more than twelve bytes"]),
    "dictionary": (pa.dictionary(pa.int8(), pa.string()), ["", "a", "ab"]),
    "binary": (pa.binary(), [b"", b"\xff", b"ab"]),
    "int32": (pa.int32(), [0, -1, 7]),
    "uint64": (pa.uint64(), [0, 2**64 - 1]),
    "float32": (pa.float32(), [0.0, 1.5, -2.0]),
    "bool": (pa.bool_(), [True, False]),
    "date": (pa.date32(), [datetime.date(1999, 12, 31), datetime.date(2000, 1, 1)]),
    "timestamp": (pa.timestamp("us", "UTC"), [datetime.datetime(2000, 1, 1, tzinfo=datetime.timezone.utc)]),
    "decimal": (pa.decimal128(5, 2), [decimal.Decimal("1.50"), decimal.Decimal("-0.01")]),
    "list": (pa.list_(pa.string()), [[], ["a"], ["a", None, ""], ["", "a"]]),
    "fixed_size_list": (pa.list_(pa.int16(), 2), [[1, 2], [2, None]]),
    "struct": (pa.struct({"x": pa.int8(), "y": pa.string()}), [{"x": 1, "y": "a"}, {"x": None, "y": ""}]),
    "map": (pa.map_(pa.string(), pa.int8()), [[("a", 1)], []]),
    "null": (pa.null(), [None]),
}


def content_of(*arrays: pa.Array) -> str:
    content = ColumnContent()
    for array in arrays:
        content.update(array)
    return content.hexdigest()


@settings(max_examples=30)
@given(st.data())
@pytest.mark.parametrize("kind", VALUES)
def test_equal_hashes_mean_equal_values_for_any_cut(kind: str, data: st.DataObject) -> None:
    array_type, values = VALUES[kind]
    rows = st.lists(st.none() | st.sampled_from(values), max_size=6)
    one, other = data.draw(rows), data.draw(rows)
    array = pa.array([None, *one, None], array_type).slice(1, len(one))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(one)), max_size=4)))
    parts = [array.slice(begin, end - begin) for begin, end in pairwise([0, *cuts, len(one)])]
    assert content_of(*parts) == content_of(array)
    assert (content_of(pa.array(other, array_type)) == content_of(array)) == (one == other)


def test_a_value_under_a_null_does_not_count() -> None:
    with_hidden_text = pa.Array.from_buffers(
        pa.string(), 2, [pa.py_buffer(b"\x02"), pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"ab")]
    )
    assert with_hidden_text.to_pylist() == [None, "b"]
    assert content_of(with_hidden_text) == content_of(pa.array([None, "b"]))


def test_a_column_has_one_hash_in_every_format_and_size_of_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [document(number) | {"int_score": None if number % 7 == 1 else number} for number in range(300)]
    table = pa.Table.from_pylist(rows)
    wide = table.set_column(0, "text", table.column("text").cast(pa.large_string()))
    narrow = table.set_column(
        table.schema.get_field_index("int_score"), "int_score", table.column("int_score").cast(pa.int16())
    )
    pq.write_table(wide, "a.parquet", row_group_size=7)
    pq.write_table(narrow, "b.parquet", row_group_size=1000, use_dictionary=True)
    with pa.OSFile("c.arrow", "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=11)
    Path("d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    needs = [ColumnNeed(name, name) for name in ("text", "id", "url", "score", "int_score", "date")]
    needs[-1] = ColumnNeed("date", "date", required=False)
    found = {}
    for path in ("a.parquet", "b.parquet", "c.arrow", "d.jsonl"):
        (partition,) = plan_inputs(InputSection(paths=(path,)), needs=needs).partitions
        reader = PartitionReader(partition, needs, stage="test")
        assert sum(batch.num_rows for batch in reader) == len(rows)
        found[path] = dict(reader.content)
    assert all(content == found["a.parquet"] for content in found.values()), found
    assert len(set(found["a.parquet"].values())) == len(needs)
