"""Export: the input's rows in order, each with its annotations."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pipeline.project import (
    ROWS_OF_FILES,
    SCHEMA,
    Called,
    colophon,
    document,
    generated_id,
    line_places,
    manifest,
    resolved_recipe,
    run,
    write_json_lines,
)


def damage(path: Path) -> None:
    """Flip a bit in the texts of the first row group; the footer and the time of change stay as they were."""
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    chunk = pq.read_metadata(path).row_group(0).column(0)
    data = bytearray(path.read_bytes())
    data[chunk.dictionary_page_offset + 30] ^= 0x55
    path.write_bytes(bytes(data))
    os.utime(path, ns=times)


def export(*arguments: str, to: str = "exported") -> Called:
    return colophon("export", "recipe.toml", "--to", to, *arguments)


def exported(to: str = "exported") -> list[dict[str, Any]]:
    """All rows in the order of the run's partitions."""
    paths = [Path(to, f"{partition.name}.parquet") for partition in manifest().partitions]
    assert {path.name for path in Path(to).iterdir()} == {path.name for path in paths}
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def test_rows_are_the_inputs_with_their_own_annotations(finished: Path) -> None:
    called = export()
    assert (called.code, called.err) == (0, "")
    rows = exported()
    documents = [document(number) for number in range(sum(ROWS_OF_FILES))]
    places = [(f"data/part-{part}.parquet", row) for part, count in enumerate(ROWS_OF_FILES) for row in range(count)]
    expected = [{**row, "id": row["id"] or generated_id(*place)} for row, place in zip(documents, places, strict=True)]
    assert [{name: row[name] for name in SCHEMA.names} for row in rows] == expected
    for row, original in zip(rows, documents, strict=True):
        year = original["dump"][8:12]
        assert row["crawl_year"] == (int(year) if year.isdigit() else None)
        host = None if original["url"] is None else original["url"].split("/")[2]
        assert (row["url_domain"], row["url_host"]) == (host, host)
        score = original["score"]
        assert row["quality_coarse"] == (None if score is None else round(min(max(score, 0), 5)))


def test_an_annotation_that_repeats_an_input_column_is_written_once(finished: Path) -> None:
    assert export().code == 0
    (path, *_) = Path("exported").iterdir()
    names = pq.read_schema(path).names
    annotated = [name for name in resolved_recipe().columns.annotator_of if name != "url"]
    assert names == [*SCHEMA.names, *annotated]


def test_the_types_are_finewebs_and_the_annotators(finished: Path) -> None:
    assert export().code == 0
    (path, *_) = Path("exported").iterdir()
    types = dict(zip(pq.read_schema(path).names, pq.read_schema(path).types, strict=True))
    assert types["crawl_year"] == pa.int16()
    assert types["quality_fine"] == pa.int8()
    assert types["score"] == pa.float64()
    assert types["text"] in (pa.string(), pa.large_string())


def test_renamed_input_columns_are_exported_under_finewebs_names(project: Path) -> None:
    table = pa.Table.from_pylist([document(number) for number in range(40)], SCHEMA)
    renamed = table.rename_columns(["content", "key", "dump", "link", "language", "score"])
    pq.write_table(renamed.append_column("extra", pa.array(range(40))), "own.parquet")
    settings = [
        argument
        for setting in (
            "input.paths=own.parquet",
            'input.columns={ text = "content", id = "key", url = "link" }',
        )
        for argument in ("--set", setting)
    ]
    assert run(*settings).code == 0
    assert export(*settings).code == 0
    rows = exported()
    expected = [{**row, "id": row["id"] or generated_id("own.parquet", n)} for n, row in enumerate(table.to_pylist())]
    assert [{name: row[name] for name in SCHEMA.names} for row in rows] == expected
    assert [row["extra"] for row in rows] == list(range(40))
    assert "link" not in rows[0]


def test_a_column_with_an_annotations_name_stays_the_inputs(project: Path) -> None:
    table = pa.Table.from_pylist([document(number) for number in range(5)], SCHEMA)
    pq.write_table(table.append_column("crawl_year", pa.array(["mine"] * 5)), "own.parquet")
    settings = ("--set", "input.paths=own.parquet")
    assert run(*settings).code == 0
    assert export(*settings).code == 0
    assert [(row["crawl_year"], row["crawl_year_annotated"]) for row in exported()] == [
        ("mine", 2013 + number) for number in range(5)
    ]


def test_an_exported_input_gets_the_same_annotations_once(project: Path) -> None:
    """Annotation columns that the input has already, with the same values in all files, are not written twice."""
    one = ("--set", "input.paths=data/part-0.parquet")
    assert run(*one).code == 0
    assert export(*one).code == 0
    again = ("--set", "input.paths=exported", "--set", "output.path=again")
    assert run(*again).code == 0
    assert export(*again, to="twice").code == 0
    first, second = (pq.read_table(path).to_pylist() for path in ("exported", "twice"))
    assert first == second


