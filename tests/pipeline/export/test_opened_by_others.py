"""An export of files that differ in everything, opened by polars, Hugging Face `datasets` and DuckDB."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pipeline.project import colophon, generated_id, line_places, run

ROWS = 6
COMMON: dict[str, Any] = {
    "text": [f"text {n}" for n in range(ROWS)],
    "id": [None if n == 2 else f"id-{n}" for n in range(ROWS)],
    "dump": ["CC-MAIN-2020-10"] * ROWS,
    "url": [f"https://e.org/{n}" for n in range(ROWS)],
    "score": [1.5] * ROWS,
}
NOT_UTF8 = pa.array([b"caf\xe9"] * ROWS).view(pa.string())


def parquet() -> None:
    more = {
        "text": NOT_UTF8,
        "url": pa.array(COMMON["url"]).dictionary_encode(),
        "note": NOT_UTF8,
        "number": pa.array(range(ROWS), pa.int8()),
        "big": pa.array([10**50] * ROWS, pa.decimal256(76, 3)),
        "price": pa.array([1] * ROWS, pa.decimal256(20, 2)),
        "zone": pa.array([0] * ROWS, pa.timestamp("us", tz="+05:30")),
        "moment": pa.array([1_700_000_000] * ROWS, pa.timestamp("s")),
        "far": pa.array([99999999] * ROWS, pa.date32()),
        "near": pa.array([1] * ROWS, pa.date32()),
        "key": pa.array([bytes(range(16))] * ROWS, pa.uuid()),
        "map": pa.array([[("k", 1)]] * ROWS, pa.map_(pa.string(), pa.int64())),
        "lists": pa.array([[{"a": 1, "b": ["x"]}]] * ROWS),
        "days": pa.array([[99999999, None]] * ROWS, pa.list_(pa.date32())),
        "nothing": pa.nulls(ROWS),
        "crawl_year": pa.array(["mine"] * ROWS),
        "crawl_year_annotated": pa.array(["mine too"] * ROWS),
    }
    columns = {**COMMON, **more}
    number = pa.array(range(ROWS), pa.int16())
    table = pa.table([*columns.values(), number], [*columns, "number"])
    pq.write_table(table, "data/a.parquet", row_group_size=4)


def arrow() -> None:
    table = pa.table({**COMMON, "number": pa.array([0.5] * ROWS, pa.float32()), "only_arrow": [True] * ROWS})
    with pa.ipc.new_stream("data/b.arrow", table.schema) as writer:
        writer.write_table(table)


def json_lines() -> None:
    rows = [{name: values[n] for name, values in COMMON.items()} for n in range(ROWS)]
    rows = [{**row, "number": n, "meta": {"n": [n]} if n else "plain", "flag": True} for n, row in enumerate(rows)]
    rows[-1] |= {"late": 1.5}
    Path("data/c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def comma_separated() -> None:
    with Path("data/d.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["", *COMMON])
        writer.writeheader()
        writer.writerows({"": n, **{name: values[n] for name, values in COMMON.items()}} for n in range(ROWS))


@pytest.fixture
def exported(project: Path) -> str:
    for path in Path("data").iterdir():
        path.unlink()
    for write in (parquet, arrow, json_lines, comma_separated):
        write()
    settings = ("--set", "input.paths=data")
    assert run(*settings).code == 0
    called = colophon("export", "recipe.toml", "--to", "exported", *settings)
    assert (called.code, called.err) == (0, "")
    return "exported/*.parquet"


def test_all_tools_read_the_same_rows(exported: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = by_polars(exported)
    assert len(rows) == 4 * ROWS
    for column in rows[0]:  # a difference is shown by column
        expected = [row[column] for row in rows]
        assert [row[column] for row in by_duckdb(exported)] == expected
    assert by_datasets(exported, monkeypatch) == rows
    check_first(rows[0])
    check_others(rows)


def by_polars(paths: str) -> list[dict[str, Any]]:
    import polars as pl

    rows = pl.read_parquet(paths).to_dicts()
    assert pl.read_parquet(Path(paths).parent).to_dicts() == rows
    return rows


def by_duckdb(paths: str) -> list[dict[str, Any]]:
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as connection:
        connection.sql("SET TimeZone = 'UTC'")
        result = connection.sql(f"SELECT * FROM read_parquet('{paths}')")
        return [dict(zip(result.columns, row, strict=True)) for row in result.fetchall()]


def by_datasets(paths: str, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    loaded = datasets.load_dataset("parquet", data_files=paths, split="train", cache_dir="cache")
    return list(loaded)


def check_first(row: dict[str, Any]) -> None:
    """The first row of the Parquet file: what can be kept is kept, the rest are strings."""
    assert (row["text"], row["note"]) == ("caf\N{REPLACEMENT CHARACTER}",) * 2
    assert row["big"] == f"{10**50}.000"
    assert str(row["price"]) == "1.00"
    assert (row["zone"].isoformat(), row["moment"].isoformat()) == (
        "1970-01-01T00:00:00+00:00",
        "2023-11-14T22:13:20",
    )
    assert (row["far"], row["near"].isoformat()) == ("275760-09-12", "1970-01-02")
    assert row["key"] == "00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert (row["map"], row["days"]) == ('[{"key":"k","value":1}]', '["275760-09-12",null]')
    assert row["lists"] == [{"a": 1, "b": ["x"]}]
    assert row["nothing"] is None
    assert (row["crawl_year"], row["crawl_year_annotated"], row["crawl_year_annotated_2"]) == ("mine", "mine too", 2020)
    assert (row["number"], row["number_2"]) == (0.0, 0)


def check_others(rows: list[dict[str, Any]]) -> None:
    """Every column of every file is there, and null in the rows of the other files."""
    first = {name: rows[place] for name, place in (("b", ROWS), ("c", 2 * ROWS), ("c1", 2 * ROWS + 1), ("d", 3 * ROWS))}
    assert (first["b"]["only_arrow"], first["b"]["number"], first["b"]["note"]) == (True, 0.5, None)
    assert (first["c"]["meta"], first["c1"]["meta"], first["c"]["flag"]) == ("plain", '{"n":[1]}', True)
    assert [row["late"] for row in rows[2 * ROWS : 3 * ROWS]] == [None] * 5 + [1.5]
    assert (first["c"]["number_2"], first["d"]["unnamed"]) == (None, "0")
    generated = [generated_id("data/b.arrow", 2), generated_id("data/c.jsonl", line_places("data/c.jsonl")[2])]
    assert [row["id"] for row in rows[ROWS + 2 :: ROWS]] == [*generated, ""]
    assert all(row["url_domain"] == "e.org" and row["quality_coarse"] == 2 for row in rows)
