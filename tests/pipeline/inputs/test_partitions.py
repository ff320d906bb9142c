"""Partitions: the cut at row groups, names and identities, and files that cannot be used."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colophon.pipeline.errors import UsageError
from colophon.pipeline.inputs.columns import ColumnNeed
from colophon.pipeline.inputs.partition_table import Partitions
from colophon.pipeline.inputs.partitions import Inputs, check_names, plan_inputs
from colophon.pipeline.recipe.schema import InputSection
from colophon.shards.common.errors import ColophonError
from tests.pipeline.project import run, write_documents

TEXT = (ColumnNeed("text", "text"),)


def plan(*paths: str | Path, needs: tuple[ColumnNeed, ...] = TEXT, **settings: object) -> Inputs:
    return plan_inputs(InputSection(paths=[str(path) for path in paths], **settings), needs=needs)


def sources(inputs: Inputs) -> list[str]:
    return list(dict.fromkeys(partition.source for partition in inputs.partitions))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@given(
    rows=st.lists(st.integers(0, 5), min_size=1, max_size=12),
    partition_bytes=st.one_of(st.integers(1, 3000), st.just(1 << 40)),
)
def test_partitions_cover_every_row_once_for_any_size(rows: list[int], partition_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.parquet"
        schema = pa.schema([("text", pa.string())])
        with pq.ParquetWriter(path, schema) as writer:
            for group, size in enumerate(rows):
                writer.write_table(pa.table({"text": [f"{group} {'x' * 50}"] * size}, schema))
        groups = pq.read_metadata(path).num_row_groups
        parts = plan(path, partition_bytes=partition_bytes).partitions
    assert sum(part.rows or 0 for part in parts) == sum(rows)
    assert len({part.name for part in parts}) == len(parts)
    begin = first = 0
    for part in parts:
        assert part.row_groups is not None
        assert part.row_groups[0] >= begin
        assert not sum(rows[begin : part.row_groups[0]])  # only row groups without rows are in no partition
        assert part.first_row == first
        assert part.rows == sum(rows[slice(*part.row_groups)]) > 0
        assert part.bytes <= partition_bytes or sum(size > 0 for size in rows[slice(*part.row_groups)]) == 1
        begin, first = part.row_groups[1], first + part.rows
    assert first == sum(rows)
    assert groups == len(rows)


def test_appended_files_rename_and_change_nothing(here: Path) -> None:
    for name in ("b", "d"):
        write_documents(Path(f"data/{name}.parquet"), range(40))
    before = plan("data/*.parquet", partition_bytes=3000).partitions
    for name in ("a", "c", "e"):
        write_documents(Path(f"data/{name}.parquet"), range(40))
    after = {part.name: part for part in plan("data/*.parquet", partition_bytes=3000).partitions}
    assert len(after) == 5 * len(before) / 2 > 5
    assert all(after[part.name] == part for part in before)


def test_files_of_the_same_name_in_two_places_have_different_partitions(here: Path) -> None:
    for folder in ("CC-MAIN-2013-20", "CC-MAIN-2014-10"):
        write_documents(Path(folder, "train-00000.parquet"), range(4))
    parts = plan("*/*.parquet").partitions
    assert len(parts) == len({part.name for part in parts}) == 2


def test_names_have_128_bits_of_the_place_and_the_row_group(here: Path) -> None:
    write_documents(Path("data/part 0.parquet"), range(40))
    digits = sha256(f"{here.resolve()}/data/part 0.parquet".encode()).hexdigest()[:32]
    parts = plan("data/*.parquet", partition_bytes=3000).partitions
    assert len(parts) > 2
    assert all(part.row_groups and part.name == f"part_0-{digits}-{part.row_groups[0]:05d}" for part in parts)
    assert {part.file_name for part in parts} == {f"part_0-{digits}"}


def test_two_partitions_of_one_name_are_refused_with_both_sources(here: Path) -> None:
    for name in ("a", "b"):
        write_documents(Path(f"{name}.parquet"), range(4))
    one, other = plan("*.parquet").partitions
    check_names(Partitions.of([one, other]))
    with pytest.raises(ColophonError, match=rf"a.parquet and b.parquet both have the partition name {one.name}"):
        check_names(Partitions.of([one, replace(other, name=one.name)]))


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_the_identity_changes_only_with_the_content(here: Path, suffix: str) -> None:
    def write(numbers: range) -> None:
        if suffix == "parquet":
            write_documents(Path("a.parquet"), numbers)
        else:
            Path("a.jsonl").write_text('{"text": "a"}\n' * len(numbers))

    write(range(4))
    first = plan(f"a.{suffix}").partitions[0]
    assert plan(f"a.{suffix}").partitions[0] == first
    write(range(4, 9))
    changed = plan(f"a.{suffix}").partitions[0]
    assert changed.name == first.name
    assert changed.identity != first.identity


def test_an_edit_that_leaves_size_and_footer_changes_the_identity(here: Path) -> None:
    path = Path("a.parquet")
    pq.write_table(pa.table({"text": ["number 1", "a"]}), path, write_statistics=False, use_dictionary=False)
    first, footer = plan("a.parquet").partitions[0], path.read_bytes()[-150:]
    path.write_bytes(path.read_bytes().replace(b"number 1", b"number 2", 1))
    assert path.read_bytes()[-150:] == footer
    assert pq.read_table(path).column("text").to_pylist() == ["number 2", "a"]
    assert plan("a.parquet").partitions[0].identity != first.identity


def test_a_file_without_rows_has_no_partitions(here: Path) -> None:
    write_documents(Path("none.parquet"), range(0))
    write_documents(Path("some.parquet"), range(3))
    found = plan("none.parquet", "some.parquet")
    assert sources(found) == ["some.parquet"]
    assert found.quarantine == ()


def test_files_that_lack_a_column_are_quarantined_and_the_others_are_not(here: Path) -> None:
    write_documents(Path("good.parquet"), range(3))
    pq.write_table(pa.table({"TEXT": ["a"]}), "upper.parquet")
    Path("broken.parquet").write_bytes(b"PAR1 no footer")
    Path("empty.parquet").write_bytes(b"")
    found = plan("*.parquet")
    assert sources(found) == ["good.parquet"]
    assert {entry.source: entry.stage for entry in found.quarantine} == dict.fromkeys(
        ("broken.parquet", "empty.parquet", "upper.parquet"), "input"
    )
    reasons = {entry.source: entry.reason for entry in found.quarantine}
    assert reasons["upper.parquet"] == "no column 'text'; columns: TEXT"
    assert all("\n" not in reason and reason for reason in reasons.values())


def test_columns_are_found_under_the_names_of_the_input(here: Path) -> None:
    pq.write_table(pa.table({"content": ["a"]}), "a.parquet")
    needs = (ColumnNeed("text", "content"), ColumnNeed("id", "key", required=False))
    assert plan("a.parquet", needs=needs, columns={"text": "content"}).partitions[0].rows == 1
    with pytest.raises(UsageError, match=r"no input file can be read; the first, a.parquet: no column 'text'; columns"):
        plan("a.parquet")


@pytest.mark.parametrize(
    ("kind", "named"),
    [(pa.binary(), "binary"), (pa.int64(), "int64"), (pa.list_(pa.string()), "list<"), (pa.null(), "null")],
)
def test_a_text_column_of_a_different_type_is_refused_by_name(here: Path, kind: pa.DataType, named: str) -> None:
    pq.write_table(pa.table({"text": pa.nulls(2, kind)}), "a.parquet")
    with pytest.raises(UsageError, match=rf"a.parquet: column 'text' is {named}.*, not string"):
        plan("a.parquet")


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str
)
def test_a_text_of_every_string_type_is_accepted(here: Path, kind: pa.DataType) -> None:
    pq.write_table(pa.table({"text": pa.array(["a", None], kind)}), "a.parquet")
    assert plan("a.parquet").partitions[0].rows == 2


def test_a_run_reports_the_unreadable_files_that_it_excludes(project: Path) -> None:
    Path("data/part-3.parquet").write_bytes(b"PAR1 no footer")
    called = run()
    assert called.code == 3
    assert called.err == ""
    assert "quarantined: data/part-3.parquet: " in called.out


def test_an_input_without_readable_files_is_a_usage_error_and_writes_nothing(project: Path) -> None:
    for number in range(3):
        Path(f"data/part-{number}.parquet").write_bytes(b"")
    called = run()
    assert called.code == 2
    assert called.line.startswith("recipe.toml: no input file can be read; the first, data/part-0.parquet: ")
    assert not Path("out").exists()