def test_json_lines_are_joined_without_their_bad_lines(project: Path) -> None:
    rows: list[Any] = [document(number) for number in range(12)]
    write_json_lines(Path("own.jsonl"), [*rows[:5], "nonsense", *rows[5:]])
    settings = ("--set", "input.paths=own.jsonl")
    assert run(*settings).code == 3
    assert export(*settings).code == 0
    out = exported()
    assert [(row["text"], row["url"], row["score"]) for row in out] == [
        (row["text"], row["url"], row["score"]) for row in rows
    ]
    assert [row["crawl_year"] for row in out] == [
        int(row["dump"][8:12]) if row["dump"] != "elsewhere" else None for row in rows
    ]
    places = line_places("own.jsonl")
    del places[5]
    assert [row["id"] for row in out] == [
        generated_id("own.jsonl", place) if row["id"] is None else row["id"]
        for place, row in zip(places, rows, strict=False)
    ]


def test_json_values_of_other_columns_are_exported_as_they_are(project: Path) -> None:
    """Also in lines that the fast parser refuses: a float as an id, NaN, half of a surrogate pair, deep values."""
    lines = [
        '{"text": "a", "id": 1.5, "url": null, "dump": null, "score": 1, "x": {"n": [1, {}]}, "n": 1}',
        '{"text": "b", "id": "b", "url": null, "dump": null, "score": NaN, "x": "plain", "n": 2.5}',
        r'{"text": "c", "id": "c", "url": null, "dump": null, "score": 1, "x": ["\ud800", 12345678901234567890123]}',
        '{"text": "d", "id": "d", "url": null, "dump": null, "score": 1, "y": true, "u": 18446744073709551615}',
        f'{{"text": "e", "id": "e", "url": null, "dump": null, "score": 1, "z": {"[" * 990}{"]" * 990}}}',
        f'{{"text": "f", "id": 0.5, "url": null, "dump": null, "score": 1, "z": {"[" * 9999}{"]" * 9999}}}',
    ]
    Path("own.jsonl").write_text("\n".join(lines), encoding="utf-8")
    settings = ("--set", "input.paths=own.jsonl")
    assert run(*settings).code == 0
    assert export(*settings).code == 0
    rows = exported()
    assert [row["id"] for row in rows] == ["1.5", "b", "c", "d", "e", "0.5"]
    assert [row["x"] for row in rows[:2]] == ['{"n":[1,{}]}', "plain"]
    assert rows[2]["x"] == r'["\ud800", 12345678901234567890123]'
    assert [(row["n"], row["y"], row["u"]) for row in rows[:4]] == [
        (1.0, None, None),
        (2.5, None, None),
        (None, None, None),
        (None, True, "18446744073709551615"),
    ]
    assert rows[4]["z"] in (None, "[" * 990 + "]" * 990)
    assert rows[5]["z"] == "[]", "Python cannot parse it"


def test_records_of_a_web_archive(project: Path) -> None:
    records = [
        f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Record-ID: <urn:uuid:{number}>\r\n"
        f"WARC-Target-URI: https://e.org/{number}\r\nWARC-Date: 2024-03-01T00:00:00Z\r\n"
        f"Content-Type: text/plain\r\nContent-Length: 6\r\n\r\npage {number}\r\n\r\n"
        for number in range(3)
    ]
    Path("own.warc").write_bytes("".join(records).encode())
    settings = ("--set", "input.paths=own.warc")
    recipe = Path("recipe.toml").read_text().replace("[annotators.crawl]", "").replace("[annotators.edu_score]", "")
    layouts = recipe[: recipe.index("[layouts.append-quality]")]
    Path("recipe.toml").write_text(layouts)
    assert run(*settings).code == 0
    assert export(*settings).code == 0
    rows = exported()
    assert [(row["text"], row["url"], row["url_host"]) for row in rows] == [
        (f"page {n}", f"https://e.org/{n}", "e.org") for n in range(3)
    ]
    assert list(rows[0])[:4] == ["text", "id", "url", "date"]
    assert {row["date"] for row in rows} == {"2024-03-01T00:00:00Z"}


def test_keys_that_cannot_be_columns(project: Path) -> None:
    """Half of a surrogate pair as a key has no column. A file with thousands of keys is named; others are written."""
    common = {"text": "a", "id": "1", "url": None, "dump": None, "score": 1}
    Path("a.jsonl").write_text(json.dumps({**common, "": 1, "\ud800": 2, "ü": 3}) + "\n")
    Path("b.jsonl").write_text("".join(json.dumps({**common, f"k{n}": n}) + "\n" for n in range(1001)))
    settings = ("--set", 'input.paths=["a.jsonl", "b.jsonl"]')
    assert run(*settings).code == 0
    called = export(*settings)
    assert called.code == 1
    assert called.line == (
        "export: b.jsonl: has more than 1,000 different keys, which cannot be columns. The other 1 files are written"
    )
    (path,) = Path("exported").iterdir()
    names = pq.read_schema(path).names
    assert {"unnamed", "ü"} <= set(names)
    assert len(names) == len(common) + 2 + len(resolved_recipe().columns.annotator_of) - 1


