"""The input of the benchmarks."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.workload import repeated, text_bytes_of


def test_a_repeated_input_has_the_texts_again_under_ids_of_their_own(tmp_path: Path) -> None:
    files = []
    for number in range(2):
        texts = [f"text {number} {row} " * 40 for row in range(50)]
        files.append(tmp_path / f"part-{number}.parquet")
        pq.write_table(pa.table({"id": [f"{number}.{row}" for row in range(50)], "text": texts}), files[-1])
    megabytes = sum(map(text_bytes_of, files)) / 1e6
    found = repeated(files, 2.4 * megabytes, directory=tmp_path / "copies")
    assert found[:2] == files
    assert len(found) == 5, "two whole copies and a part of the third"
    assert sum(map(text_bytes_of, found)) / 1e6 >= 2.4 * megabytes
    tables = [pq.read_table(file) for file in found]
    assert [table["text"] for table in tables[2:]] == [tables[0]["text"], tables[1]["text"], tables[0]["text"]]
    ids = [id for table in tables for id in table["id"].to_pylist()]
    assert len(ids) == len(set(ids))
    assert tables[2]["id"][0].as_py() == "0.0#1"
    assert tables[4]["id"][0].as_py() == "0.0#2"


def test_copies_are_made_once(tmp_path: Path) -> None:
    file = tmp_path / "part.parquet"
    pq.write_table(pa.table({"id": ["a"], "text": ["b" * 1000]}), file)
    first = repeated([file], 0.003, directory=tmp_path / "copies")
    times = [path.stat().st_mtime_ns for path in first]
    assert repeated([file], 0.003, directory=tmp_path / "copies") == first
    assert [path.stat().st_mtime_ns for path in first] == times