def test_exporting_twice_replaces_the_files(finished: Path) -> None:
    assert export().code == 0
    first = exported()
    assert export().code == 0
    assert exported() == first


def test_exporting_before_annotating_is_one_line_and_writes_nothing(project: Path) -> None:
    called = export()
    assert called.code == 2
    assert called.line.startswith("export: annotations/url of part-0-")
    assert called.line.endswith(" is not up to date: run `colophon annotate`")
    assert not Path("exported").exists()


def test_exporting_annotations_of_another_recipe_is_one_line(finished: Path) -> None:
    called = export("--set", "annotators.url.private_suffixes=true")
    assert called.code == 2
    assert called.line.endswith(" is not up to date: run `colophon annotate`")
    assert not Path("exported").exists()


def test_input_that_became_unreadable_is_one_line(finished: Path) -> None:
    damage(Path("data/part-1.parquet"))
    called = export()
    assert called.code == 1
    assert called.line.startswith("export: data/part-1.parquet: ")
    assert "CRC" in called.line
    written = len(manifest().partitions) - 1
    assert called.line.endswith(f". The other {written} files are written")
    assert len(list(Path("exported").glob("*.parquet"))) == written
    assert not [path for path in Path("exported").iterdir() if path.suffix == ".tmp"]


def test_quarantined_partitions_are_skipped_and_counted(project: Path) -> None:
    damage(Path("data/part-1.parquet"))
    assert run().code == 3
    called = export()
    assert (called.code, called.err) == (0, "")
    partitions = len(manifest().partitions)
    assert called.out.endswith(f"{partitions} files in exported; 1 quarantined partitions skipped\n")
    assert len(exported()) == sum(partition.rows or 0 for partition in manifest().partitions)


def test_a_damaged_manifest_is_one_line_and_writes_nothing(finished: Path) -> None:
    Path("out/manifest.json").write_text("{")
    called = export()
    assert called.code == 2
    assert called.line.startswith("out/manifest.json: damaged: ")
    assert not Path("exported").exists()


def test_a_file_in_the_place_of_the_directory_is_one_line(finished: Path) -> None:
    Path("taken").write_text("kept")
    called = export(to="taken")
    assert called.code == 2
    assert called.line == "--to taken: is a file. Give a directory"
    assert Path("taken").read_text() == "kept"


def names(directory: str) -> list[str]:
    return sorted(path.name for path in Path(directory).iterdir())


def test_files_whose_input_is_gone_are_removed(project: Path) -> None:
    """The second export of the same run reads each document once."""
    recipe = ("--set", "input.paths=own-*.parquet")
    pq.write_table(pa.Table.from_pylist([document(1)], SCHEMA), "own-a.parquet")
    assert run(*recipe).code == 0
    assert export(*recipe).code == 0
    Path("exported", ".x.parquet.0123456789ab.tmp").write_text("left by a killed export")
    Path("exported", "README.md").write_text("a dataset card")
    Path("own-a.parquet").rename("own-b.parquet")
    assert run(*recipe).code == 0
    called = export(*recipe)
    assert (called.code, called.err) == (0, "")
    assert [name[:5] for name in names("exported")] == ["READM", "own-b"]


def test_files_of_a_different_export_are_named_and_kept_unless_asked(finished: Path) -> None:
    assert export().code == 0
    kept = names("exported")
    other = ("--set", "output.path=other", "--set", "input.paths=data/part-0.parquet")
    assert run(*other).code == 0
    called = export(*other)
    assert called.code == 2
    assert called.line.startswith("--to exported: has files of a different export: part-0-")
    assert called.line.endswith("--overwrite removes them; a different directory keeps both")
    assert names("exported") == kept
    assert export(*other, "--overwrite").code == 0
    assert sum(pq.read_metadata(Path("exported", name)).num_rows for name in names("exported")) == ROWS_OF_FILES[0]


def test_data_files_that_are_not_of_an_export_are_never_removed(finished: Path) -> None:
    for name in ("x.parquet", "x.jsonl.gz", "below/x.csv"):
        path = Path("exported", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
        called = export("--overwrite")
        assert called.code == 2
        assert called.line == (
            f"--to exported: has data files that are not of an export: {name}. Move them, or give a different directory"
        )
        assert path.read_text() == "mine"
        path.unlink()


@pytest.mark.parametrize("place", ["out", "out/exported", "out/../out/tokens", "data/exported", "data"])
def test_an_export_is_outside_of_input_and_output(finished: Path, place: str) -> None:
    called = export("--set", "input.paths=data", to=place)
    assert called.code == 2
    assert called.line.startswith("--to")
    assert not Path(place).exists() or not list(Path(place).rglob("*annotated*"))
